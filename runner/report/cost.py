"""What a run has used and what that costs, from its ledger: tables, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.pipeline.storage import Storage
from charrun.report.text import safe
from charrun.spec.prices import FREE, STORAGE_USD, Cost, Rates, cost_of, dollars, in_dollars, picodollars, usd
from charrun.store.ledger import Place, Totals
from charrun.usage import Usage

_HEADING = ("requests", "prompt", "cached", "sampled", "forward", "trained", "dollars")
_PROBES = "(probes)"
_DOLLAR = 1.0
_GIGABYTE = 10**9
_CENTS = 2
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


def whole_usd(limit: float) -> str:
    """A sum that a person has chosen: to the cent, small ones as `usd`."""
    return f"{limit:,.2f}" if limit >= _DOLLAR else in_dollars(limit)


def brief_usd(value: float) -> str:
    """A sum beside others in a line that changes: to the cent, of less than that two digits."""
    return in_dollars(value, _CENTS)


def stored(size: int) -> str:
    """Bytes at the service with what they cost, such as `2.31 GB, $0.2310 a month`."""
    return f"{size / _GIGABYTE:.3g} GB, ${in_dollars(size / _GIGABYTE * STORAGE_USD)} a month"


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


def cost_lines(
    totals: Totals,
    rates: Mapping[str, Rates | None],
    limit: float | None,
    probes: Totals | None = None,
    storage: Storage | None = None,
) -> list[str]:
    """What is to be said beside the tables.

    Args:
        totals: The run's ledger.
        rates: What tokens cost.
        limit: Its budget in US dollars.
        probes: What those for the run have paid.
        storage: Its final checkpoints at the service.
    """
    found = total(totals, rates)
    if _is_free(rates):
        return ["Nothing is paid for on this engine."]
    lines = open_lines(totals, rates)
    if found.cost.low != found.cost.high:
        lines.append("From and to: forward passes of training are billed as prefill at least, as training at most.")
    lines += probe_lines(probes, rates)
    if storage and storage.known + storage.unknown:
        told = stored(storage.size) if storage.known else "the service does not say how large they are"
        if storage.known and storage.unknown:
            told = f"{told} for {storage.known} of {storage.known + storage.unknown}, the others' size is not known"
        lines.append(f"Its final checkpoints stay there until you delete them: {told}.")
    if limit is not None:
        lines.append(f"Budget: ${whole_usd(limit)}; {left_of(limit, totals, rates, probes)}.")
    if found.unpriced:
        lines.append(f"No price is known of {', '.join(sorted(map(safe, found.unpriced)))}: say it under `prices`.")
    return lines


def open_lines(totals: Totals, rates: Mapping[str, Rates | None]) -> list[str]:
    """What requests without an end hold of a budget, in a sentence; nothing where there are none."""
    if not totals.open:
        return []
    many = f"{len(totals.open):,} requests have" if len(totals.open) > 1 else "1 request has"
    most = usd(total(totals, rates).doubt_cost.high)
    return [
        f"{many} no end: in flight now or at a kill, or given up after an error. At most ${most} more, which counts "
        f"against the budget until `charrun cost --reconcile --settle` enters what the engine has billed."
    ]


def left_of(limit: float, totals: Totals, rates: Mapping[str, Rates | None], probes: Totals | None = None) -> str:
    """What is left of a budget, as the ledgers of a run and its probes are now; arguments as of `cost_lines`."""
    paid = (total(totals, rates), total(probes or Totals(), rates))
    left = picodollars(limit) - sum(each.cost.high + each.doubt_cost.high for each in paid)
    return f"${usd(left)} are left" if left >= 0 else f"nothing is left, it is over by ${usd(-left)}"


def cost_line(totals: Totals, rates: Mapping[str, Rates | None], probes: Totals | None = None) -> str:
    """What a run has cost and may have, and probes for it, in one line; empty where it has paid for nothing."""
    found = total(totals, rates)
    if not found.cost.high and not found.doubt_cost.high:
        return ""
    low, high = usd(found.cost.low), usd(found.cost.high)
    told = f"${low}" if low == high else f"${low} to ${high}"
    if totals.open:
        many = f"{len(totals.open):,} requests" if len(totals.open) > 1 else "1 request"
        told += f", and up to ${usd(found.doubt_cost.high)} of {many} without an end"
    if paid := total(probes or Totals(), rates).cost.high:
        told += f", beside ${usd(paid)} of probes"
    return told + (", and what has no known price" if found.unpriced else "")


def probe_lines(probes: Totals | None, rates: Mapping[str, Rates | None]) -> list[str]:
    """What probes for a run have paid, in a sentence; nothing where there were none."""
    if probes is None or not (probes.used or probes.open):
        return []
    found = total(probes, rates)
    doubt = f", and at most ${usd(found.doubt_cost.high)} for what has no end" if probes.open else ""
    paid = "what nobody knows" if found.unpriced else f"${usd(found.cost.high)}"
    what = f"{found.usage.requests:,} requests, {found.usage.tokens:,} tokens"
    return [f"Probes have paid {paid} before{doubt}, which counts against the budget: {what}, not in the sums above."]


def cost_records(totals: Totals, rates: Mapping[str, Rates | None]) -> list[dict[str, Any]]:
    """Exact counts by cell, stage and model, with their dollars."""
    found = sums(totals, rates, lambda place: place)
    return [_record(place, each) for place, each in found.items()]


def probe_records(probes: Totals, rates: Mapping[str, Rates | None]) -> list[dict[str, Any]]:
    """What probes for a run have paid, as records of a stage `(probes)` that no cell has, by model."""
    found = sums(probes, rates, lambda place: Place("", _PROBES, place.model))
    return [_record(place, each) for place, each in found.items()]


def cost_document(
    run: str,
    totals: Totals,
    rates: Mapping[str, Rates | None],
    limit: float | None,
    probes: Totals | None = None,
    storage: Storage | None = None,
) -> dict[str, Any]:
    """What `charrun cost --json` prints; arguments as of `cost_lines`."""
    found, probed = total(totals, rates), total(probes or Totals(), rates)
    return {
        "run": run,
        "budget_usd": limit,
        "total": {**found.usage.to_dict(), **_plain(found), "in_doubt": found.doubt.counted()},
        "requests_without_end": len(totals.open),
        "storage_bytes": storage.size if storage and not storage.unknown else None,
        "rows": cost_records(totals, rates),
        "probes": {**probed.usage.to_dict(), **_plain(probed), "in_doubt": probed.doubt.counted()},
    }


def cost_csv(records: Iterable[Mapping[str, Any]]) -> str:
    """The records as CSV, with a heading."""
    out = io.StringIO()
    rows = [{**record, "in_doubt": Usage.of(record["in_doubt"]).tokens} for record in records]
    names = list(rows[0]) if rows else ["cell", "stage", "model", *Usage().to_dict(), *_plain(Sum()), "in_doubt"]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _record(place: Place, found: Sum) -> dict[str, Any]:
    told = {"cell": place.cell, "stage": place.stage, "model": place.model, **found.usage.to_dict(), **_plain(found)}
    return {**told, "in_doubt": found.doubt.counted()}


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
