"""AUC, threshold and interval against their definitions."""

from __future__ import annotations

import random

import pytest

from charrun.statistics import auc, best_threshold, t95, wilson


def test_auc_is_the_share_of_won_comparisons_with_ties_counted_half() -> None:
    rng = random.Random(3)
    a = [rng.randrange(6) + 0.0 for _ in range(40)]
    b = [rng.randrange(5) + 0.0 for _ in range(30)]
    wins = sum((x > y) + 0.5 * (x == y) for x in a for y in b)
    assert auc(a, b) == pytest.approx(wins / (len(a) * len(b)))


def test_the_threshold_separates_what_can_be_separated() -> None:
    cut = best_threshold([3.0, 4.0, 9.0], [0.0, 1.0, 2.0])
    assert 2.0 < cut < 3.0


def test_the_threshold_maximises_youdens_j() -> None:
    rng = random.Random(5)
    a, b = [rng.gauss(1, 1) for _ in range(50)], [rng.gauss(0, 1) for _ in range(50)]

    def youden(cut: float) -> float:
        return sum(x > cut for x in a) / 50 - sum(x > cut for x in b) / 50

    assert youden(best_threshold(a, b)) == pytest.approx(max(youden(cut - 1e-9) for cut in a + b))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 120, 0.0, 0.0310), (12, 120, 0.0582, 0.1666), (120, 120, 0.9690, 1.0), (5, 10, 0.2366, 0.7634)],
)
def test_wilsons_interval_has_its_known_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(
    ("degrees", "t"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (7, 2.3646), (10, 2.2281), (19, 2.0930), (200, 1.9719)],
)
def test_students_t_has_its_known_values(degrees: int, t: float) -> None:
    assert t95(degrees) == pytest.approx(t, abs=5e-5)
