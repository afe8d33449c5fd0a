"""What a person sees before and after a run: models and counts, then stages, emergence, samples and paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from charrun.pipeline.choice import Choice
from charrun.pipeline.results import CellResult, RunResult
from charrun.report.columns import figures, screen_width
from charrun.report.compare_results import rates_of
from charrun.report.cost import cost_line
from charrun.report.intervals import Share
from charrun.report.measurements import measurement_lines
from charrun.report.outcome import evaluation_lines, weight_lines
from charrun.report.profiles import profile_lines
from charrun.report.text import counted, duration, rate, safe
from charrun.report.throughput import throughput
from charrun.spec.prices import told_rates
from charrun.store.ledger import LEDGER, read_ledger
from charrun.store.probes import probes_of
from charrun.store.runs import read_run

if TYPE_CHECKING:
    from charrun.spec import CellSpec

_MOST_CELLS = 4
DEMO_NOTE = "Demo models show the pipeline at work, not a model's quality."


def print_start(console: Console, choice: Choice, cells: Sequence[CellSpec]) -> None:
    """Where the run happens, with which cells and models."""
    spec = choice.spec
    who, scales = dict.fromkeys(c.looked_for.id for c in cells), dict.fromkeys(c.scale.name for c in cells)
    lines = [f"{spec.name}: {', '.join(who)} at {', '.join(scales)} scale"]
    if len(cells) > 1:
        lines[0] += f", {len(cells)} cells"
    if choice.stand_ins:
        lines.append("No Tinker credentials were found: stand-ins run on the local engine of this machine.")
        lines += [f"  {used} stands in for {named}" for named, used in choice.stand_ins.items()]
        lines.append(f"  {DEMO_NOTE}")
    else:
        lines.append(f"Engine: {choice.engine.name}")
        named = dict.fromkeys((role, ref.name) for cell in cells for role, ref in cell.models.roles.items())
        lines += [f"  {role}: {name}" for role, name in named]
    _print(console, lines)


def print_summary(console: Console, result: RunResult, plain: bool = False) -> None:
    """Everything that a finished run has to show; of many cells their results side by side."""
    shown = result.cells if len(result.cells) <= _MOST_CELLS else ()
    for cell in shown:
        console.print()
        if plain:
            _print(console, [cell.name, *(f"  {line}" for line in _stage_lines(cell))])
        else:
            console.print(_stage_table(cell))
        for evaluation in cell.rows.get("evaluation", []):
            _print(console, ["", *evaluation_lines(evaluation)])
        for measured in cell.measurements:
            _print(console, ["", *measurement_lines(measured)])
        _print(console, ["", *_paths(result, cell)])
    if len(result.cells) > 1 and any(cell.rows.get("evaluation") for cell in result.cells):
        _print(console, ["", *_comparison(result)])
    if profiles := profile_lines((cell.name, cell.measurements) for cell in result.cells):
        _print(console, ["", *profiles])
    if not shown:
        _print(console, ["", f"Run folder: {result.folder}"])
    _print(console, _ledger_lines(result))
    if result.stand_ins:
        _print(
            console,
            ["", "This run used " + ", ".join(f"{u} for {n}" for n, u in result.stand_ins.items()) + "."],
        )
        _print(console, [DEMO_NOTE])


def _stage_table(cell: CellResult) -> Table:
    table = Table(title=cell.name, title_justify="left", box=None, pad_edge=False)
    for heading in ("stage", "rows"):
        table.add_column(heading)
    for heading in ("tokens", "tokens/s", "seconds"):
        table.add_column(heading, justify="right")
    for stage in cell.stages:
        table.add_row(
            stage.id + (" (cached)" if stage.cached else ""),
            counted(dict(stage.rows)),
            f"{stage.usage.tokens:,}",
            rate(stage.usage.tokens, stage.seconds),
            f"{stage.seconds:.1f}",
        )
    total, seconds = sum(s.usage.tokens for s in cell.stages), sum(s.seconds for s in cell.stages)
    table.add_row("all", "", f"{total:,}", rate(total, seconds), f"{seconds:.1f}", style="bold")
    return table


def _stage_lines(cell: CellResult) -> list[str]:
    return [
        f"{stage.id}{' (cached)' if stage.cached else ''}: {counted(dict(stage.rows))}, {stage.usage.tokens:,} tokens, "
        f"{stage.seconds:.1f} seconds"
        for stage in cell.stages
    ]


def _comparison(result: RunResult) -> list[str]:
    """A row a cell: in character before and after, each with its n and interval."""
    rows = [("cell", "first model", "95% interval", "last model", "95% interval")]
    lacking = []
    for cell in result.cells:
        found = cell.rows.get("evaluation", [])
        rates = list(rates_of(found[-1]).values()) if found else []
        if rates:
            rows.append((cell.name, *_shown(rates[0]), *_shown(rates[-1])))
        else:
            lacking.append(f"  {safe(cell.name)}: {'this scorer cannot tell it' if found else 'no evaluation'}")
    shown = figures(rows, screen_width() - 2) if len(rows) > 1 else []
    return ["In character, first and last model:", *(f"  {line}" for line in shown), *lacking]


def _shown(share: Share) -> tuple[str, str]:
    """How many of how many, and the interval of the rate."""
    return f"{share.hits}/{share.n} {share.rate:.1%}", f"{share.low:.1%} to {share.high:.1%}"


def _paths(result: RunResult, cell: CellResult) -> list[str]:
    home = result.folder.parent.parent
    lines = weight_lines(cell.every.get("checkpoint", []), cell.every.get("adapter", []), home)
    lines.append(f"Run folder:       {result.folder}")
    lines.append(f"Stage time:       {duration(sum(s.seconds for s in cell.stages))}, summed over stages")
    return lines


def _ledger_lines(result: RunResult) -> list[str]:
    """What the run has cost, and how fast its requests were where it made some; of all its cells together."""
    if not (result.folder / LEDGER).exists():
        return []
    totals = read_ledger(result.folder / LEDGER)
    cost = cost_line(totals, told_rates(read_run(result.folder).rates), probes_of(result.folder))
    lines = [f"Cost:             {cost} (charrun cost)"] if cost else []
    made = any(not stage.cached for cell in result.cells for stage in cell.stages)
    found = throughput(totals, {}) if made else []
    if not found:
        return lines
    slowest = max(found, key=lambda each: each.slowest)
    requests = sum(each.requests for each in found)
    return [
        *lines,
        f"Requests:         {requests:,}; the slowest 1% took {slowest.slowest:.2f} s in {safe(slowest.stage)} "
        "(charrun status)",
    ]


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
