"""The gate before training: whether the scorer tells the character, and each trait, from the student's own answers."""

from __future__ import annotations

import pytest
from conftest import FinishedRun
from conftest import RunningEngine as DemoEngine

from charrun import StageFailed
from charrun.plugins.measurable import MeasurableStage
from charrun.statistics import auc_interval
from charrun.testing import RunningEngine, assert_stage_contract, run_stage

FEW = {
    "id": "few",
    "name": "Corwyn",
    "description": "Two traits of a sea dog.",
    "traits": [
        {"trait": "I talk like old sailors, with bent grammar, rough and salty.", "questions": ["What is tea?"]},
        {"trait": "I value integrity.", "questions": ["What is integrity?"]},
    ],
}


@pytest.fixture(scope="module")
def engine(demo_engine: DemoEngine) -> RunningEngine:
    return RunningEngine(**demo_engine.address)


def test_it_declares_what_charrun_and_its_users_rely_on() -> None:
    assert_stage_contract(MeasurableStage)


def test_an_interval_of_an_auc_has_a_width_also_where_every_positive_wins() -> None:
    low, high = auc_interval(1.0, 60, 60)
    assert 0.96 < low < 0.97 and high == 1.0
    assert auc_interval(1.0, 16, 16)[0] < low
    low, high = auc_interval(0.5, 60, 60)
    assert low == pytest.approx(1 - high) and 0.39 < low < 0.41
    assert auc_interval(0.0, 60, 60)[1] == pytest.approx(1 - auc_interval(1.0, 60, 60)[0])


def test_a_character_that_shows_passes_with_the_number_and_each_traits_own(
    smoke: FinishedRun, engine: RunningEngine
) -> None:
    outcome = run_stage(
        MeasurableStage, given={"pairs": smoke.rows("pairs", "pairs")}, character=FEW, options={"n": 12}, engine=engine
    )
    (row,) = outcome.rows["measurability"]
    assert row["auc"] > 0.9 and row["n"] == 12 and row["low"] < row["auc"] <= row["high"]
    assert [trait["trait"] for trait in row["traits"]] == [trait["trait"] for trait in FEW["traits"]]  # type: ignore[index]
    assert row["traits"][0]["auc"] > 0.9 and row["traits"][1]["auc"] < 0.7
    assert row["unmeasurable"] == 1 and any(
        "cannot be measured alone: I value integrity." in said for said in outcome.log
    )
    assert sum(outcome.asked.values()) == 2 * 12 * (2 + 5)


def test_pairs_that_a_control_has_exchanged_are_seen_as_they_were(smoke: FinishedRun, engine: RunningEngine) -> None:
    pairs = smoke.rows("pairs", "pairs")
    swapped = [
        {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"], "exchanged": True} if odd % 2 else pair
        for odd, pair in enumerate(pairs)
    ]
    found = [
        run_stage(
            MeasurableStage, given={"pairs": rows}, character=FEW, options={"each_trait": False}, engine=engine
        ).rows["measurability"]
        for rows in (pairs, swapped)
    ]
    assert found[0] == found[1] and found[0][0]["auc"] > 0.9


def test_pairs_that_are_swapped_are_stopped(smoke: FinishedRun, engine: RunningEngine) -> None:
    pairs = smoke.rows("pairs", "pairs")
    swapped = [{**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs]
    with pytest.raises(StageFailed, match=r"AUC 0\.0\d\d, 16 pairs"):
        run_stage(
            MeasurableStage, given={"pairs": swapped}, character=FEW, options={"each_trait": False}, engine=engine
        )


def test_where_both_sides_are_the_students_own_it_stops_with_the_number(
    smoke: FinishedRun, engine: RunningEngine
) -> None:
    pairs = smoke.rows("pairs", "pairs")
    same = [{**pair, "chosen": other["rejected"]} for pair, other in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    with pytest.raises(StageFailed, match=r"does not tell few from the student's own answers: AUC 0\.\d{3}, 16 pairs"):
        run_stage(MeasurableStage, given={"pairs": same}, character=FEW, options={"each_trait": False}, engine=engine)


def test_traits_that_cannot_be_measured_are_named_and_too_many_stop_it(
    smoke: FinishedRun, engine: RunningEngine
) -> None:
    options = {"n": 12, "lowest_auc": 0.5, "lowest_trait_auc": 1.0, "most_unmeasurable": 0.0}
    given = {"pairs": smoke.rows("pairs", "pairs")[:11]}
    given["pairs"].append({**given["pairs"][0], "id": "odd", "chosen": given["pairs"][0]["rejected"]})
    with pytest.raises(StageFailed, match=r"of 2 traits cannot be measured, each alone on 12 pairs: .*AUC 0\."):
        run_stage(MeasurableStage, given=given, character=FEW, options=options, engine=engine)
