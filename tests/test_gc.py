"""`charrun gc`: what no run refers to goes, and nothing else; the contract of `charrun.store.garbage`."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collected import second_run, state, store_folders, told
from conftest import SPECS, FinishedRun, charrun
from run_copies import Call, caller, cut_before, events_of, write_events

from charrun.errors import EnvironmentProblem
from charrun.pipeline.garbage import collect, look
from charrun.plugin_manager import load_registry
from charrun.store.files import write_json
from charrun.store.garbage import references

HOLD = """
import sys, pathlib
from charrun.store.lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
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


@pytest.mark.parametrize("harm", ["line", "missing", "unreadable", "empty", "cut"])
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
    elif harm == "empty":
        journal.touch()
    elif harm == "cut":
        journal.write_bytes(text[:-9])
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
