"""`run.json` and `cell-<name>.json`: what the journal adds up to, for people and programs; nothing reads them back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from charrun.store.cells import CellView, StageView
from charrun.store.files import write_json
from charrun.store.run import SNAPSHOT
from charrun.store.runs import Run, read_run


def write_snapshot(folder: Path) -> None:
    """Write a run's snapshots anew from its journal and its frozen spec.

    Raises:
        OSError: They can't be written.
    """
    for name, value in snapshot_of(read_run(folder)).items():
        write_json(folder / name, value)


def snapshot_of(run: Run) -> dict[str, dict[str, Any]]:
    """A run's snapshots by file name."""
    head = {"run": run.id, "status": run.status, "started": run.started, "last": run.last, "engine": run.engine}
    whole = {**head, "error": run.error, "cells": [_cell(cell) for cell in run.cells]}
    return {SNAPSHOT: whole, **{f"cell-{cell.name}.json": _folders(cell) for cell in run.cells}}


def _cell(cell: CellView) -> dict[str, Any]:
    return {"name": cell.name, "stages": [_stage(stage) for stage in cell.stages]}


def _stage(stage: StageView) -> dict[str, Any]:
    return {
        "id": stage.id,
        "state": stage.state,
        "folder": f"store/{stage.folder.name}" if stage.folder else None,
        "seconds": round(stage.seconds, 3),
        "rows": dict(stage.rows),
        "usage": dict(stage.usage),
        "error": stage.error,
    }


def _folders(cell: CellView) -> dict[str, Any]:
    stages = [{"id": each.id, "folder": f"store/{each.folder.name}"} for each in cell.stages if each.folder]
    return {"cell": cell.name, "stages": stages}
