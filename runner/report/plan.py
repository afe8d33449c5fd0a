"""The plan as a person reads it: a table, or plain lines, and the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from charrun.pipeline.choice import Choice
from charrun.pipeline.plan import PlannedCell, PlannedStage
from charrun.report.columns import fit
from charrun.report.text import counted, safe

if TYPE_CHECKING:
    from rich.console import Console

_MOST_CELLS = 12
_WIDEST_REASON = 120
"""Columns of a reason in the table, where it is wrapped; lines and JSON have all of it."""


def print_plan(console: Console, choice: Choice, planned: Sequence[PlannedCell], plain: bool) -> None:
    """Each stage with state, reason, rows and requests; of a large matrix the first cells and the sum."""
    for cell in planned[:_MOST_CELLS]:
        _print_cell(console, cell, plain)
    lines = []
    if len(planned) > _MOST_CELLS:
        lines.append(f"... and {len(planned) - _MOST_CELLS} more cells")
    budget = choice.spec.budget_usd
    limit = "no budget" if budget is None else f"a budget of ${budget:.2f}, which it never exceeds"
    lines.append(total(planned))
    if choice.engine.hosted:
        lines.append(f"The spec sets {limit}. Every request is paid for.")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def total(planned: Sequence[PlannedCell]) -> str:
    """Cells, stages and requests in one line."""
    stages = [stage for cell in planned for stage in cell.stages]
    count = {state: sum(stage.state == state for stage in stages) for state in ("to do", "shared", "done", "missing")}
    parts = [f"{number} {state}" for state, number in count.items() if number]
    requests = sum(stage.requests for stage in stages)
    cells = f"{len(planned)} cell{'s' if len(planned) != 1 else ''}"
    return f"{cells}, {len(stages)} stages: {', '.join(parts)}; {counted({'requests': requests})}"


def _print_cell(console: Console, cell: PlannedCell, plain: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(cell.name, markup=False, highlight=False, soft_wrap=True)
    if plain:
        for stage in cell.stages:
            console.print(f"  {_line(stage)}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=True, padding=(0, 2, 0, 0))
    for heading in ("  stage", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    table.add_column("why")
    for stage in cell.stages:
        todo = stage.state == "to do"
        numbers = (f"{stage.rows:,}", f"{stage.requests:,}") if todo else ("", "")
        table.add_row(f"  {stage.id}", stage.state, *numbers, Text(fit(safe(stage.reason), _WIDEST_REASON)))
    console.print(table)


def _line(stage: PlannedStage) -> str:
    numbers = counted({"rows": stage.rows, "requests": stage.requests})
    counts = f", {numbers}" if stage.state == "to do" else ""
    return f"{stage.id}: {stage.state} ({safe(stage.reason)}){counts}"
