"""Trainings on the smoke run's real rows, sabotaged: each is stopped, and most before a tenth of the steps."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from conftest import REPOSITORY, FinishedRun
from conftest import RunningEngine as Engine

from charrun.plugins.dpo import DpoStage
from charrun.testing import RunningEngine

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from sabotage import MATRIX, Sabotage, given_of, tried

QUICK = ("token ids shifted by one", "reference from another template", "weights one token late")
UNCAUGHT = ("none: DPO", "none: SFT", "swapped, direction off", "at random, direction off")
"""The last takes some hundred pairs to be sure of; mini has them (docs/training.md)."""
CASES = [
    pytest.param(case, id=case.what, marks=() if case.what in QUICK else pytest.mark.slow)
    for case in MATRIX
    if case.what not in UNCAUGHT
]


def rows(smoke: FinishedRun) -> dict[str, list[dict[str, Any]]]:
    return {
        "pairs": smoke.rows("pairs", "pairs"),
        "reflections": smoke.rows("reflection", "reflections"),
        "interactions": smoke.rows("interaction", "interactions"),
    }


@pytest.fixture(scope="module")
def engine(demo_engine: Engine) -> RunningEngine:
    return RunningEngine(demo_engine.base_url, demo_engine.api_key)


@pytest.mark.parametrize("sabotage", CASES)
def test_a_sabotaged_training_is_stopped(
    sabotage: Sabotage, smoke: FinishedRun, engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Sixteen steps of DPO, one pair each, and three of SFT: the checks before the first step look at all of it."""
    size = 1 if issubclass(sabotage.stage, DpoStage) else 16
    place = tmp_path_factory.getbasetemp() / "healthy-dpo"
    caught = tried(sabotage, given_of(sabotage, rows(smoke), engine, place), engine, size)
    assert caught.by
    if sabotage.must:
        assert caught.step <= caught.steps / 10, caught.by


@pytest.mark.slow
@pytest.mark.parametrize("what", ["none: DPO", "none: SFT"])
def test_a_training_that_nobody_sabotaged_goes_through(
    what: str, smoke: FinishedRun, engine: RunningEngine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (healthy,) = [case for case in MATRIX if case.what == what]
    place = tmp_path_factory.getbasetemp() / "healthy-dpo"
    given = given_of(healthy, rows(smoke), engine, place)
    caught = tried(healthy, given, engine, 1 if healthy.stage is DpoStage else 16)
    assert caught.by == "" and caught.step == caught.steps
