"""Statistics of rates, of differences between them over the same prompts, and of scores; for reports and stages."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

Z95 = 1.959963984540054
PAIRED_INTERVAL = "Newcombe's hybrid score interval for paired samples (1998, method 10)"
PAIRED_METHOD = f"{PAIRED_INTERVAL}, and McNemar's exact test"


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


def worth(rate: float, low: float, high: float) -> float:
    """How many independent answers have a Wilson interval as wide as this one, to a thousandth of an answer.

    Args:
        rate: The rate.
        low: Lower end of its 95% interval.
        high: Upper end.
    """

    def width(n: float) -> float:
        found = wilson(rate * n, n)
        return found[1] - found[0]

    least, most = 0.0, 1.0
    while width(most) > high - low and most < 1e12:
        least, most = most, 2 * most
    while most - least > 1e-3 * max(1.0, least * 1e-6):
        middle = (least + most) / 2
        least, most = (middle, most) if width(middle) > high - low else (least, middle)
    return (least + most) / 2


def effective_n(hits: Sequence[bool], clusters: Sequence[Hashable]) -> float:
    """How many independent answers some answers are worth, where several belong to one question.

    n / design effect (Kish, 1965), the variance of the rate over whole questions against that of single answers; never
    more than n, and as many as there are questions where all answers are alike and nothing tells. Where k answers
    differ from the others, and questions have m answers each, the design effect is 1 + (m - 1) / (k + 1) at the least:
    as if k answers differed by themselves and one more with its whole question. So a few exceptions, which say little
    about how they come together, do not make an interval much narrower than none.
    """
    n, rate = len(hits), sum(hits) / len(hits)
    residuals: dict[Hashable, float] = {}
    for hit, cluster in zip(hits, clusters, strict=True):
        residuals[cluster] = residuals.get(cluster, 0.0) + hit - rate
    questions, rarer = len(residuals), min(sum(hits), n - sum(hits))
    if questions < 2 or not rarer:
        return float(questions)
    between = sum(each * each for each in residuals.values()) * questions / (questions - 1)
    least = 1 + (n / questions - 1) / (rarer + 1)
    return float(n / max(least, between / (n * rate * (1 - rate))))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test: of the pairs that differ, half should be gained.

    Args:
        gained: Pairs in which the second side alone has it.
        lost: Pairs in which the first side alone has it.
    """
    n = gained + lost
    tail = sum(math.comb(n, i) for i in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**n))


@dataclass(frozen=True)
class PairedDifference:
    """b - a over the same prompts.

    Attributes:
        value: Difference of the rates, between -1 and 1.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Pairs.
        gained: Pairs in which b alone hit.
        lost: Pairs in which a alone hit.
        p: McNemar's exact two-sided p of no difference.
    """

    value: float
    low: float
    high: float
    n: int
    gained: int
    lost: int
    p: float


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> PairedDifference:
    """b - a with Newcombe's hybrid score interval for paired samples (Newcombe, 1998, method 10).

    It is that of independent samples, made narrower or wider by how far the two outcomes go together.

    Args:
        pairs: Whether a and b hit, of each prompt; at least one.
    """
    n = len(pairs)
    both = sum(a and b for a, b in pairs)
    lost = sum(a and not b for a, b in pairs)
    gained = sum(b and not a for a, b in pairs)
    p_a, p_b = (both + lost) / n, (both + gained) / n
    (low_a, high_a), (low_b, high_b) = wilson(both + lost, n), wilson(both + gained, n)
    phi = _phi(both, lost, gained, n - both - lost - gained)
    value = p_b - p_a
    low = value - _hypotenuse(p_b - low_b, high_a - p_a, phi)
    high = value + _hypotenuse(high_b - p_b, p_a - low_a, phi)
    return PairedDifference(value, max(-1.0, low), min(1.0, high), n, gained, lost, mcnemar(gained, lost))


def _phi(both: int, lost: int, gained: int, neither: int) -> float:
    """Correlation of the two outcomes, with Newcombe's correction of a positive one for continuity."""
    product = (both + lost) * (gained + neither) * (both + gained) * (lost + neither)
    if not product:
        return 0.0
    excess = both * neither - lost * gained
    n = both + lost + gained + neither
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(product)


def _hypotenuse(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def t95(degrees: int) -> float:
    """The t below which |T| is in 95% of the cases (Student, 1908), by the finite sums of its distribution.

    Abramowitz and Stegun (1964), 26.7.3 and 26.7.4, with t = sqrt(degrees) tan(angle).

    Args:
        degrees: Degrees of freedom; at least 1.
    """

    def inside(angle: float) -> float:
        cosine, odd = math.cos(angle), degrees % 2
        term, total = cosine if odd else 1.0, 0.0
        for power in range(1 + odd, degrees, 2):
            total += term
            term *= cosine * cosine * power / (power + 1)
        total *= math.sin(angle)
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


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


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where one side is all equal, which ranks nothing."""
    one, other = ranks(a), ranks(b)
    centre = (len(a) + 1) / 2
    top = sum((x - centre) * (y - centre) for x, y in zip(one, other, strict=True))
    bottom = math.sqrt(sum((x - centre) ** 2 for x in one) * sum((y - centre) ** 2 for y in other))
    return max(-1.0, min(1.0, top / bottom)) if bottom else None


def spearman_interval(correlation: float, n: int, z: float = Z95) -> tuple[float, float] | None:
    """Interval of a rank correlation over n things, by Fisher's z with variance (1 + r^2 / 2) / (n - 3).

    None where the correlation is 1 or -1: Fisher's z has none there. Bonett and Wright (2000), "Sample size
    requirements for estimating Pearson, Kendall and Spearman correlations".
    """
    if abs(correlation) >= 1:
        return None
    if n < 4:
        return -1.0, 1.0
    half = z * math.sqrt((1 + correlation**2 / 2) / (n - 3))
    return math.tanh(math.atanh(correlation) - half), math.tanh(math.atanh(correlation) + half)
