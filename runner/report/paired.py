"""How sure one can be of a difference between two rates over the same prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

METHOD = "Newcombe's hybrid score interval for paired samples (1998, method 10), and McNemar's exact test"
Z95 = 1.959963984540054


@dataclass(frozen=True)
class PairedDifference:
    """b - a over the same prompts.

    Attributes:
        value: Difference of the rates, between -1 and 1.
        low: Lower end of its 95% interval.
        high: Upper end.
        n: Pairs.
        only_a: Pairs in which a alone hit.
        only_b: Pairs in which b alone hit.
        p: McNemar's exact two-sided p of no difference.
    """

    value: float
    low: float
    high: float
    n: int
    only_a: int
    only_b: int
    p: float


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> PairedDifference | None:
    """b - a with Newcombe's interval for paired samples (Newcombe 1998b, method 10); None without pairs.

    Args:
        pairs: Whether a and b hit, of each prompt.
    """
    n = len(pairs)
    if not n:
        return None
    both = sum(a and b for a, b in pairs)
    only_a = sum(a and not b for a, b in pairs)
    only_b = sum(b and not a for a, b in pairs)
    neither = n - both - only_a - only_b
    p_a, p_b = (both + only_a) / n, (both + only_b) / n
    (low_a, high_a), (low_b, high_b) = wilson(both + only_a, n), wilson(both + only_b, n)
    phi = _phi(both, only_a, only_b, neither)
    value = p_b - p_a
    down = _hypotenuse(p_b - low_b, high_a - p_a, phi)
    up = _hypotenuse(high_b - p_b, p_a - low_a, phi)
    return PairedDifference(
        value, max(-1.0, value - down), min(1.0, value + up), n, only_a, only_b, mcnemar(only_a, only_b)
    )


def wilson(hits: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927)."""
    if not n:
        return 0.0, 1.0
    rate, square = hits / n, z * z
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of the discordant pairs under a fair coin."""
    n = only_a + only_b
    tail: float = sum(math.comb(n, k) for k in range(min(only_a, only_b) + 1)) / 2**n
    return min(1.0, 2 * tail)


def _phi(both: int, only_a: int, only_b: int, neither: int) -> float:
    """Correlation of the two outcomes, with Newcombe's correction of a positive one for continuity."""
    product = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if not product:
        return 0.0
    n = both + only_a + only_b + neither
    excess = both * neither - only_a * only_b
    return (max(excess - n / 2, 0.0) if excess > 0 else excess) / math.sqrt(product)


def _hypotenuse(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
