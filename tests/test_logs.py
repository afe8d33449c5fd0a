"""`charrun logs`: the journal in file order, and a real run followed to its violent end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun
from run_copies import Call, caller, copy_of, states, write_events

from charrun.store.journal import last_time, read_journal

PATIENCE_SECONDS = 240


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line."""
    return caller(capsys, monkeypatch)


@pytest.fixture
def home(smoke: FinishedRun, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be damaged."""
    return copy_of(smoke, tmp_path)


def test_logs_are_the_journals_events_in_file_order(smoke: FinishedRun, call: Call) -> None:
    lines = call("logs", "--runs-dir", smoke.runs_dir).out.splitlines()
    assert len(lines) == len(smoke.events)
    assert "run started on engine local with 2 stand-ins" in lines[0] and lines[-1].endswith("run finished")
    assert any(line.endswith("dpo: finished: 1 checkpoint in " + line.split(" in ")[-1]) for line in lines)
    assert any("dpo: check holds: DPO loss at step 0 minus ln 2 is" in line for line in lines)


def test_logs_of_one_stage_and_as_json(smoke: FinishedRun, call: Call) -> None:
    lines = call("logs", "pirate-smoke", "--stage", "dpo", "--json", "--runs-dir", smoke.runs_dir).out.splitlines()
    assert [json.loads(line) for line in lines] == [e for e in smoke.events if e.get("stage") == "dpo"]
    shown = call("logs", "--stage", "dop", "--runs-dir", smoke.runs_dir)
    assert shown.code == 2 and "has no stage 'dop'" in shown.err


def test_an_event_that_nobody_knows_is_shown_with_its_fields(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    write_events(folder, [{"event": "comet_seen", "time": 0.0, "stage": "dpo", "tail": "\x1b[2Jlong"}])
    assert call("logs", "--runs-dir", home).out.rstrip().endswith("dpo: comet seen: tail long")


def test_logs_show_the_engines_own_log(home: Path, call: Call) -> None:
    log = home / "pirate-smoke" / "1" / "engine.log"
    log.write_text("ready\n\x1b]0;title\x07bad \x1b[31mred\x1b[0m\ntorn")
    assert "ready\n" in call("logs", "--engine", "--runs-dir", home).out
    assert "\x1b" not in call("logs", "--engine", "-f", "--runs-dir", home).out
    log.unlink()
    assert "no local engine was started" in call("logs", "--engine", "--runs-dir", home).out


def test_following_a_run_that_has_ended_shows_it_and_ends(smoke: FinishedRun, call: Call) -> None:
    followed = call("logs", "-f", "--runs-dir", smoke.runs_dir)
    assert followed.out == call("logs", "--runs-dir", smoke.runs_dir).out


def test_the_last_time_is_read_from_the_journals_end(home: Path, tmp_path: Path) -> None:
    path = home / "pirate-smoke" / "1" / "journal.jsonl"
    assert last_time(path) == read_journal(path).events[-1]["time"]
    with path.open("a") as file:
        file.write('{"event":"x","time":1}')
    assert last_time(path) == read_journal(path).events[-1]["time"] != 1
    assert last_time(tmp_path / "none") == 0.0


def lines_until(process: subprocess.Popen[str], wanted: str) -> Iterator[str]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line
        if wanted in line:
            return


@pytest.mark.slow
def test_a_real_run_is_followed_told_as_running_and_after_kill_9_as_stopped(tmp_path: Path, call: Call) -> None:
    spec = SPECS / "pirate-smoke.yaml"
    start = [sys.executable, "-m", "charrun"]
    run = subprocess.Popen(
        [*start, str(spec), "--runs-dir", str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal = tmp_path / "pirate-smoke" / "1" / "journal.jsonl"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not last_time(journal) and run.poll() is None and time.monotonic() < deadline:
        os.sched_yield()
    followers = [
        subprocess.Popen(
            [*start, "logs", "-f", "--runs-dir", str(tmp_path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    stopped, follower = followers
    try:
        seen = list(lines_until(stopped, "teacher: started"))
        assert "run started" in seen[0]
        stopped.send_signal(signal.SIGINT)
        out, err = stopped.communicate(timeout=60)
        assert stopped.returncode == 130 and "interrupted" in err and "Traceback" not in out + err

        seen = list(lines_until(follower, "teacher: finished"))
        document = json.loads(call("status", "--runs-dir", tmp_path, "--json").out)
        assert document["status"] == "running" and states(document)["teacher"] == "done"
        assert "running" in call("runs", "--runs-dir", tmp_path).out
        run.kill()
        run.wait()
        assert follower.stdout is not None
        rest = follower.stdout.read()  # not communicate(), which would lose what iterating has read ahead
        assert follower.wait(timeout=60) == 0
        assert "".join(seen) + rest == call("logs", "--runs-dir", tmp_path).out
    finally:
        run.kill()
        for process in followers:
            process.kill()
    shown = call("status", "--runs-dir", tmp_path)
    assert shown.out.startswith("pirate-smoke/1: stopped\n")
    assert f"run the same command again:\n  charrun {spec} --runs-dir {tmp_path}\n" in shown.out
