"""The plan as a person reads it: a table, or plain lines, and the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrun.pipeline.choice import Choice
from charrun.pipeline.plan import PlannedCell, PlannedStage
from charrun.pipeline.run import JOBS
from charrun.report.columns import fit
from charrun.report.cost import usd, whole_usd
from charrun.report.text import counted, duration, safe
from charrun.spec.prices import STORAGE_USD, dollars
from charrun.usage import Usage

if TYPE_CHECKING:
    from rich.console import Console

    from charrun.pipeline.foresight import Foresight

_MOST_CELLS = 12
_PRICED = ("low", "high", "usd", "basis")
_WIDEST_REASON = 120
"""Columns of a reason in the table, where it is wrapped; lines and JSON have all of it."""


@dataclass(frozen=True)
class Money:
    """What a run will cost, and what it may.

    Attributes:
        foresight: What it will ask for.
        limit: US dollars that it may cost in all; None for no limit.
        spent: Picodollars that it has cost already, or may have.
    """

    foresight: Foresight
    limit: float | None
    spent: int


def print_plan(
    console: Console,
    choice: Choice,
    planned: Sequence[PlannedCell],
    plain: bool,
    money: Money | None = None,
) -> None:
    """Each stage with state, reason, rows, requests and dollars; of a large matrix the first cells and the sum."""
    for cell in planned[:_MOST_CELLS]:
        _print_cell(console, cell, plain, money is not None)
    lines = []
    if len(planned) > _MOST_CELLS:
        lines.append(f"... and {len(planned) - _MOST_CELLS} more cells")
    lines.append(total(planned))
    if money is not None:
        lines += money_lines(money)
    elif choice.paid:
        budget = choice.spec.budget_usd
        limit = "" if budget is None else f" The budget of the spec is ${whole_usd(budget)}, which is never exceeded."
        lines.append(f"Every request is paid for.{limit}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def plan_document(planned: Sequence[PlannedCell], money: Money | None) -> dict[str, Any]:
    """What `charrun plan --json` prints."""
    cells = [
        {
            "name": cell.name,
            "stages": [_stage_document(stage, money is not None) for stage in cell.stages],
        }
        for cell in planned
    ]
    if money is None:
        return {"cells": cells}
    cost = money.foresight.cost()
    return {
        "cells": cells,
        "usd": None if cost is None else [dollars(cost.low), dollars(cost.high)],
        "budget_usd": money.limit,
        "spent_usd": dollars(money.spent),
        "seconds": [round(each) for each in money.foresight.seconds(JOBS)],
        "tokenizers_missing": sorted(money.foresight.unknown),
        "not_foreseen": [{"cell": c, "stage": s, "why": why} for (c, s), why in money.foresight.gaps.items()],
    }


def _stage_document(stage: PlannedStage, priced: bool) -> dict[str, Any]:
    told = {**vars(stage), "low": _plain(stage.low), "high": _plain(stage.high), "changes": list(stage.changes)}
    return told if priced else {name: value for name, value in told.items() if name not in _PRICED}


def _plain(usage: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
    return {model: each.to_dict() for model, each in usage.items()}


def money_lines(money: Money) -> list[str]:
    """What a run will cost, against what it may, and what that is known from."""
    foresight = money.foresight
    cost = foresight.cost()
    lines = []
    if cost is None:
        names = ", ".join(map(safe, foresight.unpriced()))
        lines.append(f"It is not known what {names} costs: say it under `prices` in the spec.")
    else:
        told = f"It will cost ${usd(cost.low)} to ${usd(cost.high)}" if cost.high else "It will cost nothing"
        if foresight.gaps:
            told = f"It will cost ${usd(cost.low)} at least; what could not be foreseen is not in that"
        spent = f", beside ${usd(money.spent)} that it has cost already" if money.spent else ""
        lines.append(f"{told}{spent}.")
    shortest, longest = foresight.seconds(JOBS)
    if longest:
        lines.append(f"It will take {duration(shortest)} to {duration(longest)} at the service.")
    if foresight.trained:
        lines.append(
            f"Final checkpoints of {', '.join(map(safe, foresight.trained))} stay there until you delete them, at "
            f"${STORAGE_USD:.2f} a GB and month: tinker checkpoint delete PATH."
        )
    if money.limit is not None:
        lines.append(f"Its budget is ${whole_usd(money.limit)}, which it never exceeds.")
    elif cost is None or cost.high:
        lines.append("It has no budget: `budget: {usd: ...}` in the spec or --budget sets one.")
    bases: dict[str, list[str]] = {}
    for (_, stage), forecast in foresight.stages.items():
        for basis in forecast.bases:
            if stage not in bases.setdefault(basis, []):
                bases[basis].append(stage)
    lines += [f"  {', '.join(map(safe, stages))}: {basis}" for basis, stages in bases.items()]
    if foresight.unknown:
        names = ", ".join(sorted(map(safe, foresight.unknown)))
        lines.append(f"  The tokenizer of {names} is not on this machine: charrun's own counts more tokens.")
    whys = dict.fromkeys((stage, why) for (_, stage), why in foresight.gaps.items())
    lines += [f"  {safe(stage)} could not be foreseen: {safe(why)}" for stage, why in whys]
    return lines


def total(planned: Sequence[PlannedCell]) -> str:
    """Cells, stages and requests in one line."""
    stages = [stage for cell in planned for stage in cell.stages]
    count = {state: sum(stage.state == state for stage in stages) for state in ("to do", "shared", "done", "missing")}
    parts = [f"{number} {state}" for state, number in count.items() if number]
    requests = sum(stage.requests for stage in stages)
    cells = f"{len(planned)} cell{'s' if len(planned) != 1 else ''}"
    return f"{cells}, {len(stages)} stages: {', '.join(parts)}; {counted({'requests': requests})}"


def _print_cell(console: Console, cell: PlannedCell, plain: bool, priced: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(cell.name, markup=False, highlight=False, soft_wrap=True)
    if plain:
        for stage in cell.stages:
            console.print(f"  {_line(stage, priced)}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=True, padding=(0, 2, 0, 0))
    for heading in ("  stage", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    if priced:
        table.add_column("dollars", justify="right", no_wrap=True)
    table.add_column("why")
    for stage in cell.stages:
        todo = stage.state == "to do"
        numbers = [f"{stage.rows:,}", f"{stage.requests:,}"] if todo else ["", ""]
        if priced:
            numbers.append(_dollars(stage))
        table.add_row(f"  {stage.id}", stage.state, *numbers, Text(fit(safe(stage.reason), _WIDEST_REASON)))
    console.print(table)


def _dollars(stage: PlannedStage) -> str:
    if stage.usd is None:
        return "?"
    low, high = stage.usd
    return f"{low:,.2f}-{high:,.2f}" if high >= 1 else f"{low:,.4f}-{high:,.4f}" if high else ""


def _line(stage: PlannedStage, priced: bool) -> str:
    numbers = counted({"rows": stage.rows, "requests": stage.requests})
    counts = f", {numbers}" if stage.state == "to do" else ""
    money = f", ${told}" if priced and (told := _dollars(stage)) else ""
    return f"{stage.id}: {stage.state} ({safe(stage.reason)}){counts}{money}"
