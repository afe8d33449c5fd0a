"""Other processes, a full disk, a clock that jumps, a service that wants to be paid: told in one sentence each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import RunningEngine, charrun
from faults.plan import FOR_EVER, SAMPLE, Fault
from faults.proxy import Proxy
from small_runs import OFFLINE, SAMPLED, Until, ended, events, key, names, published, start, stored

# -- other processes and the machine ------------------------------------------------------------------------------


def test_a_second_runner_waits_for_the_first_one_if_it_is_told_to(offline: Path, tmp_path: Path, until: Until) -> None:
    offline.write_text(offline.read_text().replace("[first,", "[{uses: first, with: {waits: ./go}},"))
    runs, common = tmp_path / "runs", (offline, "--runs-dir", tmp_path / "runs", "--trust", "--plain")
    first = start(*common)
    until(lambda: "stage_started" in names(runs, "offline/1") or first.poll() is not None)
    refused = charrun(*common)
    assert refused.code == 7
    assert f"is being written by process {first.pid} on {os.uname().nodename}: __main__.py {offline}" in refused.err
    assert "or add --wait" in refused.err
    waiting = start(*common, "--wait")
    until(lambda: "; waiting for it" in (runs / "offline/1/journal.jsonl").read_text() or waiting.poll() is not None)
    (tmp_path / "go").touch()
    assert ended(first).code == 0
    second = ended(waiting)
    assert second.code == 0 and "first        3 numbers (already done)" in second.out
    assert names(runs, "offline/1").count("stage_started") == 2  # each stage once, by the first one


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_a_run_in_one_sentence_and_the_same_command_goes_on(offline: Path, tmp_path: Path) -> None:
    offline.write_text(offline.read_text().replace("[first,", "[{uses: first, with: {rows: 3000}},"))
    with mounted(tmp_path / "small", "-o", "size=2m") as runs:
        full = charrun(offline, "--runs-dir", runs, "--trust")
        assert full.code == 5 and "Traceback" not in full.text
        assert "No space left on device" in full.err and "make room and run the same command again" in full.err
        assert [*runs.rglob("numbers-*"), *runs.rglob(".tmp-*")] == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(runs)], check=True)
        assert charrun(offline, "--runs-dir", runs, "--trust").code == 0


def test_a_disk_that_fills_while_rows_are_stored_loses_nothing_that_is_stored(
    sampled: Path, tmp_path: Path, demo_engine: RunningEngine, until: Until
) -> None:
    """A disk that is full before is told of before anything is paid; this one fills once rows come."""
    env = key(demo_engine, demo_engine.base_url)
    with mounted(tmp_path / "small", "-o", "size=256m") as runs:
        sampled.write_text(SAMPLED.replace("pairs: 6", "pairs: 40"))
        running = start(sampled, "--runs-dir", runs, "--yes", env=env)
        until(lambda: stored(runs) > 0 or running.poll() is not None)
        filler = runs / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(runs).free - (16 << 10))
        full = ended(running)
        assert full.code == 5 and "Traceback" not in full.text, full.text
        assert "No space left on device" in full.err and "make room" in full.err
        kept = stored(runs)
        refused = charrun(sampled, "--runs-dir", runs, "--yes", env=env)
        assert refused.code == 5 and "are free for" in refused.err and "nothing was begun" in refused.err
        assert stored(runs) == kept
        filler.unlink()
        done = charrun(sampled, "--runs-dir", runs, "--yes", env=env)
        assert done.code == 0, done.text
        assert stored(runs) >= 80 > kept


@pytest.mark.slow
def test_a_disk_that_fills_while_the_engine_saves_is_told_as_one(sampled: Path, tmp_path: Path) -> None:
    sampled.write_text(SAMPLED.replace("pairs]", "pairs, {uses: dpo, with: {batch_size: 2}}]"))
    with mounted(tmp_path / "small", "-o", "size=600k") as runs:
        full = charrun(sampled, "--runs-dir", runs)
        assert full.code == 5 and "Traceback" not in full.text, full.text
        assert full.err.endswith(
            "error: the engine cannot write: No space left on device\n"
            "  what is recorded stays; make room and run the same command again\n"
        )
        subprocess.run(["mount", "-o", "remount,size=40m", str(runs)], check=True)
        done = charrun(sampled, "--runs-dir", runs)
        assert done.code == 0, done.text


def test_a_folder_that_cannot_be_written_ends_a_run_in_one_sentence(offline: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "size=20m") as runs:
        subprocess.run(["mount", "-o", "remount,ro", str(runs)], check=True)
        refused = charrun(offline, "--runs-dir", runs, "--trust")
        assert refused.code == 5 and "Traceback" not in refused.text
        assert "Read-only file system" in refused.err and "--runs-dir" in refused.err
        subprocess.run(["mount", "-o", "remount,rw", str(runs)], check=True)
        assert charrun(offline, "--runs-dir", runs, "--trust", "--until", "first").code == 0
        subprocess.run(["mount", "-o", "remount,ro", str(runs)], check=True)
        midway = charrun(offline, "--runs-dir", runs, "--trust")
        assert midway.code == 5 and "Read-only file system" in midway.err and "Traceback" not in midway.text
        subprocess.run(["mount", "-o", "remount,rw", str(runs)], check=True)
        assert charrun(offline, "--runs-dir", runs, "--trust").code == 0


JUMPING = """
import time
_time, _calls = time.time, [0]
def jumping():
    _calls[0] += 1
    return _time() + (-86400.0, 0.0, 40 * 86400.0)[_calls[0] % 3]
time.time = jumping
"""


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(sampled: Path, tmp_path: Path, demo_engine: RunningEngine) -> None:
    sampled.write_text(SAMPLED.replace("pairs]", "pairs, {uses: dpo, with: {batch_size: 2, checkpoint_every: 1}}]"))
    env = key(demo_engine, demo_engine.base_url)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(JUMPING)
    jumping = {**env, "PYTHONPATH": str(tmp_path / "site")}
    assert charrun(sampled, "--runs-dir", tmp_path / "steady", "--yes", env=env).code == 0
    command = (sampled, "--runs-dir", tmp_path / "jumping", "--yes")
    assert charrun(*command, env={**jumping, "CHARRUN_FAULT": "step.done:2"}).code == -signal.SIGKILL
    outcome = charrun(*command, env=jumping)
    assert outcome.code == 0, outcome.text
    assert [event["seq"] for event in events(tmp_path / "jumping", "tiny/1")] == list(
        range(len(events(tmp_path / "jumping", "tiny/1")))
    )
    rows = [{n: r for n, r in published(tmp_path / d).items() if "dpo-" not in n} for d in ("steady", "jumping")]
    assert rows[0] == rows[1]
    (steady,), (jumped,) = ((tmp_path / d / "store").glob("dpo-*/steps.jsonl") for d in ("steady", "jumping"))
    assert steady.read_bytes() == jumped.read_bytes()


def test_work_that_cells_share_fails_once(offline: Path, tmp_path: Path) -> None:
    text = OFFLINE.format(characters="pirate, gardener").replace("[first,", "[{uses: first, with: {fails: ./bad}},")
    offline.write_text(text)
    (tmp_path / "bad").touch()
    failed = charrun(offline, "--runs-dir", tmp_path / "runs", "--trust", "--plain")
    assert failed.code == 1 and "2 of 2 cells failed" in failed.err and failed.err.count("it was told to fail") == 1
    assert names(tmp_path / "runs", "offline/1").count("stage_started") == 1
    (tmp_path / "bad").unlink()
    assert charrun(offline, "--runs-dir", tmp_path / "runs", "--trust").code == 0


def test_a_report_is_written_where_it_tells_more_than_the_one_that_is_there(offline: Path, tmp_path: Path) -> None:
    command, report = (offline, "--runs-dir", tmp_path / "runs", "--trust"), tmp_path / "runs/offline/1/report.md"
    assert charrun(*command, "--only", "first").code == 0
    assert report.read_text().startswith("# offline 1 (a part of it)\n") and "second" not in report.read_text()
    assert charrun(*command).code == 0
    whole, written = report.read_text(), report.stat().st_mtime_ns
    assert whole.startswith("# offline 1\n") and "| second | 1 sum |" in whole
    assert charrun(*command).code == 0  # nothing was made
    assert report.stat().st_mtime_ns == written
    assert charrun(*command, "--force", "second").code == 0
    assert report.stat().st_mtime_ns > written


def test_a_run_that_stops_leaves_a_report_as_far_as_it_went(offline: Path, tmp_path: Path) -> None:
    text = offline.read_text()
    offline.write_text(text.replace("[first,", "[first, {uses: first, id: again, with: {fails: ./bad}},"))
    command, report = (offline, "--runs-dir", tmp_path / "runs", "--trust"), tmp_path / "runs/offline/1/report.md"
    (tmp_path / "bad").touch()
    for _ in range(2):
        assert charrun(*command).code == 1
        told = report.read_text()
        assert told.startswith("# offline 1\n\nThis run is not finished: it was told to fail. What follows")
        assert "| first | 3 numbers |" in told and "| again | 3 numbers |" not in told and "| second |" not in told
    (tmp_path / "bad").unlink()
    assert charrun(*command).code == 0
    whole = report.read_text()
    assert "is not finished" not in whole and "| second | 1 sum |" in whole
    (tmp_path / "bad").touch()
    assert charrun(*command, "--only", "again", "--force", "again").code == 1
    assert report.read_text() == whole  # a part of it


def test_a_part_of_a_run_does_not_hide_the_whole(offline: Path, tmp_path: Path) -> None:
    command = (offline, "--runs-dir", tmp_path / "runs", "--trust")
    assert charrun(*command).code == 0
    report = (tmp_path / "runs/offline/1/report.md").read_text()
    assert charrun(*command, "--only", "first").code == 0
    assert (tmp_path / "runs/offline/1/report.md").read_text() == report
    snapshot = json.loads((tmp_path / "runs/offline/1/run.json").read_text())
    assert [stage["rows"] for stage in snapshot["cells"][0]["stages"]] == [{"numbers": 3}, {"sum": 1}]


def test_a_service_that_wants_to_be_paid_ends_the_run_in_one_sentence(
    sampled: Path, tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine
) -> None:
    env, runs = key(demo_engine, proxy.base_url), tmp_path / "runs"
    unpaid = '{"detail": "no credit is left"}'
    proxy.begin([Fault(SAMPLE, "status", nth=4, times=FOR_EVER, status=402, body=unpaid)])
    outcome = charrun(sampled, "--runs-dir", runs, "--yes", env=env)
    assert outcome.code == 5 and "Traceback" not in outcome.text
    assert "error: the service wants to be paid: " in outcome.err and "no credit is left" in outcome.err
    assert "add credit, then run the same command again" in outcome.err
    assert stored(runs) == 3  # what was answered before
    proxy.begin()
    assert charrun(sampled, "--runs-dir", runs, "--yes", env=env).code == 0
