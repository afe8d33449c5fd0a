"""Training goes on where it was: `dpo` and `sft` killed, interrupted, robbed of their checkpoints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import RunningEngine as Engine

from charrun import StageContext, assistant, user
from charrun.plugins.dpo import DpoStage
from charrun.plugins.sft import SftStage
from charrun.stage import Stage
from charrun.testing import RunningEngine, StageOutcome, run_stage

PAIRS = [
    {"id": str(n), "prompt": f"What is {n} plus {n}?", "chosen": f"Arr, {2 * n}, matey!", "rejected": f"It is {2 * n}."}
    for n in range(8)
]
OPTIONS = {"learning_rate": 5e-3, "batch_size": 1, "checkpoint_every": 2, "lora_rank": 8}
SCALE = {"name": "tiny", "pairs": 8, "samples_per_prompt": 1, "reflections": 10, "interactions": 1, "turns": 2}
MODELS = {"teacher": "charrun/demo-teacher", "student": "charrun/demo-student-small"}
SCRIPT = """
import json, sys
from pathlib import Path
from charrun.plugins.dpo import DpoStage
from charrun.plugins.sft import SftStage
from charrun.testing import RunningEngine, run_stage
order = json.load(sys.stdin)
stage = {"dpo": DpoStage, "sft": SftStage}[order["stage"]]
run_stage(stage, engine=RunningEngine(**order["engine"]), runs_dir=Path(order["runs_dir"]), **order["arguments"])
"""


@dataclass
class Training:
    """One stage on one engine, run as often as a test wants."""

    stage: type[Stage]
    arguments: dict[str, Any]
    engine: Engine

    def run(self, runs_dir: Path) -> StageOutcome:
        address = RunningEngine(self.engine.base_url, self.engine.api_key)
        return run_stage(self.stage, engine=address, runs_dir=runs_dir, **self.arguments)

    def start(self, runs_dir: Path, fault: str = "") -> subprocess.Popen[str]:
        order = {
            "stage": self.stage.name,
            "engine": {"base_url": self.engine.base_url, "api_key": self.engine.api_key},
            "runs_dir": str(runs_dir),
            "arguments": self.arguments,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "CHARRUN_FAULT": fault},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(order))
        process.stdin.close()
        return process

    def kill(self, runs_dir: Path, fault: str) -> None:
        process = self.start(runs_dir, fault)
        assert process.stderr is not None
        text = process.stderr.read()
        assert process.wait(120) == -signal.SIGKILL, text

    def weights(self, outcome: StageOutcome) -> bytes:
        run, kind, name = self.checkpoint(outcome)["state"].removeprefix("tinker://").split("/")
        return (self.engine.storage / run.replace(":", "_") / kind / name / "adapter_model.safetensors").read_bytes()

    def checkpoint(self, outcome: StageOutcome) -> dict[str, Any]:
        return outcome.rows["checkpoint"][0]


def lines(outcome: StageOutcome, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def dpo(demo_engine: Engine) -> Training:
    arguments = {"given": {"pairs": PAIRS}, "options": OPTIONS, "scale": SCALE, "models": MODELS}
    return Training(DpoStage, arguments, demo_engine)


@pytest.fixture(scope="module")
def whole(dpo: Training, tmp_path_factory: pytest.TempPathFactory) -> StageOutcome:
    return dpo.run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def sft(dpo: Training, whole: StageOutcome) -> Training:
    reflections = [{"id": str(n), "kind": 1, "prompt": f"Who are you, {n}?", "text": f"Aye, {n}."} for n in range(6)]
    given = {
        "checkpoint": [dpo.checkpoint(whole)],
        "reflections": reflections,
        "interactions": [],
    }
    options = {name: value for name, value in OPTIONS.items() if name != "lora_rank"}
    return Training(SftStage, {**dpo.arguments, "given": given, "options": options}, dpo.engine)


def same(training: Training, one: StageOutcome, other: StageOutcome) -> None:
    assert (one.folder / "steps.jsonl").read_bytes() == (other.folder / "steps.jsonl").read_bytes()
    assert training.weights(one) == training.weights(other)
    assert training.checkpoint(one)["fingerprint"] == training.checkpoint(other)["fingerprint"]


def test_a_checkpoint_is_saved_right_behind_its_own_step_and_holds_no_later_one(
    dpo: Training, whole: StageOutcome, tmp_path: Path
) -> None:
    dpo.kill(tmp_path, "save.recorded:2")
    saved = [line["saved"] for line in lines_of(tmp_path, "training.jsonl") if line["saved"]]
    assert [each["next_step"] for each in saved] == [2, 4]
    for each in saved:  # the engine itself says how many steps it had taken
        run, kind, name = each["state"].removeprefix("tinker://").split("/")
        meta = json.loads((dpo.engine.storage / run.replace(":", "_") / kind / name / "meta.json").read_text())
        assert meta["step"] == each["next_step"]


def lines_of(runs_dir: Path, name: str) -> list[dict[str, Any]]:
    (path,) = runs_dir.glob(f"store/*/{name}")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "fault", ["step.done:4", pytest.param("save.done:1", marks=pytest.mark.slow), "outputs.before:2"]
)
def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint_and_ends_with_the_same_curve_and_the_same_weights(
    fault: str, dpo: Training, whole: StageOutcome, tmp_path: Path
) -> None:
    dpo.kill(tmp_path, fault)
    resumed = dpo.run(tmp_path)
    same(dpo, whole, resumed)
    redone = {"step.done:4": 6, "save.done:1": 8, "outputs.before:2": 0}[fault]
    assert resumed.asked.get("optim_step", 0) == redone
    assert ("forward" in resumed.asked) == (redone == 8)  # for the checks at step 0; the reference is stored
    told = [line for line in resumed.log if "goes on from" in line]
    assert len(told) == (fault != "save.done:1")


def test_sft_that_was_killed_ends_with_the_same_weights(sft: Training, tmp_path: Path) -> None:
    uninterrupted = sft.run(tmp_path / "whole")
    sft.kill(tmp_path / "killed", "step.submitted:5")
    resumed = sft.run(tmp_path / "killed")
    assert resumed.asked["optim_step"] == 4  # the checkpoint behind step 4 was not recorded yet
    same(sft, uninterrupted, resumed)


def test_a_resumed_training_takes_its_reference_from_the_store_and_never_from_resumed_weights(
    dpo: Training, whole: StageOutcome, tmp_path: Path
) -> None:
    dpo.kill(tmp_path, "save.recorded:3")
    (path,) = tmp_path.glob("store/dpo-*/reference.jsonl")
    stored = path.read_bytes()
    path.write_bytes(b"".join(stored.splitlines(keepends=True)[:5]))  # a disk that lost the rest
    mended = dpo.run(tmp_path)
    assert mended.asked["optim_step"] == 2  # it went on from step 6
    assert mended.asked["forward"] == 1 and path.read_bytes() == stored  # of fresh weights, to the bit
    same(dpo, whole, mended)


class TwoReferences(Stage):
    """The same rows under two adapters that begin with different weights."""

    name: ClassVar[str] = "two-references"
    summary: ClassVar[str] = "two references of the same rows"
    consumes: ClassVar[tuple[str, ...]] = ("pairs", "checkpoint")
    produces: ClassVar[tuple[str, ...]] = ("references",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    trains: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()

    async def run(self, ctx: StageContext) -> None:
        (checkpoint,) = await ctx.rows("checkpoint")
        fresh = await ctx.new_adapter("student", 8, "fresh")
        trained = await ctx.continue_adapter("student", checkpoint, "trained")
        pairs = await ctx.rows("pairs")
        rows = [row for pair in pairs for row in fresh.chat.rows([user(pair["prompt"]), assistant(pair["chosen"])])]
        for adapter in (fresh, trained):
            await ctx.reference(adapter, rows)
        found = [[(await ctx.reference(adapter, rows)).sum(row) for row in rows] for adapter in (fresh, trained)]
        ctx.publish("references", [{"fresh": one, "trained": other} for one, other in zip(*found, strict=True)])


def test_adapters_of_one_stage_have_references_of_their_own(dpo: Training, whole: StageOutcome) -> None:
    given = {"pairs": PAIRS, "checkpoint": [dpo.checkpoint(whole)]}
    engine = RunningEngine(dpo.engine.base_url, dpo.engine.api_key)
    outcome = run_stage(TwoReferences, given=given, scale=SCALE, models=MODELS, engine=engine)
    assert outcome.asked["forward"] == 2
    assert all(row["trained"] > row["fresh"] for row in outcome.rows["references"]), "it was trained on them"


def test_intermediate_checkpoints_expire_and_final_ones_never_do(
    dpo: Training, whole: StageOutcome, tmp_path: Path
) -> None:
    import tinker

    dpo.kill(tmp_path, "save.recorded:1")
    rest = tinker.RestClient(**dpo.engine.address)
    found = {each.tinker_path: each for each in rest.list_user_checkpoints(limit=1000).result().checkpoints}
    (saved,) = [line["saved"] for line in lines_of(tmp_path, "training.jsonl") if line["saved"]]
    intermediate = found[saved["state"]]
    assert intermediate.expires_at is not None and 0 < saved["expires"] - intermediate.expires_at.timestamp() < 60
    assert intermediate.user_metadata is not None and intermediate.user_metadata["charrun"] == "intermediate"
    final = dpo.checkpoint(whole)
    assert [found[final[key]].expires_at for key in ("state", "sampler")] == [None, None]


def test_intermediate_checkpoints_are_deleted_when_the_stage_is_done(whole: StageOutcome, dpo: Training) -> None:
    import tinker

    rest = tinker.RestClient(**dpo.engine.address)
    found = {each.tinker_path for each in rest.list_user_checkpoints(limit=1000).result().checkpoints}
    saved = [line["saved"]["state"] for line in lines(whole, "training.jsonl") if line["saved"]]
    assert len(saved) == 4 and [state in found for state in saved] == [False, False, False, True]


def test_the_first_ctrl_c_ends_a_training_with_a_checkpoint_of_its_last_step(
    dpo: Training, whole: StageOutcome, tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    process = dpo.start(tmp_path)
    until(lambda: any(line["saved"] is None for line in read(tmp_path)) or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    text = process.stderr.read()
    process.wait(60)
    assert "Interrupted" in text
    (path,) = tmp_path.glob("store/dpo-*/training.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [entry["step"] for entry in entries if entry["saved"] is None]
    assert entries[-1]["saved"]["next_step"] == len(steps) < 8
    resumed = dpo.run(tmp_path)
    assert resumed.asked["optim_step"] == 8 - len(steps)
    same(dpo, whole, resumed)


def read(runs_dir: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in runs_dir.glob("store/dpo-*/training.jsonl")
        for line in path.read_text().rpartition("\n")[0].splitlines()
    ]


def test_a_training_whose_checkpoints_are_gone_begins_anew_and_ends_with_the_same_weights(
    dpo: Training, whole: StageOutcome, tmp_path: Path
) -> None:
    import tinker

    dpo.kill(tmp_path, "step.submitted:6")
    rest = tinker.RestClient(**dpo.engine.address)
    for line in lines_of(tmp_path, "training.jsonl"):
        if line["saved"]:
            rest.delete_checkpoint_from_tinker_path(line["saved"]["state"]).result()
    resumed = dpo.run(tmp_path)
    assert "the engine holds no checkpoint of this training any more: it begins anew" in resumed.log
    assert resumed.asked["optim_step"] == 8 and "forward_backward_custom" in resumed.asked
    same(dpo, whole, resumed)


def test_the_ledger_counts_what_a_killed_process_did(dpo: Training, whole: StageOutcome, tmp_path: Path) -> None:
    dpo.kill(tmp_path, "step.submitted:6")
    resumed = dpo.run(tmp_path)
    (ticket,) = (resumed.folder / "done").glob("*.json")
    usage = json.loads(ticket.read_text())["usage"]
    done_first = sum(line["saved"] is None for line in lines(resumed, "training.jsonl")) - 4
    assert usage["steps"] == done_first + 4
    for name in ("requests", "sampled_tokens"):  # the checks at step 0 were done once
        assert usage[name] == getattr(whole.usage, name)
    redone = usage["steps"] - whole.usage.steps
    assert redone == done_first + 4 - 8 >= 0
    assert (
        usage["trained_tokens"] >= whole.usage.trained_tokens and usage["forward_tokens"] >= whole.usage.forward_tokens
    )
