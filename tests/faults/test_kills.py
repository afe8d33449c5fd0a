"""SIGKILL at every named point for every stage, and at random instants, of the runner, of the engine and of both.

After the same command has gone on: the same rows, curves and final weights to the bit as those of a run that nobody
disturbed, no stored row lost, no stored row asked for again, and nothing to be done by hand.
"""

from __future__ import annotations

import random
import time
from typing import Literal

import pytest
from faults.lab import STAGES, Lab, Trial
from faults.matrix import Matrix, tiers

FILES = ("journal.before", "journal.after", "file.written", "file.renamed", "outputs.before", "outputs.after")
SAMPLES = ("ledger.reserved", "ledger.settled", "row.before", "row.after")
TRAINING = (
    "ledger.reserved",
    "ledger.settled",
    "step.submitted",
    "step.done",
    "save.submitted",
    "save.done",
    "save.recorded",
)
ENGINE = {"samples": ("engine.sampled",), "training": ("engine.stepped", "engine.written", "engine.renamed")}
SAMPLED, TRAINED = ("teacher", "student", "reflection", "interaction", "evaluate"), ("dpo", "sft")

POINTS = [
    *((stage, point) for stage in STAGES for point in FILES),
    *((stage, point) for stage in SAMPLED for point in (*SAMPLES, *ENGINE["samples"])),
    *((stage, point) for stage in TRAINED for point in (*TRAINING, *ENGINE["training"])),
    ("export", "engine.written"),
    ("export", "engine.renamed"),
]
SECOND_TIME = ("journal.before", "journal.after", "file.written", "file.renamed", "step.submitted", "step.done")
"""Points that a stage reaches more than once: killed at the second time too."""
CASES = [(stage, f"{point}:1") for stage, point in POINTS]
CASES += [(stage, f"{point}:2") for stage, point in POINTS if point in SECOND_TIME]
QUICK = [("student", "row.after:1"), ("dpo", "save.submitted:1")]
SAMPLE = random.Random(7).sample(CASES, 14)
Who = Literal["runner", "engine", "both"]
KILLS: dict[Who, int] = {"runner": 20, "engine": 10, "both": 10}
RANDOM = [(who, kills, seed) for who, kills in KILLS.items() for seed in range(5)]
"""Who is killed, how often in one test, and from which seed."""


def killed_at(lab: Lab, stage: str, fault: str, matrix: Matrix) -> None:
    """Kill at one point while a stage works, go on to its end, compare."""
    trial = lab.trial(stage)
    if fault.startswith("engine."):
        lab.engine.kill()
        lab.engine.start(fault)
        runner = trial.start("", "--until", stage)
        lab.engine.wait(120)
        trial.disturbed(time.monotonic())
        lab.engine.start()
        ended = runner.wait()
        assert ended.code in (1, 5) and "Traceback" not in ended.text, ended.text
    else:
        ended = trial.start(fault, "--until", stage).wait()
        if ended.code == 0 and fault.endswith(":2"):
            return  # this stage comes there once
        assert ended.killed, ended.text
        trial.disturbed(time.monotonic())
    trial.finish("--until", stage)
    lab.check(trial, stage)
    kind = "engine" if fault.startswith("engine.") else "runner"
    matrix.count(f"SIGKILL of the {kind} at a named point of a stage", 1, 1, trial.rows_lost(), trial.paid_twice())


def killed_at_random(lab: Lab, who: Who, kills: int, seed: int, matrix: Matrix) -> None:
    """Runs that are killed at random instants until so many kills are done; each is then finished and compared."""
    rng = random.Random(f"{who} {seed}")
    left = kills
    while left:
        trial = lab.trial()
        while left:
            runner = trial.start()
            runner_ends = time.monotonic() + rng.uniform(0.1, lab.seconds)
            while runner.alive() and time.monotonic() < runner_ends:
                time.sleep(0.002)
            if not runner.alive():
                break
            hit(lab, trial, who, runner)
            left -= 1
            matrix.count(f"SIGKILL of {'the ' if who != 'both' else ''}{who} at a random instant", 1, 0)
        ended = runner.wait()
        assert ended.killed or ended.code in (0, 1, 5), ended.text
        trial.finish()
        lab.check(trial)
        what = f"SIGKILL of {'the ' if who != 'both' else ''}{who} at a random instant"
        matrix.count(what, 0, len(trial.kills), trial.rows_lost(), trial.paid_twice())


def hit(lab: Lab, trial: Trial, who: Who, runner: object) -> None:
    """Kill; an engine is started again at once, and a run that lost its engine ends by itself."""
    if who in ("engine", "both"):
        lab.engine.kill()
    if who in ("runner", "both"):
        runner.kill()  # type: ignore[attr-defined]
    trial.disturbed(time.monotonic())
    if who in ("engine", "both"):
        lab.engine.start()
    ended = runner.wait()  # type: ignore[attr-defined]
    assert ended.killed or ended.code in (0, 1, 5), ended.text
    assert "Traceback" not in ended.text, ended.text


def test_a_finished_run_has_nothing_left_to_do(lab: Lab) -> None:
    """Its evaluation had a stage ask for more rows, and that one an earlier stage, more than once."""
    started = [line for line in lab.whole.journal() if line["event"] == "stage_started"]
    assert any(event["extra"] for event in started)
    lab.proxy.begin()
    again = lab.whole.finish(tries=1)
    assert not lab.proxy.ledger.requests, again.text
    assert [line for line in lab.whole.journal() if line["event"] == "stage_started"] == started


@pytest.mark.parametrize("case", tiers(CASES, QUICK, SAMPLE))
def test_a_run_that_is_killed_at_a_point_loses_nothing(case: tuple[str, str], lab: Lab, matrix: Matrix) -> None:
    killed_at(lab, *case, matrix)


@pytest.mark.parametrize("case", tiers(RANDOM, (), [(who, 2, 9) for who in ("runner", "engine", "both")]))
def test_a_run_that_is_killed_at_random_loses_nothing(case: tuple[Who, int, int], lab: Lab, matrix: Matrix) -> None:
    killed_at_random(lab, *case, matrix)
