"""The plan as a person reads it: a table, or plain lines, and the sum."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from charrun.pipeline.choice import Choice
from charrun.pipeline.plan import BETWEEN, PlannedCell, PlannedStage
from charrun.pipeline.run import JOBS
from charrun.report.columns import figures, fit, short
from charrun.report.cost import stored, whole_usd
from charrun.report.text import counted, duration, safe
from charrun.service.models import hub_name
from charrun.spec.prices import STORAGE_USD, Cost, cost_sum, dollars, picodollars, usd
from charrun.usage import Usage

if TYPE_CHECKING:
    from rich.console import Console

    from charrun.pipeline.foresight import Foresight

_MOST_CELLS = 12
_PRICED = ("low", "high", "usd", "basis")
_TOKENS = ("calls", "prompt", "cached", "sampled", "forward", "trained")
_TENTH_OF_A_MILLIDOLLAR = 10**8
_WIDEST_REASON = 120
"""Columns of a reason in the table, where it is wrapped; lines and JSON have all of it."""


@dataclass(frozen=True)
class Limit:
    """A budget against what it is for.

    Attributes:
        stage: The stage item that has it; empty for that of the whole run.
        usd: US dollars.
        spent: Picodollars that are spent of it already, or may be.
        cost: What is left to do costs.
    """

    stage: str
    usd: float
    spent: int
    cost: Cost

    @property
    def is_short(self) -> bool:
        """Whether the low end is above it."""
        return bool(self.cost.high) and self.spent + self.cost.low > picodollars(self.usd)

    @property
    def may_be_short(self) -> bool:
        """Whether the high end is above it."""
        return bool(self.cost.high) and self.spent + self.cost.high > picodollars(self.usd)

    @property
    def raised(self) -> str:
        """What sets it to what the high end needs."""
        needed = dollars(math.ceil((self.spent + self.cost.high) / _TENTH_OF_A_MILLIDOLLAR) * _TENTH_OF_A_MILLIDOLLAR)
        return f"--set budget.stages.{self.stage}={needed:.4f}" if self.stage else f"--budget {needed:.4f}"


@dataclass(frozen=True)
class Money:
    """What a run will cost, and what it may.

    Attributes:
        foresight: What it will ask for.
        limit: US dollars that it may cost in all; None for no limit.
        spent: Picodollars that it has cost already, or may have.
        caps: US dollars that single stage items may cost of that, in all cells together.
        stages_spent: Picodollars that stage items have cost already, or may have.
        held: Picodollars of what is spent that the run's requests without an end may have cost.
    """

    foresight: Foresight
    limit: float | None
    spent: int
    caps: Mapping[str, float] = field(default_factory=dict)
    stages_spent: Mapping[str, int] = field(default_factory=dict)
    held: int = 0

    def limits(self) -> list[Limit]:
        """The budgets, that of the whole run first; none where a price is not known."""
        cost = self.foresight.cost()
        if cost is None or self.limit is None:
            return []
        limits = [Limit("", self.limit, self.spent, cost)]
        for id, cap in self.caps.items():
            found = (
                each.cost(self.foresight.rates) for (_, stage), each in self.foresight.stages.items() if stage == id
            )
            limits.append(Limit(id, cap, self.stages_spent.get(id, 0), cost_sum(found) or Cost()))
        return limits

    def warnings(self) -> list[str]:
        """Prices that are not known, and budgets whose low end is above them, each as a sentence."""
        return [*_unpriced_lines(self), *(_short_line(limit) for limit in self.limits() if limit.is_short)]

    def known(self) -> Cost:
        """What of the cost is known: where only training has no price, all the rest."""
        total = Cost()
        for forecast in self.foresight.stages.values():
            low, high = (self._known_of(usages) for usages in (forecast.low, forecast.high))
            total += Cost(low.low, high.high)
        return total

    def _known_of(self, usages: Mapping[str, Usage]) -> Cost:
        total = Cost()
        for model, usage in usages.items():
            rates = self.foresight.rates.get(model)
            if rates is not None and rates.train is None:
                usage = replace(usage, forward_tokens=0, trained_tokens=0)
            total += (rates and rates.cost(usage)) or Cost()
        return total


def print_plan(
    console: Console,
    choice: Choice,
    planned: Sequence[PlannedCell],
    plain: bool,
    money: Money | None = None,
) -> None:
    """Each stage with state, reason, rows, requests and dollars; of a large matrix the first cells and the sum."""
    for cell in planned[:_MOST_CELLS]:
        _print_cell(console, cell, plain, None if money is None else money.caps)
    lines = []
    if len(planned) > _MOST_CELLS:
        lines.append(f"... and {len(planned) - _MOST_CELLS} more cells")
    lines.append(total(planned))
    if money is not None:
        lines += [*money_lines(money), *_basis_lines(planned, money)]
    elif choice.paid:
        budget = choice.spec.budget_usd
        limit = "" if budget is None else f" The budget of the spec is ${whole_usd(budget)}, which is never exceeded."
        lines.append(f"Every request is paid for.{limit}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def plan_document(planned: Sequence[PlannedCell], money: Money | None) -> dict[str, Any]:
    """What `charrun plan --json` prints."""
    cells = [
        {
            "name": cell.name,
            "stages": [_stage_document(stage, None if money is None else money.caps) for stage in cell.stages],
        }
        for cell in planned
    ]
    if money is None:
        return {"cells": cells}
    cost, known = money.foresight.cost(), money.known()
    return {
        "cells": cells,
        "usd": None if cost is None else [dollars(cost.low), dollars(cost.high)],
        "known_usd": [dollars(known.low), dollars(known.high)],
        "unpriced": [{"model": model, "unknown": what} for model, what in _unpriced(money).items()],
        "budget_usd": money.limit,
        "spent_usd": dollars(money.spent),
        "held_usd": dollars(money.held),
        "limits": [_limit_document(limit) for limit in money.limits()],
        "warnings": money.warnings(),
        "storage_bytes": money.foresight.storage,
        "seconds": [round(each) for each in money.foresight.seconds(JOBS)],
        "tokenizers_missing": sorted(money.foresight.unknown),
        "not_foreseen": [{"cell": c, "stage": s, "why": why} for (c, s), why in money.foresight.gaps.items()],
    }


def _stage_document(stage: PlannedStage, caps: Mapping[str, float] | None) -> dict[str, Any]:
    told = {**vars(stage), "low": _plain(stage.low), "high": _plain(stage.high), "changes": list(stage.changes)}
    del told["sources"]
    if caps is None:
        return {name: value for name, value in told.items() if name not in _PRICED}
    return told | {"cap_usd": caps.get(stage.id)}


def _limit_document(limit: Limit) -> dict[str, Any]:
    return {
        "stage": limit.stage or None,
        "budget_usd": limit.usd,
        "spent_usd": dollars(limit.spent),
        "usd": [dollars(limit.cost.low), dollars(limit.cost.high)],
        "low_end_fits": not limit.is_short,
        "high_end_fits": not limit.may_be_short,
    }


def _plain(usage: Mapping[str, Usage]) -> dict[str, dict[str, int]]:
    return {model: each.to_dict() for model, each in usage.items()}


def money_lines(money: Money) -> list[str]:
    """What a run will cost, against what it may."""
    foresight = money.foresight
    cost = foresight.cost()
    lines = _unpriced_lines(money)
    if cost is None:
        known = money.known()
        lines += [f"The rest will cost ${usd(known.low)} to ${usd(known.high)}."] if known.high else []
    else:
        told = f"It will cost ${usd(cost.low)} to ${usd(cost.high)}" if cost.high else "It will cost nothing"
        if foresight.gaps:
            told = f"It will cost ${usd(cost.low)} at least; what could not be foreseen is not in that"
        spent = f", beside ${usd(money.spent - money.held)} that it has cost already" if money.spent else ""
        spent += f" and ${usd(money.held)} held for requests without an end" if money.held else ""
        lines.append(f"{told}{spent}.")
    shortest, longest = foresight.seconds(JOBS)
    if longest:
        lines.append(f"It will take {duration(shortest)} to {duration(longest)} at the service.")
    if foresight.trained:
        size = foresight.storage
        told = f"{stored(size)}, as earlier ones" if size else "how large they get is not known before the first"
        lines.append(
            f"Final checkpoints of {', '.join(map(safe, foresight.trained))} stay there until you delete them (tinker "
            f"checkpoint delete PATH), at ${STORAGE_USD:.2f} a GB and month: {told}."
        )
    if money.limit is not None:
        caps = ", ".join(f"{safe(id)} at most ${whole_usd(cap)}" for id, cap in money.caps.items())
        of_that = f"; of that {caps}" if caps else ""
        over = money.spent - picodollars(money.limit)
        kept = (
            f"it is over by ${usd(over)} already: nothing more is asked for" if over > 0 else "which it never exceeds"
        )
        lines.append(f"Its budget is ${whole_usd(money.limit)}, {kept}{of_that}.")
        lines += [_short_line(limit) for limit in money.limits() if limit.may_be_short]
    elif cost is None or cost.high:
        lines.append("It has no budget: `budget: {usd: ...}` in the spec or --budget sets one.")
    return lines


def _unpriced(money: Money) -> dict[str, str]:
    """Models of whose tokens some have no known price, and which: `all`, or `train`."""
    rates = money.foresight.rates
    return {model: "train" if rates.get(model) else "all" for model in money.foresight.unpriced()}


def _unpriced_lines(money: Money) -> list[str]:
    lines = []
    for what, told, key in (("all", "", ""), ("train", " to train", ", as `train`")):
        if names := ", ".join(safe(model) for model, missing in _unpriced(money).items() if missing == what):
            lines.append(f"It is not known what {names} costs{told}: say it under `prices` in the spec{key}.")
    return lines


def _short_line(limit: Limit) -> str:
    """What a budget has no room for, and what has."""
    whose = f"The cap of {safe(limit.stage)}, ${whole_usd(limit.usd)}," if limit.stage else "The budget"
    cost = f"${usd(limit.cost.low)} to ${usd(limit.cost.high)}"
    spent = f" and ${usd(limit.spent)} spent already" if limit.spent else ""
    if limit.is_short:
        told = f"{whose} is below the low end of {cost}{spent}: a run stops with exit code 6 before it begins, unless "
        return f"{told}--partial. The high end needs {limit.raised}."
    return f"{whose} is below the high end of {cost}{spent}: a run may stop on its way. That end needs {limit.raised}."


def _basis_lines(planned: Sequence[PlannedCell], money: Money) -> list[str]:
    """What all that is known from."""
    foresight = money.foresight
    bases: dict[str, dict[str, None]] = {}
    for stage in (stage for cell in planned for stage in cell.stages):
        for basis in stage.basis.split(BETWEEN) if stage.basis else ():
            bases.setdefault(basis, {})[stage.id] = None
    lines = [f"  {', '.join(map(safe, stages))}: {safe(basis)}" for basis, stages in bases.items()]
    if foresight.unknown:
        names = ", ".join(sorted(map(safe, foresight.unknown)))
        lines.append(
            f"  The tokenizer of {names} is not on this machine: charrun's own counts more tokens. To fetch it:"
        )
        for name in sorted({hub_name(model) for model in foresight.unknown}):
            lines.append(
                f"  python -c \"from transformers import AutoTokenizer as T; T.from_pretrained('{safe(name)}')\""
            )
    whys = dict.fromkeys((stage, why) for (_, stage), why in foresight.gaps.items())
    lines += [f"  {safe(stage)} could not be foreseen: {safe(why)}" for stage, why in whys]
    return lines


def total(planned: Sequence[PlannedCell]) -> str:
    """Cells, stages and requests in one line."""
    stages = [stage for cell in planned for stage in cell.stages]
    count = {state: sum(stage.state == state for stage in stages) for state in ("to do", "shared", "done", "missing")}
    parts = [f"{number} {state}" for state, number in count.items() if number]
    calls = [sum(usage.requests for usage in stage.high.values()) or stage.requests for stage in stages]
    requests = sum(calls)
    cells = f"{len(planned)} cell{'s' if len(planned) != 1 else ''}"
    return f"{cells}, {len(stages)} stages: {', '.join(parts)}; {counted({'requests': requests})}"


def _print_cell(console: Console, cell: PlannedCell, plain: bool, caps: Mapping[str, float] | None) -> None:
    from rich.table import Table
    from rich.text import Text

    priced, capped = caps is not None, any(stage.id in (caps or {}) for stage in cell.stages)
    console.print(cell.name, markup=False, highlight=False, soft_wrap=True)
    if plain:
        for stage in cell.stages:
            console.print(f"  {_line(stage, caps)}", markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, show_header=True, padding=(0, 2, 0, 0))
    for heading in ("  stage", "state"):
        table.add_column(heading, no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("requests", justify="right", no_wrap=True)
    if priced:
        table.add_column("dollars", justify="right", no_wrap=True)
    if capped:
        table.add_column("cap", justify="right", no_wrap=True)
    table.add_column("why")
    for stage in cell.stages:
        todo = stage.state == "to do"
        numbers = [f"{stage.rows:,}", f"{stage.requests:,}"] if todo else ["", ""]
        if priced:
            numbers.append(_dollars(stage))
        if capped:
            numbers.append(whole_usd(caps[stage.id]) if caps and stage.id in caps else "")
        table.add_row(f"  {stage.id}", stage.state, *numbers, Text(fit(safe(stage.reason), _WIDEST_REASON)))
    console.print(table)
    for line in _token_lines(cell, console.width):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _token_lines(cell: PlannedCell, width: int) -> list[str]:
    """A table of answers and scores that are asked for and of tokens, the least and the most; of what is paid for."""
    rows = [(stage.id, *_tokens(stage)) for stage in cell.stages if stage.high]
    if not rows:
        return []
    used = [0, *(n for n in range(1, len(_TOKENS) + 1) if any(row[n] for row in rows))]
    shown = [[row[n] for n in used] for row in [("tokens", *_TOKENS), *rows]]
    return [f"  {line}" for line in figures(shown, width - 2)]


def _tokens(stage: PlannedStage) -> tuple[str, ...]:
    """Calls, prompt tokens, those of them that are cached, sampled, forward and trained tokens."""
    ends = []
    for usages in (stage.low, stage.high):
        total = Usage()
        for usage in usages.values():
            total.add(usage)
        counts = (total.input_tokens, total.cached_tokens, total.sampled_tokens)
        ends.append((total.requests, *counts, total.forward_tokens, total.trained_tokens))
    (fewest, *low), (most, *high) = ends
    calls = f"{fewest:,}" if fewest == most else f"{fewest:,}-{most:,}"
    return calls if most else "", *map(_span, low, high)


def _span(one: int, other: int) -> str:
    low, high = _brief(min(one, other)), _brief(max(one, other))
    return "" if high == "0" else low if low == high else f"{low}-{high}"


def _brief(count: int) -> str:
    """A count in at most four characters: `812`, `1.3k`, `45k`, `1.2M`."""
    return f"{count / 1000:.1f}k" if 1000 <= count < 9950 else short(count)


def _dollars(stage: PlannedStage) -> str:
    if stage.usd is None:
        return "?"
    low, high = stage.usd
    return f"{low:,.2f}-{high:,.2f}" if high >= 1 else f"{low:,.4f}-{high:,.4f}" if high else ""


def _line(stage: PlannedStage, caps: Mapping[str, float] | None) -> str:
    numbers = counted({"rows": stage.rows, "requests": stage.requests})
    counts = f", {numbers}" if stage.state == "to do" else ""
    money = f", ${told}" if caps is not None and (told := _dollars(stage)) else ""
    cap = f" of at most ${whole_usd(caps[stage.id])}" if money and caps and stage.id in caps else ""
    names = ("prompt tokens", "of them cached", "sampled", "forward", "trained")
    tokens = "".join(f", {count} {name}" for count, name in zip(_tokens(stage)[1:], names, strict=True) if count)
    return f"{stage.id}: {stage.state} ({safe(stage.reason)}){counts}{tokens}{money}{cap}"
