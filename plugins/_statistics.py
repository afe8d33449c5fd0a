"""The statistics of the evaluation: AUC, a threshold, and an interval for a rate."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

Z95 = 1.959963984540054


def auc(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """Probability that a positive scores above a negative, ties counted half (Mann-Whitney U / n m)."""
    ordered = sorted(negatives)
    wins = sum((bisect_left(ordered, p) + bisect_right(ordered, p)) / 2 for p in positives)
    return wins / (len(positives) * len(negatives))


def auc_interval(area: float, positives: int, negatives: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of an AUC, 95% by default (Newcombe, 2006, method 5, on Hanley and McNeil's variance).

    DeLong's and the bootstrap's have no width where all positives score above all negatives; this one does.
    """
    mean = (positives + negatives) / 2 - 1

    def far(theta: float) -> bool:
        spread = 1 + mean * (1 - theta) / (2 - theta) + mean * theta / (1 + theta)
        return abs(theta - area) > z * math.sqrt(theta * (1 - theta) * spread / (positives * negatives))

    def edge(outside: float) -> float:
        inside = area
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if far(middle) else (middle, outside)
        return inside

    return edge(0.0), edge(1.0)


def best_threshold(positives: Sequence[float], negatives: Sequence[float]) -> float:
    """The cut with the largest true-positive minus false-positive rate (Youden's J), half-way between scores.

    Of several such cuts the middle one; a score is positive when it is above the cut.
    """
    scores = sorted({*positives, *negatives})
    cuts = [(low + high) / 2 for low, high in pairwise(scores)] or [scores[0]]

    def youden(cut: float) -> float:
        hit = sum(p > cut for p in positives) / len(positives)
        return round(hit - sum(n > cut for n in negatives) / len(negatives), 12)

    best = max(map(youden, cuts))
    top = [cut for cut in cuts if youden(cut) == best]
    return top[len(top) // 2]


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson, 1927), 95% by default."""
    if n == 0:
        return 0.0, 1.0
    rate, square = successes / n, z * z
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)
