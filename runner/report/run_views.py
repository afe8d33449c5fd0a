"""Runs on a terminal: the list of all, and one with its cells and stages."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charrun.pipeline.results import MEASUREMENTS
from charrun.report.columns import age, fit, moment, short, table, wrapped
from charrun.report.cost import left_of, open_lines, whole_usd
from charrun.report.measurements import measurement_lines
from charrun.report.outcome import evaluation_lines, weight_lines
from charrun.report.text import counted, duration, rate, safe, safe_lines
from charrun.report.throughput import Throughput, seconds_of, throughput
from charrun.spec.prices import told_rates
from charrun.store.cells import CellView, StageView
from charrun.store.journal import read_journal
from charrun.store.ledger import LEDGER, Totals, read_ledger
from charrun.store.probes import probes_of
from charrun.store.replay import FAILED, FINISHED, INTERRUPTED, LEFT_OUT, RUNNING, STOPPED, text_of
from charrun.store.runs import JOURNAL, Found, Run

_FULL_CELLS = 6
"""More cells than these are listed one a line, and only those that need attention in full."""
_STRANGE = 5
_BUDGET = re.compile(r"the budget (?:of (?P<stage>\S+) )?is reached")
"""How the reason begins for which a run has stopped that reached its budget."""
_HELD = re.compile(r" held for [\d,]+ requests? without an end")
"""What it says of money that nobody knows to be spent, which may have been settled since."""


def runs_lines(found: Found, runs_dir: Path, width: int) -> list[str]:
    """One line a run, the latest last; then what is no run, or damaged."""
    now = time.time()
    rows: list[tuple[str, ...]] = [("run", "status", "cells", "tokens", "engine", "last activity", "age")]
    for run in found.runs:
        last = moment(run.last, precise=False) if run.last else "-"
        rows.append(
            (
                run.id,
                run.status,
                f"{sum(cell.is_done for cell in run.cells)}/{len(run.cells)}",
                short(run.tokens),
                engine_name(run),
                last,
                age(now - run.last) if run.last else "-",
            )
        )
    lines = _names_cut(rows, width) if found.runs else [f"No runs in {safe(str(runs_dir))}: `charrun SPEC` makes one."]
    notes = [f"{run.id}: {run.damage}" for run in found.runs if run.damage]
    notes += [f"{folder}: {reason}" for folder, reason in found.strange]
    lines += [f"note: {safe(note)}" for note in notes[:_STRANGE]]
    return lines + ([f"note: and {len(notes) - _STRANGE} more such folders"] if len(notes) > _STRANGE else [])


def _names_cut(rows: list[tuple[str, ...]], width: int) -> list[str]:
    """The table, with long names cut before their number."""
    wanted = max(map(len, table(rows, "<<>><<>", 10**6)))
    room = max(len(row[0]) for row in rows) - max(0, wanted - width)
    cut = [(_id(row[0], max(room, 12)), *row[1:]) for row in rows]
    return table(cut, "<<>><<>", width)


def _id(id: str, width: int) -> str:
    name, slash, number = id.rpartition("/")
    return f"{fit(name, width - len(number) - 1)}{slash}{number}" if slash else id


def engine_name(run: Run) -> str:
    """`tinker`, `local`, or `stand-ins` where demo models stood in for the named ones."""
    return "stand-ins" if run.stand_ins else run.engine or "-"


def status_lines(run: Run, width: int, only: str = "") -> list[str]:
    """A run, its cells and stages, what they made, and what to do next.

    Args:
        run: The run, read with what its store holds.
        width: Columns of the terminal.
        only: Name of the one cell to show in full; empty for all.
    """
    lines = _head(run)
    cells = [cell for cell in run.cells if only in ("", cell.name)]
    asked = cells
    if len(cells) > _FULL_CELLS:
        lines += ["", *_cell_table(cells, width)]
        cells = [cell for cell in cells if cell_state(cell) in (RUNNING, FAILED, INTERRUPTED, STOPPED)][:_FULL_CELLS]
    for cell in cells:
        lines += ["", *_cell(run, cell, width)]
    return [*lines, *_requests(run, asked, width), *_next(run, width)]


def throughput_of(run: Run, cells: Sequence[CellView]) -> list[Throughput]:
    """How fast the requests of some cells were, by stage; nothing where the ledger can't be read."""
    return throughput(_totals(run), seconds_of(run, cells), [cell.name for cell in cells])


def _requests(run: Run, cells: Sequence[CellView], width: int) -> list[str]:
    found = throughput_of(run, cells)
    if not found:
        return []
    rows: list[tuple[str, ...]] = [("stage", "requests", "in flight", "median, s", "slowest 1%", "waited, s")]
    rows += [(*each.row()[:2], *each.row()[3:]) for each in found]
    return ["", "Requests, in all cells shown" if len(cells) > 1 else "Requests", *table(rows, "<>>>>>", width)]


def _head(run: Run) -> list[str]:
    lines = [f"{run.id}: {run.status}{' by its budget' if _BUDGET.match(stopped_for(run)) else ''}"]
    if run.started and run.last:
        ago = age(time.time() - run.last)
        since = "just now" if ago == "now" else f"{ago} ago"
        lines.append(f"began {moment(run.started)}, last event {moment(run.last)} ({since})")
    lines.append(f"engine {safe(run.engine) or '-'}, folder {safe(str(run.folder))}")
    lines += [f"  {safe(used)} stands in for {safe(named)}" for named, used in run.stand_ins.items()]
    if run.damage:
        lines.append(f"note: {safe(run.damage)}; what can be read is shown")
    return lines


def _cell_table(cells: Sequence[CellView], width: int) -> list[str]:
    rows = [("cell", "state", "stages", "tokens", "seconds")]
    for cell in cells:
        wanted = [stage for stage in cell.stages if stage.state != LEFT_OUT]
        seconds = sum(stage.seconds for stage in cell.stages)
        done = f"{sum(stage.is_done for stage in wanted)}/{len(wanted)}"
        rows.append((cell.name, cell_state(cell), done, short(cell.tokens), f"{seconds:.1f}"))
    return table(rows, "<<>>>", width)


def cell_state(cell: CellView) -> str:
    """The state that tells most of a cell: what fails before what runs before what waits."""
    states = [stage.state for stage in cell.stages]
    told = (FAILED, RUNNING, INTERRUPTED, STOPPED)
    return next((state for state in told if state in states), "done" if cell.is_done else "waiting")


def _cell(run: Run, cell: CellView, width: int) -> list[str]:
    rows = [("stage", "state", "rows", "tokens", "tokens/s", "seconds")]
    for stage in cell.stages:
        pace = rate(stage.tokens, stage.seconds)
        rows.append((stage.id, stage.state, _made(stage), f"{stage.tokens:,}", pace, _seconds(stage)))
    lines = [safe(cell.name), *table(rows, "<<<>>>", width, shrink=2)]
    folders = [stage.folder.name for stage in cell.stages if stage.folder]
    if folders:
        lines += [f"Folders in {safe(str(run.runs_dir / 'store'))}:", *wrapped(folders, width)]
    for stage in cell.stages:
        if stage.error:
            lines += ["", f"{safe(stage.id)} failed: {safe(stage.error)}"]
    for evaluation in cell.rows("evaluation"):
        shown = evaluation_lines(evaluation if isinstance(evaluation, dict) else {})
        lines += ["", *(part for line in shown for part in _wrapped(line, width))]
    for measured in cell.every(MEASUREMENTS):
        lines += ["", *(part for line in measurement_lines(measured) for part in _wrapped(line, width))]
    weights = weight_lines(_rows(cell, "checkpoint"), _rows(cell, "adapter"), run.runs_dir, final=cell.is_done)
    return lines + (["", *weights] if weights else [])


def _wrapped(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=" " * 10, break_long_words=False) or [""]


def _rows(cell: CellView, kind: str) -> list[dict[str, Any]]:
    return [row for row in cell.every(kind) if isinstance(row, dict)]


def _made(stage: StageView) -> str:
    if stage.state == RUNNING:
        stored = stage.stored()
        return f"{stored:,} responses so far" if stored else "-"
    return counted(dict(stage.rows)) or "-"


def _seconds(stage: StageView) -> str:
    if stage.state == RUNNING and stage.since is not None:
        return f"{stage.seconds + max(0.0, time.time() - stage.since):.1f}"
    return f"{stage.seconds:.1f}" if stage.is_done and stage.rows else "-"


def _next(run: Run, width: int) -> list[str]:
    if run.status == FINISHED:
        return []
    if run.status == RUNNING:
        return ["", f"Follow it: charrun logs -f {run.id}{_place(run)}"]
    lines = [""]
    reason = stopped_for(run)
    if budget := _BUDGET.match(reason):
        stage = budget["stage"]
        option = f"budget.stages.{stage}" if stage else "--budget"
        whose = f"The budget of {safe(stage)}" if stage else "The budget"
        lines.append(f"{whose} was reached{safe(reason[budget.end() :])}. Nothing that it recorded is lost.")
        lines += [line for told in _money_now(run) for line in textwrap.wrap(told, width)]
        again = f":\n  {safe(run.command)}" if run.command else ": charrun SPEC"
        freed = " again, or" if _HELD.search(reason) and not _totals(run).open else ""
        higher = f"To continue, run the same command{freed} with a higher {safe(option)}{again}"
        return [*lines, higher, *_working(run)]
    if run.status == FAILED:
        lines += [f"The run failed: {safe_lines(run.error)}", *([f"  {safe(run.hint)}"] if run.hint else [])]
        lines.append(f"What led to it: charrun logs {run.id}{_place(run)} (--engine for the engine's own log)")
    else:
        how = "was interrupted" if run.status == INTERRUPTED else "stopped without a word, as by kill -9 or a power cut"
        lines.append(f"The run {how}. Nothing that it recorded is lost.")
    again = f":\n  {safe(run.command)}" if run.command else ": charrun SPEC"
    return [*lines, f"To continue, run the same command again{again}", *_working(run)]


def _money_now(run: Run) -> list[str]:
    """What requests without an end hold of a run's budget, and what is left of it: now, whatever it was at its stop."""
    if run.budget is None:
        return []
    totals, rates = _totals(run), told_rates(run.rates)
    left = left_of(run.budget, totals, rates, probes_of(run.folder))
    return [*open_lines(totals, rates), f"The run's budget is ${whole_usd(run.budget)}; {left} now."]


def _totals(run: Run) -> Totals:
    """What a run's ledger adds up to; nothing where it can't be read."""
    try:
        return read_ledger(run.folder / LEDGER)
    except OSError:
        return Totals()


def stopped_for(run: Run) -> str:
    """The reason for which a run was stopped before its end, by a person or its budget; empty where it was not."""
    if run.status != INTERRUPTED:
        return ""
    events = read_journal(run.folder / JOURNAL).events
    return next((text_of(e, "reason") for e in reversed(events) if e["event"] == "run_interrupted"), "")


def _working(run: Run) -> list[str]:
    elapsed = sum(stage.seconds for cell in run.cells for stage in cell.stages if stage.is_done)
    lines = [f"What is done ({duration(elapsed)} of work) is not done again."] if elapsed else []
    for stage in [stage for cell in run.cells for stage in cell.stages if stage.saved and not stage.is_done]:
        kept = f", whose checkpoint is kept until {moment(stage.expires)}" if stage.expires else ""
        lines.append(f"{safe(stage.id)} goes on from step {stage.saved}{kept}.")
    return lines


def _place(run: Run) -> str:
    """The option that finds the run again, where it is not in the default folder."""
    return "" if run.runs_dir == Path("runs").absolute() else f" --runs-dir {safe(str(run.runs_dir))}"
