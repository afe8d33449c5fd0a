"""Rates and paired differences over a run's arms and seeds."""

from __future__ import annotations

import random

import pytest
from conftest import FinishedRun

from charrun.report.evidence import evidence_of
from charrun.report.intervals import Share, difference
from charrun.statistics import mcnemar, paired_difference, wilson
from charrun.store.runs import find_run


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> list[tuple[bool, bool]]:
    return [(True, True)] * both + [(True, False)] * only_a + [(False, True)] * only_b + [(False, False)] * neither


def test_without_correlation_it_is_the_interval_for_independent_samples() -> None:
    found = paired_difference(outcomes(12, 28, 18, 42))  # 40% and 30%, independent: 12 = 100 x 0.4 x 0.3
    expected = difference(Share(0.4, *wilson(40, 100), 40, 100), Share(0.3, *wilson(30, 100), 30, 100))
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_agreement_narrows_and_disagreement_widens_it() -> None:
    wide, narrow = paired_difference(outcomes(30, 20, 20, 30)), paired_difference(outcomes(48, 2, 2, 48))
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
    swapped = paired_difference([(b, a) for a, b in outcomes(30, 5, 20, 45)])
    straight = paired_difference(outcomes(30, 5, 20, 45))
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-straight.value, -straight.high, -straight.low))


def test_it_covers_the_true_difference_as_often_as_it_says() -> None:
    rng, covered, tries = random.Random(7), 0, 2_000
    for _ in range(tries):
        found = paired_difference(
            [(u < 0.3, u < 0.35 or rng.random() < 0.2) for u in (rng.random() for _ in range(60))]
        )
        covered += found.low <= 0.35 + 0.65 * 0.2 - 0.3 <= found.high
    assert 0.93 < covered / tries < 0.985


def test_mcnemars_test_is_the_two_sided_binomial() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(3, 7) == pytest.approx(2 * (1 + 10 + 45 + 120) / 1024)


def test_a_run_without_arms_is_compared_with_its_base_model(smoke: FinishedRun) -> None:
    (group,) = evidence_of(find_run(smoke.runs_dir)).groups
    assert [(rate.arm, rate.model, rate.share.n) for rate in group.rates] == [
        ("", m, 120) for m in ("base", "dpo", "sft")
    ]
    base, *trained = group.rates
    assert base.against is None and all(rate.against and rate.against.n == 120 for rate in trained)
