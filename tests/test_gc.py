"""`charrun gc`: what no run refers to goes, and nothing else; the contract of `charrun.store.garbage`."""

from __future__ import annotations

import hashlib
import json
import os
import pty
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
from conftest import SPECS, FinishedRun, RunningEngine, charrun
from run_copies import Call, caller, cut_before, events_of, write_events

from charrun.engine.storage import folder_of, meta_text
from charrun.errors import EnvironmentProblem
from charrun.pipeline.garbage import collect, look
from charrun.plugin_manager import load_registry
from charrun.store.files import write_json
from charrun.store.garbage import references
from charrun.store.run import RunFolder
from charrun.store.training import recorded

HOLD = """
import sys, pathlib
from charrun.store.lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""
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


def told(gc: Call, *args: str) -> dict[str, Any]:
    outcome = gc("--json", *args)
    assert outcome.code == 0, outcome.text
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def store_folders(runs: Path) -> set[str]:
    return {path.name for path in (runs / "store").iterdir()}


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its content and the time of its last change."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


def second_run(runs: Path, *stages: str) -> Path:
    """Another run, which refers to what some stages of the first one made."""
    folder = RunFolder.open(runs, "pirate-smoke", {"seed": 8})
    for event in events_of(runs / "pirate-smoke" / "1"):
        if event.get("stage") in stages:
            fields = {k: v for k, v in event.items() if k not in ("v", "seq", "time", "event", "sum")}
            folder.record(event["event"], **fields)
    return folder.folder


# -- the store ----------------------------------------------------------------------------------------------------


def test_a_store_folder_that_a_run_refers_to_is_never_garbage(runs: Path, gc: Call) -> None:
    everything = store_folders(runs)
    second = second_run(runs, "prompts", "student", "evaluate")
    shared = {event["stage"]: event["folder"] for event in events_of(second) if event.get("folder")}
    found = told(gc, "--dry-run")
    assert found["garbage"] == [] and {Path(each["folder"]).name for each in found["kept"]} == everything
    counts = {Path(each["folder"]).name: each["runs"] for each in found["kept"]}
    assert counts[shared["student"]] == ["pirate-smoke/1", "pirate-smoke/2"]
    assert {name for name in everything if name.startswith("answers-")} <= {
        name for name, used in counts.items() if len(used) == 2
    }
    outcome = gc("--dry-run")
    assert f"{len(everything)} folders are kept" in outcome.out and "used by 2 runs" in outcome.out
    assert f"{shared['student']} by 2: pirate-smoke/1, pirate-smoke/2" in outcome.out
    shutil.rmtree(runs / "pirate-smoke" / "1")
    kept = {*shared.values(), *(name for name in everything if name.startswith("answers-"))}
    found = told(gc, "--yes")
    assert {Path(path).name for path in found["deleted"] if not path.startswith("tinker://")} == everything - kept
    assert store_folders(runs) == kept
    assert found["deleted_size"] > 0 and found["deleted_size"] == found["size"]


@pytest.mark.parametrize("stage", ["teacher", "dpo", "evaluate"])
def test_a_run_that_is_not_finished_keeps_its_folders(stage: str, runs: Path, gc: Call) -> None:
    cut_before(runs / "pirate-smoke" / "1", stage)
    named = references(runs)
    (begun,) = [name for name in store_folders(runs) if name.startswith(f"{stage}-")]
    assert begun in named
    told(gc, "--yes")
    assert store_folders(runs) == set(named)


def test_a_run_that_goes_on_is_told(runs: Path, gc: Call) -> None:
    folder = runs / "pirate-smoke" / "1"
    events = events_of(folder)
    write_events(folder, [{**events[0], "pid": os.getpid(), "time": time.time()}, *events[1:4]])
    outcome = gc("--dry-run")
    assert "note: pirate-smoke/1 goes on; what it has not come to yet counts as unused" in outcome.out
    assert told(gc, "--dry-run")["running"] == ["pirate-smoke/1"]


def test_a_folder_that_only_a_snapshot_names_is_kept(runs: Path, gc: Call) -> None:
    """A disk may lose the journal's end."""
    folder = runs / "pirate-smoke" / "1"
    events, everything = events_of(folder), store_folders(runs)
    write_events(folder, events[: len(events) // 2])
    assert len(references(runs)) > len({each["folder"] for each in events[: len(events) // 2] if each.get("folder")})
    told(gc, "--yes")
    assert {name for name in everything if not name.startswith("answers-")} <= store_folders(runs)


@pytest.mark.parametrize("harm", ["line", "missing", "unreadable"])
def test_a_run_whose_journal_cannot_be_read_keeps_everything(harm: str, runs: Path, gc: Call) -> None:
    second = second_run(runs, "prompts")
    write_json(second / "run.json", {"run": "pirate-smoke/2"})
    (runs / "store" / "prompts-0123456789abcdef").mkdir()
    journal = second / "journal.jsonl"
    text = journal.read_bytes()
    journal.unlink()
    if harm == "line":
        journal.write_bytes(text.replace(b"prompts", b"promptz", 1))
    elif harm == "unreadable":
        journal.mkdir()
    before = state(runs)
    for args in (["--yes"], ["--dry-run"], ["--yes", "--json"]):
        outcome = gc(*args)
        assert outcome.code == 5 and "nothing is deleted" in outcome.err
        assert str(journal) in outcome.err
    assert state(runs) == before


def test_a_folder_of_somebody_elses_is_not_mentioned(runs: Path, gc: Call) -> None:
    for name in ("notes", "my-model", ".hidden"):
        (runs / "store" / name).mkdir()
    (runs / "store" / "list.txt").write_text("mine")
    (runs / "pirate-smoke" / "7").mkdir()  # no run: nothing of one is in it
    found = told(gc, "--yes")
    assert found["garbage"] == [] and {"notes", "my-model", ".hidden", "list.txt"} <= store_folders(runs)


def test_a_dry_run_deletes_nothing(runs: Path, gc: Call) -> None:
    shutil.rmtree(runs / "pirate-smoke" / "1")
    before = state(runs)
    outcome = gc("--dry-run")
    assert outcome.code == 0 and outcome.out.count("no run refers to it") == len(store_folders(runs))
    assert "A dry run: nothing was deleted." in outcome.out
    assert told(gc, "--dry-run")["dry_run"]
    assert state(runs) == before


def test_a_folder_that_another_process_writes_is_left_alone(
    runs: Path, gc: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charrun.pipeline.garbage._AT_ONCE", 5)
    shutil.rmtree(runs / "pirate-smoke" / "1")
    (written,) = (runs / "store").glob("teacher-*")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(written)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == "held\n"
        found = told(gc, "--yes")
        assert store_folders(runs) == {written.name}
        (left,) = found["not_deleted"]
        assert left["path"] == str(written) and f"process {writer.pid}" in left["why"]
        writer.stdin.close()
    gc("--yes")
    assert store_folders(runs) == set()


def test_what_became_used_between_the_list_and_the_deletion_is_left_alone(runs: Path) -> None:
    first = runs / "pirate-smoke" / "1"
    parked = first.rename(runs.parent / "parked")
    shown = look(runs, load_registry(third_party=False))
    assert {each.path.name for each in shown.store.garbage} == store_folders(runs)
    parked.rename(first)
    shutil.copytree(first, parked)
    write_events(first, [event for event in events_of(first) if event.get("stage") != "export"])
    for path in first.glob("cell-*.json"):
        path.unlink()
    done = collect(shown)
    assert [Path(path).name.partition("-")[0] for path in done.deleted if "tinker:" not in path] == ["export"]
    assert {reason for _, reason in done.left} == {"it is needed by now"}
    (first / "journal.jsonl").write_bytes(b"not a line\n")
    with pytest.raises(EnvironmentProblem, match="nothing is deleted"):
        collect(shown)


def test_a_collection_that_was_killed_leaves_nothing_that_looks_whole(runs: Path, gc: Call) -> None:
    shutil.rmtree(runs / "pirate-smoke" / "1")
    before = {name: state(runs / "store" / name) for name in store_folders(runs)}
    killed = charrun("gc", "--yes", "--runs-dir", runs, env={"CHARRUN_FAULT": "gc.moved:3"})
    assert killed.code == -signal.SIGKILL
    left = store_folders(runs)
    (trash,) = [name for name in left if name.startswith(".trash-")]
    assert len(before) - len(left - {trash}) == 3
    for name in left - {trash}:
        whole = {path: sha for path, (sha, _) in state(runs / "store" / name).items() if path != ".holder"}
        assert whole == {path: sha for path, (sha, _) in before[name].items() if path != ".holder"}
    found = told(gc, "--dry-run")
    assert str(runs / "store" / trash) in [each["path"] for each in found["garbage"] if each["kind"] == "half deleted"]
    assert gc("--yes").code == 0
    assert store_folders(runs) == set()


def test_what_was_set_aside_or_left_over_goes(runs: Path, gc: Call, invoke: Call) -> None:
    forced = invoke(
        SPECS / "pirate-smoke.yaml", "--runs-dir", runs, "--plain", "--until", "prompts", "--force", "prompts"
    )
    assert forced.code == 0, forced.text
    (folder,) = (runs / "store").glob("prompts-*")
    aside = list(folder.glob("*.aside-1"))
    assert [path.name for path in aside] == ["done.aside-1"]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead = [folder / f".tmp-{gone.pid}-a.json", runs / "pirate-smoke" / "1" / f".tmp-{gone.pid}-report.md"]
    living = [folder / f".tmp-{os.getpid()}-b.json", folder / ".tmp-adapter.safetensors"]
    old = folder / "done" / f".tmp-{os.getpid()}-c.json"
    for path in (*dead, *living, old):
        path.write_text("half")
    os.utime(old, (time.time() - 2 * 86400,) * 2)
    found = told(gc, "--yes")
    gone_files = [path for path in found["deleted"] if not path.startswith("tinker://")]
    assert sorted(gone_files) == sorted(map(str, [*aside, *dead, old]))
    assert all(path.exists() for path in living) and not any(path.exists() for path in (*aside, *dead, old))
    assert {each["kind"] for each in found["garbage"]} == {"set aside", "left over"}


def test_only_what_has_not_changed_for_so_long_goes(runs: Path, gc: Call) -> None:
    shutil.rmtree(runs / "pirate-smoke" / "1")
    (old,) = (runs / "store").glob("pairs-*")
    for path in old.rglob("*"):
        os.utime(path, (time.time() - 10 * 86400,) * 2)
    found = told(gc, "--yes", "--older-than", "5")
    assert found["deleted"] == [str(old)]


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
    (runs / "hosted" / "1" / "journal.jsonl").unlink()  # a run that refers to nothing, on the same engine
    found = told(lambda *args: invoke("gc", "--runs-dir", runs, *args), "--yes")
    assert {each["path"] for each in found["checkpoints"]} == recorded
    assert held() == before - recorded


# -- the command --------------------------------------------------------------------------------------------------


def test_a_deletion_is_asked_for_once(runs: Path) -> None:
    shutil.rmtree(runs / "pirate-smoke" / "1")
    before = state(runs)
    silent = charrun("gc", "--runs-dir", runs)
    assert silent.code == 5 and "add --yes, or --dry-run" in silent.err
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "charrun", "gc", "--runs-dir", str(runs)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.write(ours, b"n\n")
    out, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 130 and out.count("Delete it?") == 1 and "no run refers to it" in out
    assert state(runs) == before


def test_where_there_are_no_runs_nothing_is_done(tmp_path: Path, invoke: Call) -> None:
    outcome = invoke("gc", "--runs-dir", tmp_path / "nowhere")
    assert outcome.code == 0 and "Nothing is to be deleted." in outcome.out
    assert not (tmp_path / "nowhere").exists()
