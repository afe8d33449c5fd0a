"""Strengths from comparisons by two: Bradley and Terry's model with a weak prior, and its bootstrap.

Unlike an Elo rating, which the paper repository updates in one pass, the result depends on no order of comparisons.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_MOST_STEPS = 100
_CLOSE = 1e-10
_LONGEST_STEP = 2.0


def strengths(n: int, pairs: Ints, prior: float, weights: Floats | None = None, start: Floats | None = None) -> Floats:
    """Strengths that maximise sum(w log sigmoid(s[winner] - s[loser])) - prior * sum(s^2), by Newton's method.

    The penalty is a normal prior of variance 1 / (2 prior): it keeps who won everything finite, and makes the
    strengths sum to 0.

    Args:
        n: How many there are.
        pairs: Winner and loser of each comparison, shape [m, 2].
        prior: Weight of the penalty, more than 0.
        weights: How often each comparison counts, shape [m]; by default once.
        start: Where to begin, shape [n].

    Returns:
        Strengths in natural log-odds, shape [n].
    """
    weights = np.ones(len(pairs)) if weights is None else weights
    found = np.zeros(n) if start is None else start.copy()
    winners, losers = pairs[:, 0], pairs[:, 1]
    for _ in range(_MOST_STEPS):
        beaten = 1 / (1 + np.exp(found[winners] - found[losers]))  # how unlikely each result was
        pull = weights * beaten
        gradient = np.bincount(winners, pull, n) - np.bincount(losers, pull, n) - 2 * prior * found
        curve = pull * (1 - beaten)
        between = np.bincount(winners * n + losers, curve, n * n).reshape(n, n)
        between = between + between.T
        hessian = np.diag(between.sum(1) + 2 * prior) - between
        step = np.linalg.solve(hessian, gradient)
        longest = float(np.abs(step).max())
        found = found + step * min(1.0, _LONGEST_STEP / longest if longest else 1.0)
        if longest < _CLOSE:
            break
    return found


def bootstrap(
    n: int, judged: list[Ints], known: list[NDArray[np.bool_]], prior: float, times: int, seed: int
) -> list[Floats]:
    """Strengths of several models under resampled comparisons, the same ones for all: differences are paired.

    Args:
        n: How many have strengths.
        judged: By model winner and loser of each scheduled comparison, shape [m, 2]; anything where not known.
        known: By model which comparisons have a winner, shape [m].
        prior: As for `strengths`.
        times: How often to resample.
        seed: Seed of the resampling.

    Returns:
        By model strengths, shape [times, n].
    """
    rng = np.random.default_rng(seed)
    m = len(judged[0])
    starts = [strengths(n, pairs[has], prior) for pairs, has in zip(judged, known, strict=True)]
    found = [np.empty((times, n)) for _ in judged]
    for i in range(times):
        drawn = np.bincount(rng.integers(m, size=m), minlength=m).astype(np.float64)
        for rows, pairs, has, start in zip(found, judged, known, starts, strict=True):
            rows[i] = strengths(n, pairs[has], prior, drawn[has], start)
    return found


def interval(resampled: Floats) -> tuple[float, float]:
    """The middle 95% of resampled values, shape [times]."""
    low, high = np.percentile(resampled, [2.5, 97.5])
    return float(low), float(high)
