"""`charrun gc` and the checkpoints that engines keep: what a training may need, and what is final, stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from collected import state, store_folders, told
from conftest import SPECS, FinishedRun, RunningEngine, charrun
from run_copies import Call, caller

from charrun.engine.storage import folder_of, meta_text
from charrun.store.training import recorded

TRAIN = """
import json, sys
from pathlib import Path
from charrun.plugins.dpo import DpoStage
from charrun.testing import run_stage
order = json.load(sys.stdin)
run_stage(DpoStage, runs_dir=Path(order["runs_dir"]), **order["arguments"])
"""
PAIRS = [
    {"id": str(n), "prompt": f"What is {n} plus {n}?", "chosen": f"Arr, {2 * n}, matey!", "rejected": f"It is {2 * n}."}
    for n in range(4)
]
ARGUMENTS = {
    "given": {"pairs": PAIRS},
    "options": {"learning_rate": 5e-3, "batch_size": 1, "checkpoint_every": 1, "lora_rank": 8},
    "scale": {"name": "tiny", "pairs": 4, "samples_per_prompt": 1, "reflections": 10, "interactions": 1, "turns": 2},
    "models": {"teacher": "charrun/demo-teacher", "student": "charrun/demo-student-small"},
}
HOSTED = """
version: 1
name: hosted
seed: 7
engine: {{uses: tinker, with: {{base_url: "{url}"}}}}
characters: [pirate]
models: [{{teacher: charrun/demo-teacher, student: charrun/demo-student-small}}]
scales: [{{name: tiny, pairs: 4, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}}]
stages:
  - prompts
  - teacher
  - student
  - pairs
  - {{uses: dpo, with: {{learning_rate: 5e-3, batch_size: 1, checkpoint_every: 1, lora_rank: 8}}}}
"""


@pytest.fixture
def invoke(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture
def runs(smoke: FinishedRun, tmp_path: Path) -> Path:
    """A finished run, with the engine's checkpoints."""
    return Path(shutil.copytree(smoke.runs_dir, tmp_path / "runs"))


@pytest.fixture
def gc(invoke: Call, runs: Path) -> Call:
    return lambda *args: invoke("gc", "--runs-dir", runs, *args)


# -- checkpoints --------------------------------------------------------------------------------------------------


@dataclass
class Killed:
    """A training on the local engine that was killed."""

    runs: Path

    @property
    def folder(self) -> Path:
        return next((self.runs / "store").glob("dpo-*"))

    @property
    def saved(self) -> list[dict[str, Any]]:
        return [vars(saved) for _, saved in recorded(self.folder / "training.jsonl")]

    def lies(self, path: str) -> bool:
        return folder_of(self.runs / "engine", path).exists()

    @property
    def checkpoints(self) -> Mapping[str, dict[str, Any]]:
        """What every checkpoint says of itself, by path."""
        metas = [json.loads(path.read_text()) for path in (self.runs / "engine").glob("*/*/*/meta.json")]
        return {meta["path"]: meta["user_metadata"] for meta in metas}


def train(runs: Path, fault: str = "") -> Killed:
    process = subprocess.run(
        [sys.executable, "-c", TRAIN],
        input=json.dumps({"runs_dir": str(runs), "arguments": ARGUMENTS}),
        text=True,
        capture_output=True,
        env={**os.environ, "CHARRUN_FAULT": fault},
    )
    assert process.returncode == (-signal.SIGKILL if fault else 0), process.stderr
    return Killed(runs)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Killed when the engine had saved the third checkpoint, and the path was not recorded."""
    return train(tmp_path_factory.mktemp("interrupted"), "save.done:3")


@pytest.fixture(scope="module")
def at_the_end(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Killed when the engine had saved the final checkpoint, and nothing of it was recorded."""
    return train(tmp_path_factory.mktemp("ended"), "save.done:4")


def copied(killed: Killed, place: Path) -> Killed:
    return Killed(Path(shutil.copytree(killed.runs, place / "runs")))


def test_an_intermediate_checkpoint_that_a_training_may_go_on_from_is_kept(
    interrupted: Killed, tmp_path: Path, invoke: Call
) -> None:
    killed = copied(interrupted, tmp_path)
    recorded = [each["state"] for each in killed.saved]
    (unrecorded,) = set(killed.checkpoints) - set(recorded)
    assert len(recorded) == 2
    outcome = invoke("gc", "--dry-run", "--runs-dir", killed.runs)
    assert outcome.code == 0 and unrecorded in outcome.out and "no training has recorded it" in outcome.out
    assert not any(path in outcome.out for path in recorded)
    found = told(lambda *args: invoke("gc", "--runs-dir", killed.runs, *args), "--yes")
    assert found["deleted"] == [unrecorded] and not killed.lies(unrecorded)
    assert all(map(killed.lies, recorded))
    train(killed.runs)  # goes on, and deletes them itself when it is done
    assert not any(map(killed.lies, recorded))


def test_intermediate_checkpoints_go_with_their_store_folder(interrupted: Killed, tmp_path: Path, invoke: Call) -> None:
    killed = copied(interrupted, tmp_path)
    shutil.rmtree(killed.runs / "test")
    found = told(lambda *args: invoke("gc", "--runs-dir", killed.runs, *args), "--yes")
    assert not list((killed.runs / "engine").glob("*/*/*/meta.json")) and store_folders(killed.runs) == set()
    assert [each["why"] for each in found["checkpoints"]].count("no run refers to its store folder") == 2
    assert all(each["expires"] > time.time() for each in found["checkpoints"])


def test_intermediate_checkpoints_of_a_stage_that_is_done_go(interrupted: Killed, tmp_path: Path, invoke: Call) -> None:
    killed = copied(interrupted, tmp_path)
    kept = Path(shutil.copytree(killed.runs / "engine", tmp_path / "engine"))
    train(killed.runs)
    shutil.copytree(kept, killed.runs / "engine", dirs_exist_ok=True)  # as if deleting them had failed
    recorded = [each["state"] for each in killed.saved if not each["sampler"]]
    final = [each for each in killed.saved if each["sampler"]][-1]
    found = told(lambda *args: invoke("gc", "--runs-dir", killed.runs, *args), "--yes")
    why = {each["path"]: each["why"] for each in found["checkpoints"]}
    assert [why[path] for path in recorded if path in why].count("its training is done") >= 2
    assert {path for path, note in killed.checkpoints.items() if note} == {final["state"], final["sampler"]}


def test_a_final_checkpoint_is_never_touched(
    runs: Path, gc: Call, at_the_end: Killed, tmp_path: Path, invoke: Call
) -> None:
    finals = {path: note for path, note in Killed(runs).checkpoints.items() if note and note["charrun"] == "final"}
    assert len(finals) == 4
    assert told(gc, "--dry-run")["left_alone"] == []
    shutil.rmtree(runs / "pirate-smoke" / "1")
    before = state(runs / "engine")
    found = told(gc, "--yes")
    assert {each["path"] for each in found["left_alone"]} == set(finals)
    after = state(runs / "engine")
    copies = {path for path in before if "external_weights" in path}
    assert set(before) - set(after) == copies and copies
    assert gc("--yes").out.count("rm -r ") == 4  # there is nothing else left
    assert state(runs / "engine") == after
    shutil.rmtree(runs / "store")
    assert gc("--yes").code == 0 and state(runs / "engine") == after

    killed = copied(at_the_end, tmp_path / "orphans")
    named = {each["state"] for each in killed.saved if killed.lies(each["state"])}
    orphans = {path for path, note in killed.checkpoints.items() if note["charrun"] == "final"}
    assert len(orphans) == len(named) == 2 and not orphans & named
    outcome = invoke("gc", "--yes", "--runs-dir", killed.runs)
    assert outcome.code == 0 and all(
        f"rm -r {folder_of(killed.runs / 'engine', path)}" in outcome.out for path in orphans
    )
    assert all(map(killed.lies, orphans | named))


@pytest.mark.slow
def test_a_final_checkpoint_that_another_has_replaced_is_named(runs: Path, gc: Call) -> None:
    """It stays, and may cost something, until a person deletes it; what the export tells of it is named still."""
    old = {path for path, note in Killed(runs).checkpoints.items() if note and note["stage"] == "sft"}
    forced = charrun(SPECS / "pirate-smoke.yaml", "--runs-dir", runs, "--force", "sft", "--until", "sft")
    assert forced.code == 0, forced.text
    left = {each["path"] for each in told(gc, "--dry-run")["left_alone"]}
    assert left == {path for path in old if "sampler_weights" in path} and left


def test_checkpoints_of_other_programs_are_not_mentioned(runs: Path, gc: Call, demo_engine: RunningEngine) -> None:
    (place,) = (runs / "engine").glob("*_train_0/weights/dpo")
    for name, note in (("other", None), ("theirs", {"kind": "intermediate"})):
        other = Path(shutil.copytree(place, place.with_name(name)))
        meta = json.loads((other / "meta.json").read_text())
        (other / "meta.json").write_text(meta_text({**meta, "user_metadata": note}))
    (copy,) = (runs / "engine").glob("*/external_weights/*")
    shutil.copytree(copy, copy.with_name("charrun-export"))
    shutil.rmtree(runs / "pirate-smoke")
    text = gc("--yes").out
    assert "/other" not in text and "/theirs" not in text and "charrun-export\n" not in text
    assert (place.with_name("other")).exists() and (place.with_name("theirs")).exists()
    assert copy.with_name("charrun-export").exists() and not copy.exists()


def test_of_a_service_only_what_this_store_has_recorded_is_deleted(
    tmp_path: Path, demo_engine: RunningEngine, invoke: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tinker

    spec, runs = tmp_path / "spec.yaml", tmp_path / "runs"
    spec.write_text(HOSTED.format(url=demo_engine.base_url))
    env = {"TINKER_API_KEY": demo_engine.api_key, "CHARRUN_FAULT": "save.done:3"}
    outcome = charrun(spec, "--runs-dir", runs, "--yes", env=env)
    assert outcome.code == -signal.SIGKILL, outcome.text
    recorded = {each["state"] for each in Killed(runs).saved}
    assert len(recorded) == 2

    def held() -> set[str]:
        rest = tinker.RestClient(**demo_engine.address)
        return {each.tinker_path for each in rest.list_user_checkpoints(limit=1000).result().checkpoints}

    before = held()
    assert recorded < before
    blind = invoke("gc", "--dry-run", "--runs-dir", runs)
    assert "note: the engine tinker was not looked at: no usable Tinker credentials" in blind.out
    monkeypatch.setenv("TINKER_API_KEY", demo_engine.api_key)
    kept = told(lambda *args: invoke("gc", "--runs-dir", runs, *args), "--yes")
    assert kept["checkpoints"] == [] and held() == before
    (unrecorded,) = [
        each for each in kept["left_alone"] if each["note"].get("run") == "hosted/1" and each["path"] not in recorded
    ]
    assert unrecorded["command"] == "" and unrecorded["expires"] > time.time()
    for path in (runs / "hosted" / "1").glob("cell-*.json"):
        path.unlink()
    journal = runs / "hosted" / "1" / "journal.jsonl"
    journal.write_text(journal.read_text().splitlines(keepends=True)[0])  # it refers to nothing any more
    found = told(lambda *args: invoke("gc", "--runs-dir", runs, *args), "--yes")
    assert {each["path"] for each in found["checkpoints"]} == recorded
    assert held() == before - recorded
