"""A run's own folder and the locks of the store: the contracts, sentence by sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FinishedRun

from charrun.errors import EnvironmentProblem, Locked
from charrun.store.items import RECORDS
from charrun.store.journal import read_journal
from charrun.store.lock import FolderLock
from charrun.store.run import RunFolder
from charrun.store.runs import read_run
from charrun.store.snapshot import write_snapshot

HOLD = """
import sys, pathlib
from charrun.store.lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""
OPEN = """
import sys, pathlib
from charrun.store.run import RunFolder
runs, go, seed = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
while not go.exists():
    pass
print(RunFolder.open(runs, "demo", {"seed": seed}).folder.name)
"""
RECORD = """
import sys, pathlib
from charrun.store.run import RunFolder
folder = RunFolder(pathlib.Path(sys.argv[1]))
for n in range(200):
    folder.record("message", text=sys.argv[2], n=n)
"""


def opened(runs_dir: Path, **spec: object) -> RunFolder:
    return RunFolder.open(runs_dir, "demo", spec or {"seed": 7})


def numbers(folder: RunFolder) -> list[tuple[int, str]]:
    return [(event["seq"], event["event"]) for event in folder.events()]


# -- run ----------------------------------------------------------------------------------------------------------


def test_the_journal_only_grows_one_event_a_line_appended_by_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(tmp_path)
    seen, journal = b"", folder.folder / "journal.jsonl"
    writes: list[int] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: (writes.append(len(data)), write(handle, data))[1])
    for event in ("run_started", "message", "run_finished"):
        folder.record(event, text="a\nb")
        assert journal.read_bytes().startswith(seen) and journal.read_bytes().count(b"\n") == seen.count(b"\n") + 1
        seen = journal.read_bytes()
    assert len(writes) == 3 and sum(writes) == len(seen)
    assert {(event["v"], "time" in event) for event in folder.events()} == {(2, True)}


def test_events_are_numbered_without_gaps_also_where_two_processes_write(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.record("run_started")
    writers = [subprocess.Popen([sys.executable, "-c", RECORD, folder.folder, name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    folder.record("run_finished")
    events = folder.events()
    assert [event["seq"] for event in events] == list(range(402))
    for name in ("a", "b"):
        assert [event["n"] for event in events if event.get("text") == name] == list(range(200))


def test_the_end_of_a_stage_a_checkpoint_and_the_end_of_a_run_are_on_the_disk_before_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = opened(tmp_path)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    folder.record("message")
    synced.clear()
    for event in ("message", "check"):
        folder.record(event)
    assert synced == []
    for event in ("stage_finished", "stage_failed", "checkpoint_saved", "run_finished", "run_failed"):
        folder.record(event)
    assert synced == [str(folder.folder / "journal.jsonl")] * 5


def test_the_journal_names_a_store_folder_on_the_disk_before_rows_are_stored_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smoke: FinishedRun
) -> None:
    folder = opened(tmp_path)
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    for event in ("stage_started", "folder_used"):
        folder.record(event)
    assert synced.count(str(folder.folder / "journal.jsonl")) == 2
    told = [event for event in smoke.events if event["event"] in ("stage_started", "folder_used")]
    stored = {path.parent.name for name in RECORDS for path in smoke.runs_dir.glob(f"store/*/{name}")}
    assert stored and stored <= {event.get("folder") or event["shared"] for event in told}


def test_a_torn_last_event_is_dropped_before_the_next_one_is_appended(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.record("run_started")
    with (folder.folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "stage_st')
    again = opened(tmp_path)
    again.record("run_finished")
    assert numbers(again) == [(0, "run_started"), (1, "run_finished")]


def test_a_damaged_event_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    for event in ("run_started", "message", "run_finished"):
        folder.record(event, text="text")
    path = folder.folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"text", b"tixt") + lines[2])
    read = read_journal(path)
    assert [event["event"] for event in read.events] == ["run_started", "run_finished"]
    assert read.damage == "journal.jsonl:2 is damaged"


def test_run_json_can_be_deleted_and_is_rebuilt_from_the_journal(tmp_path: Path) -> None:
    folder = opened(tmp_path, seed=7, stages=[{"id": "prompts", "uses": "prompts"}])
    folder.record("run_started", engine="local", cells=["c"])
    outputs = {"prompts": {"file": "prompts-x.jsonl", "rows": 3, "sha256": "x"}}
    place = {"cell": "c", "stage": "prompts"}
    folder.record("stage_started", **place, folder="prompts-1")
    folder.record("stage_finished", **place, outputs=outputs, usage={"requests": 2}, seconds=1.5, cached=False)
    folder.record("run_finished")
    write_snapshot(folder.folder)
    path = folder.folder / "run.json"
    before = path.read_bytes()
    path.unlink()
    assert read_run(folder.folder).status == "finished"  # nothing reads it back
    write_snapshot(folder.folder)
    assert path.read_bytes() == before
    (stage,) = json.loads(before)["cells"][0]["stages"]
    assert (stage["state"], stage["folder"], stage["rows"]) == ("done", "store/prompts-1", {"prompts": 3})
    assert stage["usage"] == {"requests": 2}


def test_the_runs_number_grows_only_when_the_resolved_spec_changes_its_limits_aside(tmp_path: Path) -> None:
    first = opened(tmp_path, seed=7)
    assert first.folder.name == "1"
    assert opened(tmp_path, seed=7).folder == first.folder
    assert opened(tmp_path, seed=8).folder.name == "2"
    assert opened(tmp_path, seed=7).folder == first.folder
    limited = opened(tmp_path, seed=7, budget={"usd": 5.7}, prices={"m": {"prefill": 1.0}})
    assert limited.folder == first.folder and limited.spec_digest == first.spec_digest
    assert json.loads((first.folder / "spec.json").read_text())["budget"] == {"usd": 5.7}  # what it goes on with


def test_runs_that_begin_at_once_share_a_number_only_if_they_are_of_one_spec(tmp_path: Path) -> None:
    go = tmp_path / "go"
    words = [(seed, copy) for seed in range(6) for copy in range(2)]
    command = [sys.executable, "-c", OPEN, str(tmp_path / "runs"), str(go)]
    begun = [
        subprocess.Popen([*command, str(seed)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        for seed, _ in words
    ]
    for process in begun:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    go.touch()
    found = [(seed, process.communicate()[0].strip()) for (seed, _), process in zip(words, begun, strict=True)]
    assert {number for _, number in found} == set("123456")
    assert len(set(found)) == 6  # each seed has one
    assert {path.name for path in (tmp_path / "runs/demo").iterdir()} == set("123456")


def test_a_folder_whose_name_is_no_number_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo" / "²").mkdir(parents=True)
    assert opened(tmp_path).folder.name == "1"


def test_a_damaged_frozen_spec_is_named_and_written_anew(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.record("run_started", spec=first.spec_digest)
    path = first.folder / "spec.json"
    whole = path.read_bytes()
    for damaged in (whole[:-4], whole.replace(b"7", b"8", 1), b""):
        path.write_bytes(damaged)
        again = opened(tmp_path)
        assert again.folder == first.folder and path.read_bytes() == whole
        assert again.mended == [f"{path} was missing or damaged and is written anew"]
    assert opened(tmp_path).mended == []


# -- lock ---------------------------------------------------------------------------------------------------------


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_one_process_writes_a_folder_at_a_time(tmp_path: Path) -> None:
    process = holder(tmp_path)
    with pytest.raises(Locked) as caught:
        FolderLock(tmp_path).acquire()
    assert caught.value.exit_code == 7
    process.communicate("")
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()


def test_a_second_writer_is_told_who_holds_it(tmp_path: Path) -> None:
    process = holder(tmp_path)
    who = rf"is being written by process {process.pid} on {os.uname().nodename}: -c"
    with pytest.raises(Locked, match=who) as told:
        FolderLock(tmp_path).acquire()
    assert "--wait" in told.value.hint
    (tmp_path / ".holder").unlink()
    with pytest.raises(Locked, match="is being written by another process"):
        FolderLock(tmp_path).acquire()
    process.communicate("")


def test_a_dead_holder_blocks_nobody(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    process.wait()
    FolderLock(tmp_path).acquire()


def test_a_lock_that_nobody_holds_needs_no_cleaning_up(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".holder").write_text("process 1 on elsewhere: charrun x.yaml")
    lock = FolderLock(tmp_path)
    lock.acquire()
    lock.release()


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*args: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(EnvironmentProblem, match="cannot lock") as caught:
        FolderLock(tmp_path).acquire()
    assert "--runs-dir" in caught.value.hint
