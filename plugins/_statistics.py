"""The statistics of the evaluations: AUC, a threshold, intervals for rates and for differences of paired rates."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence
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


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson, 1927), 95% by default."""
    if n == 0:
        return 0.0, 1.0
    rate, square = successes / n, z * z
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_n(hits: Sequence[bool], clusters: Sequence[Hashable]) -> float:
    """How many independent answers some answers are worth, where several belong to one question.

    n / design effect (Kish, 1965), the variance of the rate over whole questions against that of single answers; never
    more than n, and as many as there are questions where all answers are alike and nothing tells.
    """
    n, rate = len(hits), sum(hits) / len(hits)
    residuals: dict[Hashable, float] = {}
    for hit, cluster in zip(hits, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + hit - rate
    if len(residuals) < 2 or rate in (0.0, 1.0):
        return float(len(residuals))
    between = sum(each * each for each in residuals.values()) * len(residuals) / (len(residuals) - 1)
    return float(n / max(1.0, between / (n * rate * (1 - rate))))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: of the pairs that differ, half should be gained.

    Args:
        gained: Pairs in which the second side alone has it.
        lost: Pairs in which the first side alone has it.
    """
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def paired_difference(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """95% interval of a difference of paired rates: Wald's with half a pair more in each cell.

    Agresti and Min (2005), "Simple improved confidence intervals for comparing matched proportions".
    """
    more, less, of = gained + 0.5, lost + 0.5, n + 2
    value = (more - less) / of
    half = z * math.sqrt(more + less - (more - less) ** 2 / of) / of
    return max(-1.0, value - half), min(1.0, value + half)
