"""Running a spec: cells side by side, an engine that may die, a person who may press Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from charrun import events
from charrun.errors import EXIT_INTERRUPTED, CharrunError, EnvironmentProblem, Interrupted, StageFailed
from charrun.pipeline.cell import Cell
from charrun.pipeline.choice import Choice
from charrun.pipeline.lockfile import lock_entries
from charrun.pipeline.observers import Observers, nobody
from charrun.pipeline.results import CellResult, CellsFailed, RunResult
from charrun.pipeline.selection import Selection
from charrun.pipeline.shared import Shared
from charrun.plugin_manager import Registry
from charrun.store.files import make_folder
from charrun.store.run import RunFolder

JOBS = 4
"""Cells that run at once, unless told otherwise."""
SUMMARY_ROWS = 16
_WATCH_SECONDS = 0.5
_T = TypeVar("_T")


def run_choice(
    choice: Choice,
    registry: Registry,
    runs_dir: Path,
    watchers: Iterable[object] = (),
    selection: Selection | None = None,
    jobs: int = JOBS,
) -> RunResult:
    """Run the selected cells and stages of a spec and return what they made.

    Args:
        choice: The spec and the engine that it runs on.
        registry: The plugins; those of them that observe are told what happens.
        runs_dir: Where runs and their rows are kept.
        watchers: Who else is told: objects with methods called as the hooks that they want.
        selection: What of the spec to run; all of it by default.
        jobs: Cells that run at once.

    Raises:
        CharrunError: A stage failed, the environment failed, or the run was interrupted; what is recorded stays.
    """
    runs_dir = make_folder(runs_dir.absolute())
    frozen = {**choice.spec.to_dict(), "stand_ins_used": dict(choice.stand_ins)}
    folder = RunFolder.open(runs_dir, choice.spec.name, frozen)
    shared = Shared(choice, registry, runs_dir, folder, Observers(registry.observers, watchers))
    return asyncio.run(_interruptible(_run(shared, choice, selection or Selection(), jobs)))


def plan_cells(choice: Choice, registry: Registry, runs_dir: Path, selection: Selection | None = None) -> list[Cell]:
    """The selected cells of a spec without running or writing anything, for what is shown before a run.

    Raises:
        UsageProblem: The selection names what the spec does not have.
    """
    nowhere = RunFolder(runs_dir / choice.spec.name)
    return _cells(Shared(choice, registry, runs_dir, nowhere, nobody()), selection or Selection())


def _cells(shared: Shared, selection: Selection) -> list[Cell]:
    checked = selection.checked(shared.spec)
    return [Cell(shared, spec, checked) for spec in checked.cells(shared.spec)]


async def _run(shared: Shared, choice: Choice, selection: Selection, jobs: int) -> RunResult:
    cells = _cells(shared, selection)
    started = time.monotonic()
    run = shared.folder.name
    shared.record(
        "run_started",
        engine=shared.engine.name,
        stand_ins=dict(choice.stand_ins),
        pid=os.getpid(),
        argv=_arguments(),
        cells=[cell.name for cell in cells],
    )
    names = tuple(cell.name for cell in cells)
    shared.observers.tell(
        events.RunStarted(run, shared.folder.folder, shared.engine.name, dict(choice.stand_ins), names)
    )
    status = "errored"
    try:
        results = await _while_engine_lives(shared, _run_cells(shared, cells, jobs))
        status = "success"
    except asyncio.CancelledError:
        status = "interrupted"
        shared.record("run_interrupted")
        _tell_failure(shared, "interrupted", EXIT_INTERRUPTED)
        raise
    except CharrunError as error:
        with contextlib.suppress(CharrunError):  # a full disk must not hide the error that it caused
            shared.record("run_failed", error=error.message, hint=error.hint)
        _tell_failure(shared, error.message, error.exit_code)
        raise
    finally:
        await shared.close(status)
    shared.record("run_finished")
    shared.observers.tell(events.RunFinished(run, shared.folder.folder, round(time.monotonic() - started, 3)))
    return _result_of(shared, results)


def _arguments() -> list[str]:
    """What this process was told on the command line, if it is charrun's own; so that a run can say how to go on."""
    return sys.argv[1:] if Path(sys.argv[0]).name in ("charrun", "__main__.py") else []


def _tell_failure(shared: Shared, error: str, code: int) -> None:
    shared.observers.tell(events.RunFailed(shared.folder.name, shared.folder.folder, error, code))


async def _run_cells(shared: Shared, cells: Sequence[Cell], jobs: int) -> list[CellResult]:
    """All cells, so many at once. A stage that fails ends its own cell; anything else ends the run."""
    shared.folder.write("lock.json", lock_entries(shared))
    slots = asyncio.Semaphore(jobs)
    failures: list[tuple[Cell, StageFailed]] = []

    async def one(cell: Cell) -> CellResult | None:
        async with slots:
            try:
                return await _run_cell(shared, cell)
            except StageFailed as error:
                failures.append((cell, error))
                return None

    tasks: list[asyncio.Task[CellResult | None]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks += [group.create_task(one(cell)) for cell in cells]
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None  # the first error cancelled the rest
    results = [result for task in tasks if (result := task.result()) is not None]
    if failures:
        raise _failure_of(failures, len(cells), _result_of(shared, results))
    shared.folder.snapshot({"status": "finished", "cells": [_plain(result) for result in results]})
    return results


def _result_of(shared: Shared, results: Sequence[CellResult]) -> RunResult:
    return RunResult(shared.folder.folder, tuple(results), shared.engine.name, shared.stand_ins)


def _failure_of(failures: Sequence[tuple[Cell, StageFailed]], cells: int, result: RunResult) -> StageFailed:
    first = failures[0][1]
    if cells == 1:
        return first
    reasons: dict[str, list[str]] = {}
    for cell, error in failures:
        reasons.setdefault(error.message, []).append(cell.name)
    text = "\n".join(f"{', '.join(names)}: {message}" for message, names in reasons.items())
    return CellsFailed(f"{len(failures)} of {cells} cells failed\n{text}", first.hint, result)


async def _run_cell(shared: Shared, cell: Cell) -> CellResult:
    for stage in cell.selected:
        await stage.ensure()
    result = await _result(cell)
    shared.folder.write(f"cell-{cell.name}.json", _folders(cell))
    return result


async def _result(cell: Cell) -> CellResult:
    rows: dict[str, list[dict[str, Any]]] = {}
    for stage in cell.selected:
        for kind, found in (await stage.ensure()).items():
            if len(found) <= SUMMARY_ROWS:
                rows[kind] = list(found)
    return CellResult(cell.name, tuple(s.result for s in cell.selected if s.result), rows)


def _folders(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "stages": [
            {"id": stage.item.id, "folder": f"store/{stage.folder.name}", "fingerprint": stage.fingerprint}
            for stage in cell.stages
            if stage.fingerprint
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
