"""The training monitor's rules, and learning rates over a training: pure functions on curves as trainings give them."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from charrun.chat import TrainedRow
from charrun.plugins._monitor import DPO_RULES, OPTION, Monitor, Verdict, at_most, slope
from charrun.plugins._sanity import (
    direction_verdict,
    empty_verdict,
    end_control,
    is_empty,
    last_turn,
    order_control,
    same_verdict,
    scored_verdict,
    short_verdict,
    text_verdict,
)
from charrun.plugins._schedule import learning_rates
from charrun.spec.schema import with_defaults

SCHEMA = {**OPTION, "properties": {**OPTION["properties"], **DPO_RULES}}
STEPS, BATCH = 47, 16


def monitor(steps: int = STEPS, rates: list[float] | None = None, *, exact: bool = False, **options: Any) -> Monitor:
    return Monitor(with_defaults(SCHEMA, options), rates or [1e-4] * steps, [BATCH] * steps, exact=exact)


def dpo(margin: float, accuracy: float, **more: float) -> dict[str, float]:
    loss = math.log1p(math.exp(-0.1 * margin)) if math.isfinite(margin) else margin
    return {"dpo_loss": loss, "chosen_nll": 2.0, "nll_rise": -0.1, "margin": margin, "accuracy": accuracy, **more}


def first_diagnosis(watch: Monitor, curve: Iterator[dict[str, float]]) -> tuple[int, Verdict] | None:
    for step, metrics in enumerate(curve):
        for verdict in watch.observe(step, metrics):
            if verdict.stops:
                return step, verdict
    return None


def guessing(p: float, seed: int, steps: int = STEPS) -> Iterator[dict[str, float]]:
    """A training that tells pairs apart with probability p; step 0 is what every fresh adapter gives."""
    rng = random.Random(seed)
    yield dpo(0.0, 0.4)
    for _ in range(steps - 1):
        yield dpo(2.0, sum(rng.random() < p for _ in range(BATCH)) / BATCH)


def test_a_healthy_training_is_left_alone() -> None:
    curve = [dpo(0.0, 0.44), *(dpo(8.0 * step, 1.0, nll_rise=-0.05 * step) for step in range(1, STEPS))]
    assert first_diagnosis(monitor(exact=True), iter(curve)) is None


def test_a_smoke_training_of_one_step_is_left_alone() -> None:
    assert monitor(1, exact=True).observe(0, dpo(0.0, 0.0)) == []


def test_an_accuracy_at_chance_is_a_diagnosis_and_its_pairs_are_counted() -> None:
    found = [first_diagnosis(monitor(), guessing(0.5, seed)) for seed in range(50)]
    caught = [each for each in found if each]
    assert len(caught) == 50
    assert {verdict.rule for _, verdict in caught} == {"accuracy"}
    assert max(step for step, _ in caught) < STEPS  # the bound needs some 200 pairs


def test_of_trainings_at_the_limit_fewer_are_stopped_than_the_false_alarm_says() -> None:
    stopped = sum(first_diagnosis(monitor(false_alarm=0.02), guessing(0.65, seed)) is not None for seed in range(100))
    assert at_most(stopped, 100, 0.02) < 0.9999  # at most 2%, and a Bonferroni bound leaves it far below


def test_the_binomial_tail_is_that_of_a_fair_coin() -> None:
    assert at_most(0, 10, 0.5) == pytest.approx(0.5**10)
    assert at_most(5, 10, 0.5) == pytest.approx(638 / 1024)
    assert at_most(10, 10, 0.3) == pytest.approx(1.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_a_diagnosis_at_its_step(value: float) -> None:
    watch = monitor()
    assert watch.observe(0, dpo(0.0, 0.5)) == []
    (verdict,) = watch.observe(1, dpo(1.0, 1.0, grad_norm=value))
    assert (verdict.rule, verdict.stops) == ("finite", True)
    assert monitor(finite=False).observe(0, dpo(0.0, 0.5, grad_norm=value)) == []


def test_an_nll_of_chosen_answers_that_rises_is_a_diagnosis() -> None:
    (verdict,) = monitor().observe(0, dpo(3.0, 1.0, nll_rise=1.2))
    assert verdict.rule == "nll_rise" and "1.20 nats a token" in verdict.saw
    assert monitor(nll_rise=0).observe(0, dpo(3.0, 1.0, nll_rise=9.0)) == []


def test_a_weight_that_does_not_move_is_seen_after_one_step_where_the_engine_is_exact() -> None:
    curve = [dpo(0.0, 0.4), dpo(1e-7, 0.6)]
    assert first_diagnosis(monitor(exact=True), iter(curve))[1].rule == "flat_loss"  # type: ignore[index]
    assert first_diagnosis(monitor(), iter(curve)) is None


def test_a_flat_loss_counts_steps_at_the_full_rate_alone() -> None:
    """The curve of a public training whose loss stayed at 0.69 for 264 steps, under a warm-up of five steps."""
    rates = [0.2e-4, 0.4e-4, 0.6e-4, 0.8e-4, *[1e-4] * 43]
    step, verdict = first_diagnosis(monitor(rates=rates), (dpo(0.01, 0.7) for _ in rates)) or (0, None)
    assert verdict and verdict.rule == "flat_loss"
    assert step == 7  # 2.0 + 3 full steps behind it


def test_a_warning_is_given_once_and_stops_nothing() -> None:
    watch = monitor(60)
    found = [verdict for step in range(60) for verdict in watch.observe(step, {"loss": 0.6})]
    assert [(verdict.rule, verdict.stops) for verdict in found] == [("trend", False)]


def test_an_sft_loss_that_explodes_is_a_diagnosis() -> None:
    found = first_diagnosis(monitor(), iter([{"loss": 0.7}, {"loss": 0.6}, {"loss": 1.7}]))
    assert found and (found[0], found[1].rule) == (2, "nll_rise")


def test_a_first_loss_that_the_checks_before_it_did_not_find_is_a_diagnosis() -> None:
    expected = {"dpo_loss": (math.log(2), 1e-4), "margin": (0.0, 1e-3), "nll_rise": (0.0, 1e-4)}

    def of(**options: Any) -> Monitor:
        return Monitor(with_defaults(SCHEMA, options), [1e-4] * STEPS, [BATCH] * STEPS, first=expected)

    assert of().observe(0, dpo(1e-5, 0.4, nll_rise=1e-6)) == []
    assert of().observe(1, dpo(8.9, 1.0)) == []
    (verdict,) = of().observe(0, dpo(8.9, 1.0, nll_rise=-0.2))
    assert (verdict.rule, verdict.stops) == ("first_loss", True)
    assert (
        verdict.saw == "dpo_loss is 0.3441 instead of 0.6931, margin is 8.9 instead of 0, nll_rise is -0.2 instead of 0"
    )
    assert of(first_loss=False).observe(0, dpo(8.9, 1.0)) == []


def test_an_sft_loss_of_nothing_is_a_diagnosis_at_any_step() -> None:
    found = first_diagnosis(monitor(), iter([{"loss": 0.7}, {"loss": 0.0}]))
    assert found and (found[0], found[1].rule) == (1, "first_loss") and "no token is trained" in found[1].saw
    assert first_diagnosis(monitor(first_loss=False), iter([{"loss": 0.0}])) is None


def test_unchanged_answers_are_a_diagnosis_only_where_the_pairs_are_told_apart() -> None:
    watch = monitor()
    assert watch.behaviour(12, 12) is None
    for step in range(3):
        watch.observe(step, dpo(5.0 * step, 1.0))
    verdict = watch.behaviour(11, 12)
    assert verdict and verdict.stops and "11 of 12 greedy answers" in verdict.saw
    assert watch.behaviour(10, 12) is None
    assert watch.behaviour(0, 0) is None


ROW = TrainedRow(array("i", range(20)), bytes([0] * 6 + [1] * 4 + [0] * 2 + [1] * 8))


def test_controls_keep_context_and_end_and_leave_no_word_in_its_place() -> None:
    assert last_turn(ROW) == (12, 19)
    order, end = order_control(ROW, random.Random(3)), end_control(ROW)
    assert order and end
    assert list(order.tokens[:12]) == list(range(12)) and order.tokens[19] == 19
    assert sorted(order.tokens) == list(range(20)) and list(order.tokens) != list(range(20))
    assert list(end.tokens) == [*range(15), 19] and bytes(end.trained) == bytes(ROW.trained[:15]) + b"\1"
    short = TrainedRow(array("i", range(6)), bytes([0, 0, 0, 1, 1, 1]))
    assert order_control(short, random.Random(3)) is None and end_control(short) is None


def test_answers_that_beat_neither_control_are_a_diagnosis_each() -> None:
    rng = random.Random(1)
    good = [(9 + rng.gauss(0, 1), 12 + rng.gauss(0, 5)) for _ in range(16)]
    assert text_verdict(good, "they") is None
    noise = [(rng.gauss(0, 1), end) for _, end in good]
    assert "any other order" in text_verdict(noise, "they").saw  # type: ignore[union-attr]
    cut = [(order, rng.gauss(0, 5)) for order, _ in good]
    assert "half-way" in text_verdict(cut, "they").saw  # type: ignore[union-attr]
    assert text_verdict(noise[:9], "they") is None


def row(words: int) -> TrainedRow:
    """A turn of so many tokens and its end, after a prompt of three."""
    return TrainedRow(array("i", range(words + 4)), bytes([0, 0, 0, *[1] * (words + 1)]))


def test_a_turn_that_is_nothing_but_its_end_is_empty_wherever_it_stands() -> None:
    assert is_empty(row(0)) and not is_empty(row(1)) and not is_empty(ROW)
    assert is_empty(TrainedRow(array("i", range(9)), bytes([0, 1, 1, 0, 1, 0, 1, 1, 1])))
    verdict = empty_verdict(1, 32, "the chosen answers")
    assert verdict and verdict.stops and verdict.saw == "the chosen answers: 1 of 32 is empty"
    assert empty_verdict(0, 32, "they") is None


def test_answers_that_are_mostly_too_short_to_be_judged_are_a_diagnosis_and_too_few_a_warning() -> None:
    assert short_verdict([row(8)] * 16 + [row(1)] * 16, "they") is None
    cut = short_verdict([row(8)] * 15 + [row(3)] * 17, "they")
    assert cut and cut.stops and "they: 17 of 32 have fewer than 4 tokens" in cut.saw
    few = short_verdict([row(8)] * 9, "they")
    assert few and not few.stops and "they are not checked: 9 have 4 tokens or more, and 10 are needed" in few.saw


def test_pairs_whose_answers_are_the_same_are_told() -> None:
    other = TrainedRow(array("i", range(1, 13)), row(8).trained)
    assert same_verdict([row(8), other] * 4) is None
    some, most = same_verdict([row(8), other, row(8), row(8)]), same_verdict([row(8), row(8)] * 3)
    assert some and not some.stops and "in 1 of 2 pairs" in some.saw
    assert most and most.stops and "in 3 of 3 pairs" in most.saw


def test_the_direction_of_pairs_is_judged_where_it_is_clear() -> None:
    assert direction_verdict([2.0] * 16) is None
    assert "swapped" in direction_verdict([-2.0] * 16).advice  # type: ignore[union-attr]
    assert "at random" in direction_verdict([2.0, -2.0] * 8).advice  # type: ignore[union-attr]
    noisy = direction_verdict([2.0] * 70 + [-2.0] * 30)
    assert noisy and not noisy.stops and "in 70 of 100 clear pairs" in noisy.saw
    assert direction_verdict([2.0] * 88 + [-2.0] * 12) is None
    assert direction_verdict([-2.0] * 10) is None
    assert direction_verdict([-0.1] * 250) is None  # a character that speaks as the student does


def test_the_scorer_tells_swapped_pairs_and_warns_where_it_tells_nothing() -> None:
    high, low = [1.0 + i / 100 for i in range(16)], [0.0 - i / 100 for i in range(16)]
    assert scored_verdict(high, low) is None
    assert scored_verdict(low, high).stops  # type: ignore[union-attr]
    assert not scored_verdict(high, high).stops  # type: ignore[union-attr]


OPTIONS = {"learning_rate": 2e-4, "lr_schedule": "constant", "warmup_ratio": 0.0, "min_lr_ratio": 0.0}


def test_the_rate_is_constant_unless_said_otherwise() -> None:
    assert learning_rates(OPTIONS, 5) == [2e-4] * 5


def test_a_warm_up_rises_in_equal_parts_and_no_step_is_idle() -> None:
    rates = learning_rates({**OPTIONS, "warmup_ratio": 0.25}, 16)
    assert rates[:5] == pytest.approx([0.5e-4, 1e-4, 1.5e-4, 2e-4, 2e-4])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_rate_falls_to_its_floor_and_never_below(kind: str) -> None:
    rates = learning_rates({**OPTIONS, "lr_schedule": kind, "warmup_ratio": 0.1, "min_lr_ratio": 0.1}, 286)
    assert rates[28] == max(rates) == pytest.approx(2e-4)
    assert all(a >= b for a, b in pairwise(rates[28:]))
    assert 2e-5 <= rates[-1] < 2.2e-5


def test_linear_and_cosine_meet_half_way() -> None:
    half = [learning_rates({**OPTIONS, "lr_schedule": kind}, 10)[5] for kind in ("linear", "cosine")]
    assert half == pytest.approx([1e-4, 1e-4])


def test_the_slope_of_a_line_is_its_own() -> None:
    assert slope([3.0, 2.5, 2.0, 1.5]) == pytest.approx(-0.5)


def test_pairs_that_are_hardly_different_are_warned_of_alone() -> None:
    watch = Monitor(with_defaults(SCHEMA, {}), [1e-4] * STEPS, [BATCH] * STEPS, is_clear=False)
    found = [verdict for step, metrics in enumerate(guessing(0.5, 3)) for verdict in watch.observe(step, metrics)]
    assert [(verdict.rule, verdict.stops) for verdict in found] == [("accuracy", False)]
