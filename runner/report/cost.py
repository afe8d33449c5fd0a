"""What a run has used and what that costs, from its ledger: tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.report.text import safe
from charrun.spec.prices import FREE, Cost, Rates, cost_of, dollars
from charrun.store.ledger import Place, Totals
from charrun.usage import Usage

_HEADING = ("requests", "prompt", "cached", "sampled", "forward", "trained", "dollars")
_DOLLAR = 1.0
_SECTIONS: dict[str, Callable[[Place], str]] = {
    "stage": lambda place: place.stage,
    "cell": lambda place: place.cell,
    "model": lambda place: place.model,
}


@dataclass
class Sum:
    """What some of the ledger's places add up to.

    Attributes:
        usage: Of ended requests.
        doubt: The most that requests without an end can have used.
        cost: Of the ended ones.
        doubt_cost: Of the others.
        unpriced: Models among them whose price is not known.
    """

    usage: Usage = field(default_factory=Usage)
    doubt: Usage = field(default_factory=Usage)
    cost: Cost = field(default_factory=Cost)
    doubt_cost: Cost = field(default_factory=Cost)
    unpriced: set[str] = field(default_factory=set)

    @property
    def dollars(self) -> str:
        """What it costs: one sum, or the least and the most."""
        if self.unpriced and not self.cost.high:
            return "?"
        low, high = usd(self.cost.low), usd(self.cost.high)
        return (low if low == high else f"{low}-{high}") + ("+?" if self.unpriced else "")


def usd(pico: int) -> str:
    """Dollars to a hundredth of a cent."""
    return f"{dollars(pico):,.4f}"


def whole_usd(limit: float) -> str:
    """A sum that a person has chosen: to the cent, small ones to a hundredth of it."""
    return f"{limit:,.2f}" if limit >= _DOLLAR else f"{limit:,.4f}"


def sums(totals: Totals, rates: Mapping[str, Rates | None], by: Callable[[Place], Any]) -> dict[Any, Sum]:
    """The ledger's places by a part of them, in the order in which they were first asked for."""
    found: dict[Any, Sum] = {}
    for places, is_doubt in ((totals.used, False), (totals.in_doubt(), True)):
        for place, usage in places.items():
            sum_ = found.setdefault(by(place), Sum())
            (sum_.doubt if is_doubt else sum_.usage).add(usage)
            cost = cost_of(rates, place.model, usage)
            if cost is None:
                sum_.unpriced.add(place.model)
            elif is_doubt:
                sum_.doubt_cost += cost
            else:
                sum_.cost += cost
    return found


def total(totals: Totals, rates: Mapping[str, Rates | None]) -> Sum:
    """All places together."""
    return sums(totals, rates, lambda _: None).get(None, Sum())


def cost_rows(totals: Totals, rates: Mapping[str, Rates | None], section: str) -> list[tuple[str, ...]]:
    """A table by stage, cell or model, and its sum."""
    found = sums(totals, rates, _SECTIONS[section])
    rows = [(section, *_HEADING), *((safe(str(name)), *_figures(each)) for name, each in found.items())]
    if len(found) > 1:
        rows.append(("all", *_figures(total(totals, rates))))
    return [row[:-1] for row in rows] if _is_free(rates) else rows


def cost_lines(totals: Totals, rates: Mapping[str, Rates | None], limit: float | None) -> list[str]:
    """What is to be said beside the tables."""
    found = total(totals, rates)
    if _is_free(rates):
        return ["Nothing is paid for on this engine."]
    lines = []
    if totals.open:
        many = f"{len(totals.open):,} requests have" if len(totals.open) > 1 else "1 request has"
        lines.append(
            f"{many} no end: in flight now or at a kill, or given up after an error. At most "
            f"${usd(found.doubt_cost.high)} more, which counts against the budget."
        )
    if found.cost.low != found.cost.high:
        lines.append("From and to: forward passes of training are billed as prefill at least, as training at most.")
    if limit is not None:
        left = limit - dollars(found.cost.high + found.doubt_cost.high)
        told = f"${left:,.4f} are left" if left >= 0 else f"nothing is left, it is over by ${-left:,.4f}"
        lines.append(f"Budget: ${whole_usd(limit)}; {told}.")
    if found.unpriced:
        lines.append(f"No price is known of {', '.join(sorted(map(safe, found.unpriced)))}: say it under `prices`.")
    return lines


def cost_records(totals: Totals, rates: Mapping[str, Rates | None]) -> list[dict[str, Any]]:
    """Exact counts by cell, stage and model, with their dollars."""
    found = sums(totals, rates, lambda place: place)
    return [
        {
            "cell": place.cell,
            "stage": place.stage,
            "model": place.model,
            **each.usage.to_dict(),
            **_plain(each),
            "in_doubt": each.doubt.counted(),
        }
        for place, each in found.items()
    ]


def cost_document(run: str, totals: Totals, rates: Mapping[str, Rates | None], limit: float | None) -> dict[str, Any]:
    """What `charrun cost --json` prints."""
    found = total(totals, rates)
    return {
        "run": run,
        "budget_usd": limit,
        "total": {**found.usage.to_dict(), **_plain(found), "in_doubt": found.doubt.counted()},
        "requests_without_end": len(totals.open),
        "rows": cost_records(totals, rates),
    }


def cost_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """The records as CSV, with a heading."""
    out = io.StringIO()
    rows = [{**record, "in_doubt": Usage.of(record["in_doubt"]).tokens} for record in records]
    names = list(rows[0]) if rows else ["cell", "stage", "model", *Usage().to_dict()]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _is_free(rates: Mapping[str, Rates | None]) -> bool:
    return bool(rates) and all(each == FREE for each in rates.values())


def _figures(found: Sum) -> tuple[str, ...]:
    usage = found.usage
    counts = (usage.requests, usage.prefill_tokens, usage.cached_tokens, usage.sampled_tokens)
    return *(f"{count:,}" for count in (*counts, usage.forward_tokens, usage.trained_tokens)), found.dollars


def _plain(found: Sum) -> dict[str, Any]:
    known = not found.unpriced
    return {
        "usd_low": dollars(found.cost.low) if known else None,
        "usd_high": dollars(found.cost.high) if known else None,
        "usd_in_doubt": dollars(found.doubt_cost.high) if known else None,
    }
