"""`charrun run`: run a spec, or continue its run."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrun.commands.loading import Loaded
from charrun.commands.money import finishing, money_of, require_enough
from charrun.commands.options import locked_option, plugin_options, runs_dir_option, set_option
from charrun.commands.run_options import Way, load_selected, selection_of, selection_options, way_options
from charrun.commands.words import spec_files
from charrun.errors import BudgetReached, CharrunError, EnvironmentProblem, render_problems
from charrun.report.text import PART

if TYPE_CHECKING:
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.expiring import Expiring
    from charrun.pipeline.results import RunResult
    from charrun.pipeline.selection import Selection
    from charrun.store.run import RunFolder

_GC_THRESHOLDS = 50_000, 50, 100
"""Thousands of requests in flight are no garbage: Python's own thresholds cost an eighth of the processor's time."""


@click.command()
@click.argument("spec", type=click.Path(path_type=str), shell_complete=spec_files)
@selection_options
@set_option
@locked_option
@runs_dir_option
@plugin_options
@way_options
def run(
    spec: str,
    sets: Sequence[str],
    locked: bool,
    runs_dir: Path,
    plugins: bool,
    trust: bool,
    way: Way,
    **selected: Any,
) -> None:
    """Run SPEC, or continue its run.

    SPEC is a file, or builtin:NAME for a spec that ships with charrun. Without Tinker credentials a spec's stand-ins
    run on this machine.
    """
    from charrun.pipeline.choice import choose

    selection = selection_of(**selected)
    loaded = load_selected(spec, sets, selection, plugins=plugins, trust=trust)
    choice = choose(loaded.spec, loaded.registry)
    if locked:
        from charrun.commands.lock import require_locked

        require_locked(spec, sets, loaded, choice)
    go(loaded, choice, runs_dir, selection, way)


def go(
    loaded: Loaded,
    choice: Choice,
    runs_dir: Path,
    selection: Selection,
    way: Way,
    folder: RunFolder | None = None,
) -> None:
    """Look, ask, run, and show what was made; `folder` is a run that is continued as it is."""
    from charrun.pipeline.results import CellsFailed
    from charrun.pipeline.run import Manner, run_choice
    from charrun.store.files import write_atomic

    selection = _prepare(loaded, choice, runs_dir, selection, way, folder)
    failed: CellsFailed | None = None
    reached: BudgetReached | None = None
    manner = Manner(way.jobs, way.wait, way.patience * 60, way.budget, way.partial)
    gc.freeze()  # what is imported stays
    gc.set_threshold(*_GC_THRESHOLDS)
    with way.show.watching() as watcher:
        try:
            result = run_choice(choice, loaded.registry, runs_dir, [watcher], selection, manner, folder)
        except CellsFailed as error:  # what the others have made is shown nevertheless
            failed, result = error, error.result
        except BudgetReached as error:
            reached = error
            _report_stopped(loaded, choice, runs_dir, selection, folder, error)
        except CharrunError as error:
            _report_stopped(loaded, choice, runs_dir, selection, folder, error)
            raise
    if reached is not None:
        raise BudgetReached(reached.message, reached.hint + finishing(loaded, choice, runs_dir, selection, folder))
    if result.cells:
        report = result.folder / "report.md"
        if _is_news(report, result, selection):
            write_atomic(report, _report(result, loaded, choice, selection))
        way.show.end(result)
    if failed:
        raise failed


def _prepare(
    loaded: Loaded,
    choice: Choice,
    runs_dir: Path,
    selection: Selection,
    way: Way,
    folder: RunFolder | None,
) -> Selection:
    """Everything before the first write: stages' own checks, `--after`, and the question."""
    from charrun.pipeline.checks import check_cells, passed_cells
    from charrun.pipeline.expiring import expiring
    from charrun.pipeline.plan import plan
    from charrun.pipeline.preflight import require_sound
    from charrun.pipeline.run import plan_cells, to_ask, to_train
    from charrun.service.disk_checks import require_room

    cells = plan_cells(choice, loaded.registry, runs_dir, selection)
    warnings = [*choice.warnings, *check_cells(cells)]
    if warnings:
        click.echo(render_problems(warnings), err=True)
    if selection.after:
        cells, left = passed_cells(cells, selection.after)
        for line in left:
            click.echo(line, err=True)
        selection = replace(selection, names=tuple(cell.name for cell in cells))
    planned = plan(cells) if choice.paid else []
    money = None
    asks = not way.yes and sys.stdin.isatty()
    begins = any(stage.state == "to do" for cell in planned for stage in cell.stages) and (asks or way.yes)
    if (asks or way.yes) and choice.paid:
        limited = way.budget is not None or choice.spec.budget_usd is not None
        asked = partial(money_of, loaded, choice, runs_dir, cells, way.budget, folder)
        first = asks or (limited and not way.partial)
        if not first:  # the run does not wait for it
            way.show.reckon(asked)
        if begins:
            require_room(runs_dir)
            shared = cells[0].shared
            shared.to_ask, shared.to_train = to_ask(cells), to_train(cells)
            shared.look()
            for each in expiring(cells):
                click.echo(_expires(each), err=True)
        if first:
            money = asked()
    way.show.begin(choice, cells, planned, money)
    if begins:
        foresight = None if money is None else money.foresight
        require_sound(choice, loaded.registry, runs_dir.absolute(), cells, foresight)
    require_enough(money, way.partial)
    if choice.paid:
        _confirm(way.yes)
    return selection


def _expires(checkpoint: Expiring) -> str:
    from charrun.report.columns import moment

    what = f"the checkpoint of {checkpoint.stage} is gone on {moment(checkpoint.expires)}, and stages still need it"
    return f"warning: {what}: to keep it, tinker checkpoint set-ttl --remove {checkpoint.path}"


def _is_news(report: Path, result: RunResult, selection: Selection) -> bool:
    """Whether a report tells more than the one that is there: a part's does not take the place of the whole's."""
    from charrun.report.run_report import NOT_FINISHED
    from charrun.store.journal import read_journal
    from charrun.store.run import JOURNAL

    try:
        with report.open(encoding="utf-8") as file:
            was_part = file.readline().rstrip().endswith(PART)
            was_stopped = f"{file.readline()}{file.readline()}".lstrip().startswith(NOT_FINISHED)
        written = report.stat().st_mtime
    except (OSError, ValueError):
        return True
    if was_part or was_stopped or selection.is_part:
        return was_part or was_stopped
    made = (e for e in read_journal(result.folder / JOURNAL).events if e["event"] == "stage_finished")
    return any(float(event["time"]) >= written for event in made if not event.get("cached"))


def _report_stopped(
    loaded: Loaded, choice: Choice, runs_dir: Path, selection: Selection, folder: RunFolder | None, error: CharrunError
) -> None:
    """Write the report of a run that has stopped, as far as it went; not over the whole one if a part has stopped."""
    from charrun.pipeline.run import frozen_spec
    from charrun.report.run_report import made_so_far
    from charrun.store.files import write_atomic
    from charrun.store.replay import RUNNING
    from charrun.store.run import RunFolder
    from charrun.store.runs import read_run

    with suppress(CharrunError, OSError):  # why the run has stopped is what must be told
        folder = folder or RunFolder.find(runs_dir.absolute(), choice.spec.name, frozen_spec(choice))
        if folder is None or (run := read_run(folder.folder)).status == RUNNING:
            return
        report, result = run.folder / "report.md", made_so_far(run)
        if not selection.is_part or _is_news(report, result, selection):
            write_atomic(report, _report(result, loaded, choice, selection, error.message))


def _report(result: RunResult, loaded: Loaded, choice: Choice, selection: Selection, stopped: str = "") -> str:
    from charrun.report.run_report import run_report
    from charrun.spec.prices import told_rates
    from charrun.spec.schema import with_defaults
    from charrun.store.journal import read_journal
    from charrun.store.ledger import LEDGER, read_ledger
    from charrun.store.run import JOURNAL
    from charrun.store.runs import read_run

    journal = read_journal(result.folder / JOURNAL)
    run = read_run(result.folder, journal)
    checks = [event for event in journal.events if event["event"] == "check"]
    return run_report(
        result,
        choice,
        read_ledger(result.folder / LEDGER),
        told_rates(run.rates),
        run.budget,
        checks,
        {name: with_defaults(stage.options_schema, {}) for name, stage in loaded.registry.stages.items()},
        selection.is_part,
        stopped,
    )


def _confirm(yes: bool) -> None:
    """Ask once.

    Raises:
        EnvironmentProblem: There is no terminal to ask at, and no --yes.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise EnvironmentProblem("a run on a hosted engine must be confirmed, and there is no terminal", "add --yes")
    click.confirm("Run it?", abort=True)
