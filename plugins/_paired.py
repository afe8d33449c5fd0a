"""Two models on the same questions: McNemar's exact test, an interval for the difference, and rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from charrun.plugins._statistics import Z95


def mcnemar_exact(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: of the questions that differ, half should be gained.

    Args:
        gained: Questions that the second model alone has right.
        lost: Questions that the first model alone has right.
    """
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / 2**n)


def paired_difference(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a difference of two paired rates: Wald's after half an observation more in each cell.

    Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions".
    """
    more, less, of = gained + 0.5, lost + 0.5, n + 2
    value = (more - less) / of
    half = z * math.sqrt(more + less - (more - less) ** 2 / of) / of
    return max(-1.0, value - half), min(1.0, value + half)


def ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=lambda i: values[i])
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for i in order[start : end + 1]:
            found[i] = (start + end) / 2 + 1
        start = end + 1
    return found


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 where one side is all equal."""
    one, other = ranks(a), ranks(b)
    centre = (len(a) + 1) / 2
    top = sum((x - centre) * (y - centre) for x, y in zip(one, other, strict=True))
    bottom = math.sqrt(sum((x - centre) ** 2 for x in one) * sum((y - centre) ** 2 for y in other))
    return top / bottom if bottom else 0.0


def spearman_interval(correlation: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Interval of a rank correlation over n things, by Fisher's z with variance (1 + r^2 / 2) / (n - 3).

    Bonett and Wright (2000), "Sample size requirements for estimating Pearson, Kendall and Spearman correlations".
    """
    if n < 4 or abs(correlation) >= 1:
        return (correlation, correlation) if n >= 4 else (-1.0, 1.0)
    half = z * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return math.tanh(math.atanh(correlation) - half), math.tanh(math.atanh(correlation) + half)
