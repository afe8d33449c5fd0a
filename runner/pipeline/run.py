"""Running a spec: cells side by side, an engine that may die, a person who may press Ctrl-C.

Contract:
1. The same command goes on with a run and asks for nothing that is stored.
2. A resumed run goes on from its frozen spec whatever became of the file.
3. The first Ctrl-C awaits what is in flight and stores it.
4. A second Ctrl-C ends the process at once.
5. A finished run needs neither the SDK nor an engine.
6. An engine that answers nothing for too long ends the run in one sentence.
7. A lost checkpoint is trained again only where a stage that still has to run consumes it.
8. A second runner waits for the first one if it is told to.
9. A full disk ends a run in one sentence and the same command goes on.
10. A folder that cannot be written ends a run in one sentence.
11. A clock that jumps changes nothing.
12. Work that cells share fails once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from charrun import events
from charrun.errors import EXIT_INTERRUPTED, CharrunError, EnvironmentProblem, Interrupted, StageFailed
from charrun.pipeline.cell import Cell
from charrun.pipeline.choice import Choice
from charrun.pipeline.frozen import folders_of, keep_sources
from charrun.pipeline.lockfile import lock_entries
from charrun.pipeline.observers import Observers, nobody
from charrun.pipeline.results import CellResult, CellsFailed, RunResult
from charrun.pipeline.selection import Selection
from charrun.pipeline.shared import Shared
from charrun.pipeline.together import gather
from charrun.plugin_manager import Registry
from charrun.service.pulse import PATIENCE_SECONDS, pulse
from charrun.store.files import make_folder
from charrun.store.run import JOURNAL, LOCK, SNAPSHOT, RunFolder
from charrun.store.runs import read_run
from charrun.store.snapshot import write_snapshot
from charrun.store.verify import verify_own

JOBS = 4
"""Cells that run at once, unless told otherwise."""
SUMMARY_ROWS = 16
_WATCH_SECONDS = 0.5
_T = TypeVar("_T")


@dataclass(frozen=True)
class Manner:
    """How a run is done; nothing of it changes what is made.

    Attributes:
        jobs: Cells that run at once.
        wait: Whether to wait for store folders that another process writes.
        patience: Seconds without any answer while requests wait, after which the engine counts as gone.
        budget: US dollars that the run may cost; by default those of the spec.
        partial: Whether that need not do: then nothing is paid beside a training that it would lack for.
    """

    jobs: int = JOBS
    wait: bool = False
    patience: float = PATIENCE_SECONDS
    budget: float | None = None
    partial: bool = False


def run_choice(
    choice: Choice,
    registry: Registry,
    runs_dir: Path,
    watchers: Iterable[object] = (),
    selection: Selection | None = None,
    manner: Manner | None = None,
    folder: RunFolder | None = None,
) -> RunResult:
    """Run the selected cells and stages of a spec and return what they made.

    Args:
        choice: The spec and the engine that it runs on.
        registry: The plugins; those of them that observe are told what happens.
        runs_dir: Where runs and their rows are kept.
        watchers: Who else is told: objects with methods called as the hooks that they want.
        selection: What of the spec to run; all of it by default.
        manner: How.
        folder: The run that is continued; by default the one of this resolved spec, or a new one.

    Raises:
        CharrunError: A stage failed, the environment failed, or the run was interrupted; what is recorded stays.
    """
    runs_dir = make_folder(runs_dir.absolute())
    manner = manner or Manner()
    folder = folder or RunFolder.open(runs_dir, choice.spec.name, frozen_spec(choice))
    keep_sources(folder, {plugin.sha256: plugin.path for plugin in choice.spec.plugins})
    watchers = list(watchers)
    told = Observers(registry.observers, watchers)
    shared = Shared(choice, registry, runs_dir, folder, told, wait=manner.wait, budget=manner.budget)
    shared.goes_ahead = not manner.partial
    work = _run(shared, choice, selection or Selection(), manner)
    return asyncio.run(_interruptible(work, shared, watchers))


def frozen_spec(choice: Choice) -> dict[str, Any]:
    """What a run's folder keeps of its spec, and is found by."""
    return {**choice.spec.to_dict(), "stand_ins_used": dict(choice.stand_ins)}


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


async def _run(shared: Shared, choice: Choice, selection: Selection, manner: Manner) -> RunResult:
    cells = _cells(shared, selection)
    if shared.engine.hosted:
        shared.to_train = to_train(_cells(shared, selection))  # cells of their own: to look is not to run
    if shared.spec.endpoints:
        shared.to_ask = to_ask(_cells(shared, selection))
    started = time.monotonic()
    run = shared.folder.name
    damaged = _damage_of(shared.folder)
    shared.record(
        "run_started",
        spec=shared.folder.spec_digest,
        selection=selection.to_dict(),
        spec_path=str(choice.spec.path.absolute()),
        folders=folders_of(choice.spec),
        engine=shared.engine.name,
        stand_ins=dict(choice.stand_ins),
        pid=os.getpid(),
        argv=_arguments(),
        cells=[cell.name for cell in cells],
        rates={model: rates and asdict(rates) for model, rates in shared.all_rates().items()},
        budget=shared.spending.limit_usd,
    )
    names = tuple(cell.name for cell in cells)
    shared.observers.tell(
        events.RunStarted(run, shared.folder.folder, shared.engine.name, dict(choice.stand_ins), names)
    )
    for told in (*shared.folder.mended, *damaged):
        shared.message(None, told)
    status = "errored"
    try:
        results = await _while_engine_lives(shared, _run_cells(shared, cells, manner.jobs), manner.patience)
        shared.check_budget()
        status = "success"
    except (asyncio.CancelledError, Interrupted):
        status, why = "interrupted", shared.why_stopped()
        shared.record("run_interrupted", reason=why.message)
        _tell_failure(shared, why.message, why.exit_code)
        raise
    except CharrunError as error:
        with contextlib.suppress(CharrunError):  # a full disk must not hide the error that it caused
            shared.record("run_failed", error=error.message, hint=error.hint)
        _tell_failure(shared, error.message, error.exit_code)
        raise
    finally:
        await shared.close(status)
        with contextlib.suppress(CharrunError, OSError):
            write_snapshot(shared.folder.folder)
    shared.record("run_finished")
    write_snapshot(shared.folder.folder)
    shared.observers.tell(events.RunFinished(run, shared.folder.folder, round(time.monotonic() - started, 3)))
    return _result_of(shared, results)


def to_train(cells: Sequence[Cell]) -> dict[tuple[str, int], str]:
    """By base model and LoRA rank, the stage item that trains such an adapter and is not done."""
    found: dict[tuple[str, int], str] = {}
    for cell in cells:
        for stage in cell.selected:
            rank = stage.options.get("lora_rank")
            if isinstance(rank, int) and stage.stage.trains and (stage.forced or stage.peek() is None):
                for role in stage.stage.trains:
                    found.setdefault((cell.model(role).name, rank), stage.item.id)
    return found


def to_ask(cells: Sequence[Cell]) -> set[str]:
    """Names of models at endpoints that are asked by stages that are not done."""
    left = [stage for cell in cells for stage in cell.selected if stage.forced or stage.peek() is None]
    refs = [stage.cell.model(role) for stage in left for role in stage.stage.roles if role in stage.cell.models.roles]
    return {ref.name for ref in refs if ref.endpoint is not None}


def _damage_of(run: RunFolder) -> list[str]:
    """What is damaged of an earlier run's own files, one sentence each; none of it is used."""
    if not any((run.folder / name).exists() for name in (JOURNAL, SNAPSHOT)):
        return []
    with contextlib.suppress(OSError):
        return [str(each) for each in verify_own(read_run(run.folder), ledger=False).damage]
    return []


def _arguments() -> list[str]:
    """What this process was told on the command line, if it is charrun's own; so that a run can say how to go on."""
    return sys.argv[1:] if Path(sys.argv[0]).name in ("charrun", "__main__.py") else []


def _tell_failure(shared: Shared, error: str, code: int) -> None:
    shared.observers.tell(events.RunFailed(shared.folder.name, shared.folder.folder, error, code))


async def _run_cells(shared: Shared, cells: Sequence[Cell], jobs: int) -> list[CellResult]:
    """All cells, so many at once. A stage that fails ends its own cell; anything else ends the run."""
    shared.folder.write(LOCK, lock_entries(shared))
    failures: list[tuple[Cell, StageFailed]] = []

    async def one(cell: Cell) -> CellResult | None:
        try:
            return await _run_cell(cell)
        except StageFailed as error:
            failures.append((cell, error))
            return None

    found = await gather((one(cell) for cell in cells), jobs)
    results = [result for result in found if result is not None]
    if failures:
        raise _failure_of(failures, len(cells), _result_of(shared, results))
    return results


def _result_of(shared: Shared, results: Sequence[CellResult]) -> RunResult:
    folder = shared.folder.folder
    return RunResult(folder, tuple(results), shared.engine.name, shared.stand_ins, shared.spending.settled())


def _failure_of(failures: Sequence[tuple[Cell, StageFailed]], cells: int, result: RunResult) -> StageFailed:
    first = failures[0][1]
    if cells == 1:
        return first
    reasons: dict[str, list[str]] = {}
    for cell, error in failures:
        reasons.setdefault(error.message, []).append(cell.name)
    text = "\n".join(f"{', '.join(names)}: {message}" for message, names in reasons.items())
    return CellsFailed(f"{len(failures)} of {cells} cells failed\n{text}", first.hint, result)


async def _run_cell(cell: Cell) -> CellResult:
    await cell.complete()
    rows: dict[str, list[dict[str, Any]]] = {}
    every: dict[str, list[dict[str, Any]]] = {}
    for stage in cell.selected:
        for kind, artifact in (await stage.ensure()).items():
            if 0 < artifact.rows <= SUMMARY_ROWS:
                rows[kind] = artifact.read()
                every.setdefault(kind, []).extend(rows[kind])
    return CellResult(cell.name, tuple(s.result for s in cell.selected if s.result), rows, every)


async def _while_engine_lives(shared: Shared, work: Coroutine[Any, Any, _T], patience: float) -> _T:
    """Await the work, but no longer than the engine lives and answers: the SDK would ask a dead one for hours."""
    task = asyncio.ensure_future(work)
    pulse.patience = patience
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
            if (trouble := pulse.trouble()) is not None:
                raise trouble
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _interruptible(work: Coroutine[Any, Any, _T], shared: Shared, watchers: Sequence[object]) -> _T:
    """The first SIGINT or SIGTERM lets what is in flight come to its end, a second one ends the process at once."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if not shared.stopping:
            shared.stop()
            return
        for watcher in watchers:
            with contextlib.suppress(Exception):
                getattr(watcher, "abandon", lambda: None)()
        with contextlib.suppress(Exception):
            print("interrupted at once: what is recorded stays", file=sys.stderr, flush=True)
        os._exit(EXIT_INTERRUPTED)

    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError, ValueError):  # not in a thread, not on Windows
            loop.add_signal_handler(number, stop, number)
    try:
        return await work
    except asyncio.CancelledError:
        raise shared.why_stopped() from None
    except CharrunError:
        if shared.stopping:
            raise shared.why_stopped() from None
        raise
