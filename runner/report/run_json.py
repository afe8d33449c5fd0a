"""Runs as JSON, for programs: the keys are stable, times are seconds since 1970, paths absolute."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from charrun.pipeline.results import MEASUREMENTS
from charrun.report.run_views import cell_state, throughput_of
from charrun.store.cells import CellView, StageView
from charrun.store.runs import Found, Run


def runs_document(found: Found, runs_dir: Path) -> dict[str, Any]:
    """What `charrun runs --json` prints."""
    return {
        "runs_dir": str(runs_dir.absolute()),
        "runs": [_head(run) for run in found.runs],
        "not_runs": [{"folder": str(folder), "reason": reason} for folder, reason in found.strange],
    }


def run_document(run: Run) -> dict[str, Any]:
    """What `charrun status --json` prints."""
    return {
        **_head(run),
        "error": run.error,
        "hint": run.hint,
        "command": run.command,
        "cells": [_cell(cell) for cell in run.cells],
        "throughput": [asdict(each) for each in throughput_of(run, run.cells)],
    }


def _head(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "number": run.number,
        "folder": str(run.folder),
        "status": run.status,
        "started": run.started,
        "last": run.last,
        "engine": run.engine,
        "stand_ins": dict(run.stand_ins),
        "tokens": run.tokens,
        "cells_done": sum(cell.is_done for cell in run.cells),
        "cells_all": len(run.cells),
        "damage": run.damage,
    }


def _cell(cell: CellView) -> dict[str, Any]:
    return {
        "name": cell.name,
        "state": cell_state(cell),
        "stages": [_stage(stage) for stage in cell.stages],
        "evaluation": cell.rows("evaluation"),
        "measurements": cell.every(MEASUREMENTS),
        "checkpoint": next(reversed(cell.rows("checkpoint")), None),
        "adapter": next(reversed(cell.rows("adapter")), None),
    }


def _stage(stage: StageView) -> dict[str, Any]:
    return {
        "id": stage.id,
        "uses": stage.uses,
        "state": stage.state,
        "folder": str(stage.folder) if stage.folder else None,
        "rows": dict(stage.rows),
        "usage": dict(stage.usage),
        "tokens": stage.tokens,
        "seconds": round(stage.seconds, 3),
        "since": stage.since,
        "error": stage.error,
    }
