"""Spearman's rank correlation and how sure one can be of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from charrun.plugins._statistics import Z95


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
