"""The tables of two runs beside each other, rate by rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from charrun.report.compare_data import Pair
from charrun.report.intervals import Difference, Share, difference
from charrun.report.measurements import Labels, Measurement, measurements_of


@dataclass(frozen=True)
class RatePair:
    """A rate in A and in B; None where a side has none."""

    labels: Labels
    a: Share | None
    b: Share | None

    @property
    def difference(self) -> Difference | None:
        """B - A, where both are there."""
        return difference(self.a, self.b) if self.a and self.b else None


@dataclass(frozen=True)
class TablePair:
    """A table of A and the one of the same name of B.

    Attributes:
        name: What it is called; where a side has that name twice, the stage item that published it.
        title: What was measured.
        heading: Names of the labels.
        rates: Rates side by side.
        notes: What stands in the way of comparing the two.
    """

    name: str
    title: str
    heading: Labels
    rates: tuple[RatePair, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "labels": list(self.heading),
            "rates": [_rate(each) for each in self.rates],
            "notes": list(self.notes),
        }


def tables_of(pair: Pair) -> list[TablePair]:
    """The tables of two cells by name, in A's order, then what B alone has."""
    a, b = _named(pair)
    found = []
    for name in dict.fromkeys([*a, *b]):
        left, right = a.get(name), b.get(name)
        some = left or right
        assert some is not None, "a name comes from one of them"
        rates_a, rates_b = left.rates if left else {}, right.rates if right else {}
        rates = [RatePair(each, rates_a.get(each), rates_b.get(each)) for each in dict.fromkeys([*rates_a, *rates_b])]
        found.append(TablePair(name, some.title, some.heading, tuple(rates), tuple(_notes(left, right))))
    return found


def _named(pair: Pair) -> list[dict[str, Measurement]]:
    """The tables of both sides by their own names, or by the items that published them where a side has one twice."""
    sides = [list(measurements_of(cell)) for cell in (pair.a, pair.b)]
    own = [{found.name: found for _, found in side} for side in sides]
    if all(len(side) == len(names) for side, names in zip(sides, own, strict=True)):
        return own
    return [dict(side) for side in sides]


def _notes(a: Measurement | None, b: Measurement | None) -> Iterator[str]:
    if a is None or b is None:
        yield f"{'A' if a is None else 'B'} has not measured it"
        return
    yield from (f"{side}'s scorer cannot tell the character" for side, each in (("A", a), ("B", b)) if not each.tells)
    if a.scored_as != b.scored_as:
        yield f"A is scored as {a.scored_as} and B as {b.scored_as}"
    if a.threshold != b.threshold:
        yield "each run's threshold is its own"


def _rate(pair: RatePair) -> dict[str, Any]:
    change = pair.difference
    return {
        "labels": list(pair.labels),
        "a": asdict(pair.a) if pair.a else None,
        "b": asdict(pair.b) if pair.b else None,
        "difference": asdict(change) if change else None,
    }
