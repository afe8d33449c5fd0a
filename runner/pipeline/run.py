"""Running a spec: cells in turn, stages in order, an engine that may die, a person who may press Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from charrun.errors import EXIT_INTERRUPTED, CharrunError, EnvironmentProblem, Interrupted, Problem, SpecError
from charrun.pipeline.cell import Cell
from charrun.pipeline.choice import Choice
from charrun.pipeline.context import StageContext
from charrun.pipeline.lockfile import lock_entries
from charrun.pipeline.reporter import CellResult, Reporter, RunResult
from charrun.pipeline.shared import Shared
from charrun.plugin_manager import Registry
from charrun.store.files import make_folder
from charrun.store.run import RunFolder

SUMMARY_ROWS = 16
_WATCH_SECONDS = 0.5
_T = TypeVar("_T")


def run_choice(choice: Choice, registry: Registry, runs_dir: Path, reporter: Reporter) -> RunResult:
    """Run all cells of a spec and return what they made.

    Raises:
        CharrunError: A stage failed, the environment failed, or the run was interrupted; what is recorded stays.
    """
    runs_dir = make_folder(runs_dir.absolute())
    frozen = {**choice.spec.to_dict(), "stand_ins_used": dict(choice.stand_ins)}
    folder = RunFolder.open(runs_dir, choice.spec.name, frozen)
    shared = Shared(choice, registry, runs_dir, folder, reporter)
    return asyncio.run(_interruptible(_run(shared, choice)))


def check_cells(cells: Iterable[Cell]) -> None:
    """Ask every stage whether it can do what the spec wants of it, before anything is written or started.

    Raises:
        SpecError: Some cannot; every problem at the stage's place in the spec.
    """
    found = {
        Problem("RUN001", text, str(cell.shared.spec.path), stage.item.line, stage.item.column)
        for cell in cells
        for stage in cell.stages
        for text in stage.stage.problems(StageContext(stage))
    }
    if found:
        raise SpecError(sorted(found, key=lambda problem: (problem.line, problem.column, problem.message)))


def plan_cells(choice: Choice, registry: Registry, runs_dir: Path, reporter: Reporter) -> list[Cell]:
    """The cells of a spec without running or writing anything, for what is shown before a run."""
    nowhere = RunFolder(runs_dir / choice.spec.name)
    return _cells(Shared(choice, registry, runs_dir, nowhere, reporter))


def _cells(shared: Shared) -> list[Cell]:
    spec = shared.spec
    return [
        Cell(shared, character, models, scale)
        for character in spec.characters
        for models in spec.models
        for scale in spec.scales
    ]


async def _run(shared: Shared, choice: Choice) -> RunResult:
    cells = _cells(shared)
    shared.record("run_started", engine=shared.engine.name, stand_ins=dict(choice.stand_ins), pid=os.getpid())
    status = "errored"
    try:
        results = await _while_engine_lives(shared, _run_cells(shared, cells))
        status = "success"
    except asyncio.CancelledError:
        status = "interrupted"
        shared.record("run_interrupted")
        raise
    except CharrunError as error:
        with contextlib.suppress(CharrunError):  # a full disk must not hide the error that it caused
            shared.record("run_failed", error=error.message)
        raise
    finally:
        await shared.close(status)
    result = RunResult(shared.folder.folder, tuple(results), shared.engine.name, choice.stand_ins)
    shared.record("run_finished")
    return result


async def _run_cells(shared: Shared, cells: list[Cell]) -> list[CellResult]:
    shared.folder.write("lock.json", lock_entries(shared))
    results = []
    for cell in cells:
        for stage in cell.stages:
            await stage.ensure()
        results.append(await _result(cell))
        shared.folder.write(f"cell-{cell.name}.json", _folders(cell))
    shared.folder.snapshot({"status": "finished", "cells": [_plain(result) for result in results]})
    return results


async def _result(cell: Cell) -> CellResult:
    rows: dict[str, list[dict[str, Any]]] = {}
    for stage in cell.stages:
        for kind, found in (await stage.ensure()).items():
            if len(found) <= SUMMARY_ROWS:
                rows[kind] = list(found)
    return CellResult(cell.name, tuple(s.result for s in cell.stages if s.result), rows)


def _folders(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "stages": [
            {"id": stage.item.id, "folder": f"store/{stage.folder.name}", "fingerprint": stage.fingerprint}
            for stage in cell.stages
        ],
    }


def _plain(result: CellResult) -> Mapping[str, Any]:
    return {
        "name": result.name,
        "stages": [
            {"id": s.id, "seconds": round(s.seconds, 3), "rows": dict(s.rows), "usage": s.usage.to_dict()}
            for s in result.stages
        ],
    }


async def _while_engine_lives(shared: Shared, work: Coroutine[Any, Any, _T]) -> _T:
    """Await the work, but no longer than the engine lives: the SDK would retry a dead one for minutes."""
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=_WATCH_SECONDS)
            if done:
                return task.result()
            reason = shared.failure()
            if reason:
                raise EnvironmentProblem(
                    f"the engine is gone: {reason}", "what is recorded stays; run the same command again"
                )
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _interruptible(work: Coroutine[Any, Any, _T]) -> _T:
    """The first SIGINT or SIGTERM cancels the work, a second one ends the process at once."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    received: list[int] = []

    def stop(number: int) -> None:
        if received:
            os._exit(EXIT_INTERRUPTED)
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):  # not in a thread, not on Windows
            loop.add_signal_handler(number, stop, number)
    try:
        return await task
    except asyncio.CancelledError:
        raise Interrupted("interrupted: what is recorded stays", "run the same command again to continue") from None
    except CharrunError:
        if received:
            raise Interrupted("interrupted", "run the same command again to continue") from None
        raise
