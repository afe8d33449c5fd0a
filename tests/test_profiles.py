"""Schedules, Bradley-Terry, its bootstrap and rank correlation, against their definitions and other packages."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import choix
import numpy as np
import pytest
from scipy import stats

from charrun.plugins._bradley_terry import bootstrap, interval, strengths
from charrun.plugins._judging import shipped
from charrun.plugins._profile import agreement, changes, differing, is_clear, profiles
from charrun.plugins._tournament import Comparison, schedule
from charrun.plugins.preferences import _correlation
from charrun.report.profiles import profile_lines
from charrun.statistics import spearman, spearman_interval


def pairs_of(true: np.ndarray, m: int, seed: int) -> np.ndarray:
    """Winner and loser of m random comparisons of things with true strengths."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(m):
        a, b = rng.choice(len(true), 2, replace=False)
        found.append((a, b) if rng.random() < 1 / (1 + np.exp(true[b] - true[a])) else (b, a))
    return np.array(found)


@pytest.mark.parametrize(("n", "m", "prior"), [(5, 30, 0.1), (40, 400, 0.01), (134, 1340, 0.1)])
def test_strengths_are_those_of_an_established_package(n: int, m: int, prior: float) -> None:
    pairs = pairs_of(np.random.default_rng(n).normal(0, 1, n), m, seed=n)
    theirs = choix.opt_pairwise(n, pairs.tolist(), alpha=prior, tol=1e-12)
    assert strengths(n, pairs, prior) == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_weights_count_a_comparison_as_often_as_they_say() -> None:
    pairs = pairs_of(np.zeros(6), 40, seed=1)
    weights = np.random.default_rng(2).integers(0, 4, 40).astype(float)
    repeated = np.repeat(pairs, weights.astype(int), axis=0)
    assert strengths(6, pairs, 0.1, weights) == pytest.approx(strengths(6, repeated, 0.1), abs=1e-9)


def test_who_won_everything_has_a_finite_strength() -> None:
    found = strengths(3, np.array([[0, 1]] * 500 + [[1, 2]] * 500), 0.1)
    assert found[0] > found[1] > found[2] and np.isfinite(found).all() and found.sum() == pytest.approx(0, abs=1e-8)


def test_the_bootstraps_interval_holds_the_true_difference_about_as_often_as_it_says() -> None:
    true = np.array([0.8, 0.2, -0.2, -0.8])
    held = 0
    for seed in range(40):
        pairs = pairs_of(true, 200, seed)
        (found,) = bootstrap(4, [pairs], [np.ones(200, dtype=bool)], 0.01, 100, seed)
        low, high = interval(found[:, 0] - found[:, 3])
        held += low <= 1.6 <= high
    assert held >= 33


def test_models_are_resampled_together_so_that_equal_ones_never_differ() -> None:
    pairs = pairs_of(np.zeros(5), 60, seed=3)
    one, other = bootstrap(5, [pairs, pairs], [np.ones(60, dtype=bool)] * 2, 0.1, 100, 7)
    assert (one == other).all()


def test_a_trait_that_training_raised_is_found_and_others_are_not() -> None:
    traits = [f"trait{i}" for i in range(12)]
    planned = schedule(traits, ["?"], 11, random.Random(1)) * 4
    coin = random.Random(2)
    before = [coin.choice([c.first, c.second]) for c in planned]
    after = ["trait3" if "trait3" in (c.first, c.second) else won for c, won in zip(planned, before, strict=True)]
    fits = profiles(traits, planned, {"base": before, "dpo": [None, *after[1:]]}, 0.1, 100, 5)
    first, *others = changes(traits, fits["base"], fits["dpo"], differing(planned, before, after))
    assert first["trait"] == "trait3" and first["low"] > 0 and first["p"] < 0.05
    assert fits["dpo"].judged.sum() == 2 * (len(planned) - 1)
    assert sum(row["low"] > 0 for row in others) == 0


def test_a_trait_whose_verdicts_are_all_the_base_models_has_not_moved_though_another_moved_the_mean() -> None:
    traits = [f"trait{i}" for i in range(60)]
    planned, coin = schedule(traits, ["?"], 12, random.Random(1)), random.Random(2)
    before = [coin.choice([c.first, c.second]) for c in planned]
    after = ["trait3" if "trait3" in (c.first, c.second) else won for c, won in zip(planned, before, strict=True)]
    fits, differ = (
        profiles(traits, planned, {"base": before, "dpo": after}, 0.1, 100, 5),
        differing(planned, before, after),
    )
    rows = changes(traits, fits["base"], fits["dpo"], differ)
    assert sum(differ.values()) == 2 * differ["trait3"] > 0
    assert any(row["high"] < 0 and not row["differing"] for row in rows), "by the mean alone"
    clear = {row["trait"] for row in rows if is_clear(row)}
    assert rows[0]["trait"] == "trait3" and "trait3" in clear and clear <= set(differ)


def test_the_schedule_covers_traits_evenly_and_no_pair_twice() -> None:
    traits = shipped("traits.txt").splitlines()
    planned = schedule(traits, [f"p{i}" for i in range(50)], 20, random.Random(7))
    assert Counter(t for c in planned for t in (c.first, c.second)) == dict.fromkeys(traits, 20)
    assert len({frozenset((c.first, c.second)) for c in planned}) == len(planned) == 1340
    firsts = Counter(c.first for c in planned)
    assert min(firsts.values()) >= 2 and max(firsts.values()) <= 18
    assert set(Counter(c.prompt for c in planned).values()) <= {26, 27}


def test_the_schedule_is_seeded_and_more_rounds_begin_with_the_same_comparisons() -> None:
    def made(rounds: int, seed: int) -> list[Comparison]:
        return schedule([*"abcdefg"], ["x", "y"], rounds, random.Random(seed))

    assert made(3, 1) == made(3, 1) == made(6, 1)[:9] and made(3, 1) != made(3, 2)
    assert len(made(7, 1)) == 21, "of an odd number one sits out each round"
    with pytest.raises(ValueError, match="7 traits have 7 rounds"):
        made(8, 1)


def test_the_pool_of_traits_is_large_sorted_and_of_single_words() -> None:
    traits = shipped("traits.txt").splitlines()
    assert len(traits) >= 120 and traits == sorted(set(traits)) and all(trait.isalpha() for trait in traits)


def test_rank_correlation_is_scipys_with_ties() -> None:
    rng = np.random.default_rng(4)
    a = rng.integers(0, 9, 60).astype(float)
    b = a + rng.normal(0, 4, 60)
    assert spearman(a.tolist(), b.tolist()) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)
    assert spearman([1.0, 1.0], [2.0, 3.0]) is None, "nothing is ranked"


def test_of_a_correlation_that_has_no_interval_or_is_undefined_none_is_told() -> None:
    moved, still = np.array([3.0, 1.0, 2.0, 5.0, 4.0]), np.zeros(5)
    assert spearman_interval(1.0, 134) is None and spearman_interval(-1.0, 134) is None
    same, reversed_, none = (agreement("a", "b", moved, other) for other in (moved, -moved, still))
    assert (same["value"], same["low"], same["high"]) == (1, None, None) and none["value"] is None
    assert _correlation(same).endswith(": 1.000, identical ranks, 5 traits")
    assert _correlation(reversed_).endswith(": -1.000, reversed ranks, 5 traits")
    assert _correlation(none).endswith(": undefined, since one of them is all equal")

    def cell(after: np.ndarray) -> list[dict[str, Any]]:
        kinds = {"profile": after, "profile_before": moved, "profile_again": moved}
        return [{"name": "preferences", **{k: dict(zip("abcde", v.tolist(), strict=True)) for k, v in kinds.items()}}]

    line = profile_lines([("pirate", cell(moved)), ("grump", cell(-moved))])[1]
    assert "before 1.00 (identical ranks, no interval); after -1.00 (reversed ranks, no interval)" in line
    assert line.endswith("changes undefined (one side is all equal)")


def test_a_correlations_interval_narrows_with_n_and_holds_it() -> None:
    few, many = spearman_interval(0.6, 20), spearman_interval(0.6, 200)
    assert few[0] < many[0] < 0.6 < many[1] < few[1] and spearman_interval(0.6, 3) == (-1.0, 1.0)


def test_reports_say_how_far_characters_agree_and_share_no_noise_of_the_base_model() -> None:
    rng = np.random.default_rng(6)
    base, first, second = (rng.normal(0, 1, 60) for _ in range(3))
    noise = rng.normal(0, 0.3, (2, 60))

    def row(after: np.ndarray) -> dict[str, Any]:
        kinds = {"profile": after, "profile_before": base + noise[0], "profile_again": base + noise[1]}
        return {"name": "preferences", **{k: {str(i): float(x) for i, x in enumerate(v)} for k, v in kinds.items()}}

    heading, line = profile_lines([("pirate", [row(first)]), ("grump", [{}, row(second)])])
    assert "Spearman" in heading and "pirate and grump (preferences, 60 names)" in line
    before = stats.spearmanr(base + noise[0], base + noise[1]).statistic
    changed = stats.spearmanr(first - base - noise[0], second - base - noise[1]).statistic
    assert f"before {before:.2f} (" in line and f"changes {changed:.2f} (" in line
    assert profile_lines([("pirate", [row(first)])]) == []
    assert profile_lines([("a", [{"profile": 3}]), ("b", [row(first)])]) == []
