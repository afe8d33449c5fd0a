"""How sure one can be of a difference between two rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from charrun.statistics import auc_interval

METHOD = "Newcombe's hybrid score interval (1998, method 10) for independent samples"


@dataclass(frozen=True)
class Share:
    """A rate and its 95% interval.

    Attributes:
        rate: Between 0 and 1.
        low: Lower end.
        high: Upper end.
        hits: How many.
        n: Of how many.
    """

    rate: float
    low: float
    high: float
    hits: int
    n: int


def auc_text(area: float, n: int | None) -> str:
    """A scorer's AUC with its 95% interval, for n answers in character against as many plain ones."""
    if not n:
        return f"scorer's AUC {area:.3f}"
    low, high = auc_interval(area, n, n)
    return f"scorer's AUC {area:.3f} (n={n} of each), 95% interval {low:.3f} to {high:.3f}"


@dataclass(frozen=True)
class Difference:
    """A difference of two rates and its 95% interval, all between -1 and 1."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`b_higher`, `a_higher`, or `no_difference` where the interval holds 0."""
        return "b_higher" if self.low > 0 else "a_higher" if self.high < 0 else "no_difference"


def difference(a: Share, b: Share) -> Difference:
    """b - a with Newcombe's hybrid score interval (Newcombe 1998, method 10) for independent samples.

    The two rates' own Wilson intervals are squared and added; nothing is assumed to be normal, and a rate of 0 or 1
    keeps a sensible interval. Of the same prompts, `charrun.statistics.paired_difference` has the interval.
    """
    value = b.rate - a.rate
    down = math.hypot(b.rate - b.low, a.high - a.rate)
    up = math.hypot(b.high - b.rate, a.rate - a.low)
    return Difference(value, max(-1.0, value - down), min(1.0, value + up))
