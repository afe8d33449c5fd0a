"""A model's profile of traits and what moved in it: strengths, differences to the base model, agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from charrun import Row
from charrun.plugins._bradley_terry import Floats, Ints, bootstrap, interval, strengths
from charrun.plugins._tournament import Comparison
from charrun.statistics import paired_difference, spearman, spearman_interval


@dataclass(frozen=True)
class Profile:
    """One model's trait strengths.

    Attributes:
        strengths: Natural log-odds by trait, shape [traits]; their sum is 0.
        resampled: The same under resampled comparisons, shape [times, traits].
        won: Comparisons that each trait won, shape [traits].
        judged: Comparisons of each trait that have a winner, shape [traits].
    """

    strengths: Floats
    resampled: Floats
    won: Ints
    judged: Ints


def profiles(
    traits: Sequence[str],
    planned: Sequence[Comparison],
    winners: Mapping[str, Sequence[str | None]],
    prior: float,
    times: int,
    seed: int,
) -> dict[str, Profile]:
    """Profiles by model.

    Args:
        traits: All of them.
        planned: The comparisons.
        winners: By model the trait that each comparison was judged to show; None where there is no verdict.
        prior: Weight of the Bradley-Terry prior.
        times: Bootstrap resamples over comparisons, the same for all models.
        seed: Their seed.
    """
    number = {trait: i for i, trait in enumerate(traits)}
    n = len(traits)
    judged, known = [], []
    for model in winners:
        pairs = np.array(
            [
                (number[c.second], number[c.first]) if won == c.second else (number[c.first], number[c.second])
                for c, won in zip(planned, winners[model], strict=True)
            ],
            dtype=np.int64,
        )
        judged.append(pairs)
        known.append(np.array([won is not None for won in winners[model]], dtype=np.bool_))
    resampled = bootstrap(n, judged, known, prior, times, seed)
    return {
        model: Profile(
            strengths(n, pairs[has], prior),
            rows,
            np.bincount(pairs[has][:, 0], minlength=n),
            np.bincount(pairs[has].ravel(), minlength=n),
        )
        for model, pairs, has, rows in zip(winners, judged, known, resampled, strict=True)
    }


def differing(planned: Sequence[Comparison], base: Sequence[str | None], own: Sequence[str | None]) -> Counter[str]:
    """By trait how many comparisons of it two models' winners differ in."""
    differ = (c for c, a, b in zip(planned, base, own, strict=True) if a != b)
    return Counter(trait for c in differ for trait in (c.first, c.second))


def changes(traits: Sequence[str], base: Profile, trained: Profile, differ: Counter[str]) -> list[Row]:
    """What changed for each trait against the base model, the most raised first.

    `change` is in strength, in log-odds, relative to the mean of all traits. `value` is in the probability that the
    trait is taken before an average one, with a 95% interval and two-sided p of the paired bootstrap. `differing` is
    what `differ` says of the trait.
    """
    moved = trained.strengths - base.strengths
    value = _probability(trained.strengths) - _probability(base.strengths)
    resampled = _probability(trained.resampled) - _probability(base.resampled)
    rows = []
    for i, trait in enumerate(traits):
        low, high = _interval(resampled[:, i], int(trained.won[i]), int(trained.judged[i]))
        rows.append(
            {
                "trait": trait,
                "change": float(moved[i]),
                "value": float(value[i]),
                "low": low,
                "high": high,
                "p": _p_of(resampled[:, i]),
                "n": int(trained.judged[i]),
                "differing": differ[trait],
            }
        )
    return sorted(rows, key=lambda row: -float(row["change"]))


def is_clear(row: Row) -> bool:
    """Whether a trait of `changes` moved: its interval is without 0, and not because others moved the mean alone."""
    return bool(row["differing"] and (row["low"] > 0 or row["high"] < 0))


def mean_change(traits: Sequence[str], wanted: Sequence[str], base: Profile, trained: Profile) -> Row:
    """Mean of `value` in `changes` over some traits, likewise with interval and p."""
    at = [traits.index(trait) for trait in wanted]
    value = (_probability(trained.strengths) - _probability(base.strengths))[at].mean()
    resampled = (_probability(trained.resampled) - _probability(base.resampled))[:, at].mean(1)
    n = int(trained.judged[at].sum())
    low, high = _interval(resampled, int(trained.won[at].sum()), n)
    return {"value": float(value), "low": low, "high": high, "p": _p_of(resampled), "n": n}


def _interval(resampled: Floats, won: int, judged: int) -> tuple[float, float]:
    """The bootstrap's 95% interval; where all resamples are alike, that of so many pairs that agree."""
    if judged and np.ptp(resampled) == 0:
        found = paired_difference([(True, True)] * won + [(False, False)] * (judged - won))
        return found.low, found.high
    return interval(resampled)


def _probability(strengths: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-strengths))
    return found


def _p_of(resampled: Floats) -> float:
    """How likely a resampled value is on the other side of 0, both sides; never less than resamples can tell."""
    beyond = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    return min(1.0, 2 * (1 + beyond) / (1 + len(resampled)))


def agreement(one: str, other: str, a: Floats, b: Floats) -> dict[str, Any]:
    """Spearman's correlation of two profiles with its 95% interval; n is the number of traits.

    `value` is None where one side is all equal, `low` and `high` are None where there is no interval.
    """
    value = spearman(a.tolist(), b.tolist())
    low, high = (None if value is None else spearman_interval(value, len(a))) or (None, None)
    return {"first": one, "second": other, "value": value, "n": len(a), "low": low, "high": high}
