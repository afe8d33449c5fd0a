"""What a stage asks for before its inputs are all there: the contract of `charrun.pipeline.ahead`, by its commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun, RunningEngine, charrun
from small_runs import Until, ended, events, key, published, start

SPEC = """
version: 1
name: ahead
seed: 7
engine: auto
plugins: [./stages.py]
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: {name: charrun/demo-student-small, chat: {enable_thinking: false}}}]
scales: [{name: tiny, pairs: 6, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}]
stages:
  - prompts
  - teacher
  - student
  - {uses: pairs, with: {gates: {}}}
  - {uses: dpo, with: {learning_rate: 5e-3, lora_rank: 8, batch_size: 4, monitor: {}}}
  - reflection
  - {uses: later, with: {waits: ./go, fails: ./fail, learning_rate: 1e-3}}
  - {uses: second_turn, with: {prompts: 10, calibration_prompts: 20, lowest_auc: 0.5, max_tokens: 24}}
"""

STAGES = """
from charrun import Stage, StageFailed, hookimpl
from charrun.plugins.sft import SftStage

FILE = {"type": "string", "x-charrun-identity": False, "default": "", "description": "A file."}

class Later(SftStage):
    name = "later"
    summary = "sft, once a file is there"
    options_schema = {
        **SftStage.options_schema,
        "properties": {**SftStage.options_schema["properties"], "waits": FILE, "fails": FILE},
    }

    async def run(self, ctx):
        import asyncio
        ctx.step_done(0, 2, {"loss": 1.0})
        while not ctx.path(ctx.options["waits"]).is_file():
            await asyncio.sleep(0.01)
        if ctx.path(ctx.options["fails"]).is_file():
            raise StageFailed("it was told to fail")
        await super().run(ctx)


class Wrong(Stage):
    name = "wrong"
    summary = "says one_checkpoint, and has none"
    produces = ("checkpoint",)
    one_checkpoint = True

    async def run(self, ctx):
        ctx.publish("checkpoint", [])


@hookimpl
def charrun_register_stages():
    return [Later, Wrong]
"""


@pytest.fixture
def ahead(tmp_path: Path) -> Path:
    path = tmp_path / "ahead.yaml"
    path.write_text(SPEC)
    (tmp_path / "stages.py").write_text(STAGES)
    return path


def of(stage: str, runs: Path, run: str = "ahead/1") -> list[dict[str, Any]]:
    return [event for event in events(runs, run) if event.get("stage") == stage]


def names(found: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in found if event["event"].startswith("stage_")]


def test_an_evaluation_begins_beside_the_last_training_and_publishes_once(smoke: FinishedRun) -> None:
    found = [event for event in smoke.events if event.get("stage") == "evaluate"]
    assert names(found) == ["stage_started", "stage_waits", "stage_started", "stage_finished"]
    (waits,) = [event for event in found if event["event"] == "stage_waits"]
    assert waits["awaited"] == ["sft"]
    ends = next(e for e in smoke.events if e["event"] == "stage_finished" and e["stage"] == "sft")
    assert smoke.events.index(found[0]) < smoke.events.index(ends)
    told = [event["text"] for event in found if event["event"] == "message"]
    assert len(told) == len(set(told)) > 0


@pytest.mark.slow
def test_what_was_asked_ahead_is_found_again_also_after_a_training_that_failed(
    ahead: Path, tmp_path: Path, demo_engine: RunningEngine, until: Until
) -> None:
    env, runs = key(demo_engine, demo_engine.base_url), tmp_path / "runs"
    command = (ahead, "--runs-dir", runs, "--yes", "--trust", "--plain")
    process = start(*command, env=env)
    try:
        until(lambda: "stage_waits" in names(of("second_turn", runs)) or process.poll() is not None)
        shown = charrun("status", "ahead/1", "--runs-dir", runs)
        states = [line.split()[:2] for line in shown.out.splitlines()]
        assert ["second_turn", "waiting"] in states and ["later", "running"] in states, shown.text
        (tmp_path / "fail").touch()
        (tmp_path / "go").touch()
        failed = ended(process)
    finally:
        process.kill()
    assert failed.code == 1 and failed.text.count("it was told to fail") == 1, failed.text
    assert names(of("second_turn", runs)) == ["stage_started", "stage_waits"]
    scored = [json.loads(line) for path in (runs / "store").glob("*/scores.jsonl") for line in path.open()]
    # Calibration, twice a score; base and dpo under each condition, of which the plain one is the calibration's prompt.
    assert len(scored) > 2 * 2 * 20

    (tmp_path / "fail").unlink()
    done = charrun(*command, env=env)
    assert done.code == 0, done.text
    again = [json.loads(line) for path in (runs / "store").glob("*/scores.jsonl") for line in path.open()]
    keys = [row["key"] for row in again]
    assert len(set(keys)) == len(keys)
    new = [row for row in again if row not in scored]
    assert new and {row["work"] for row in scored} == {row["work"] for row in again}

    plain = charrun(ahead, "--runs-dir", tmp_path / "plain", "--yes", "--trust", "--partial", env=env)
    assert plain.code == 0, plain.text
    assert names(of("second_turn", tmp_path / "plain")) == ["stage_started", "stage_finished"]
    rows, others = (
        {Path(name).name: text for name, text in published(each).items() if name.startswith("second_turn")}
        for each in (runs, tmp_path / "plain")
    )
    assert rows == others and rows


def test_a_stage_that_announces_a_checkpoint_and_has_none_is_named(ahead: Path, tmp_path: Path) -> None:
    ahead.write_text(SPEC.partition("stages:")[0] + "stages: [wrong]\n")
    found = charrun(ahead, "--runs-dir", tmp_path / "runs", "--trust")
    assert found.code == 1 and "wrong says one_checkpoint, and published 0" in found.text, found.text
