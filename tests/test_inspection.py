"""`charrun runs`, `status` and `logs`: a run is read as it lies on disk, whole or not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS, FinishedRun, Outcome

from charrun.cli import main
from charrun.store.journal import last_time, read_journal
from charrun.store.process import lives
from charrun.store.runs import find_run, find_runs

WIDTH = 80
NOBODY = 2**22 + 1  # above the highest process number that Linux gives
PATIENCE_SECONDS = 240
Call = Callable[..., Outcome]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line in this process, on a screen of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    handler = signal.getsignal(signal.SIGTERM)

    def invoke(*args: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        signal.signal(signal.SIGTERM, handler)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Outcome(int(ended.value.code or 0), out, err)

    return invoke


@pytest.fixture
def home(smoke: FinishedRun, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be damaged."""
    return Path(shutil.copytree(smoke.runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("engine")))


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def write_events(folder: Path, events: Iterable[dict[str, Any]]) -> None:
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def cut_before(folder: Path, stage: str) -> list[dict[str, Any]]:
    """Leave of a finished run what a kill in the middle of a stage leaves."""
    events = events_of(folder)
    end = next(i for i, e in enumerate(events) if e.get("stage") == stage and e["event"] == "stage_started")
    for path in [*folder.glob("cell-*.json"), folder / "run.json", folder / "report.md"]:
        path.unlink(missing_ok=True)
    write_events(folder, events[: end + 1])
    return events[: end + 1]


def states(document: dict[str, Any]) -> dict[str, str]:
    return {stage["id"]: stage["state"] for cell in document["cells"] for stage in cell["stages"]}


# -- runs ---------------------------------------------------------------------------------------------------------


def test_runs_shows_status_cells_tokens_and_stand_ins_within_80_columns(home: Path, call: Call) -> None:
    shown = call("runs", "--runs-dir", home)
    assert shown.code == 0
    heading, line = shown.out.splitlines()
    assert heading.split() == ["run", "status", "cells", "tokens", "engine", "last", "activity", "age"]
    assert line.split()[:3] == ["pirate-smoke/1", "finished", "1/1"] and "stand-ins" in line
    assert max(map(len, shown.out.splitlines())) <= WIDTH


def test_a_long_name_is_cut_before_its_number(home: Path, call: Call) -> None:
    (home / "pirate-smoke").rename(home / ("a-name-without-end" * 4))
    shown = call("runs", "--runs-dir", home)
    assert "…/1 " in shown.out and max(map(len, shown.out.splitlines())) <= WIDTH


def test_runs_as_json_has_stable_keys(home: Path, call: Call) -> None:
    document = json.loads(call("runs", "--runs-dir", home, "--json").out)
    assert set(document) == {"runs_dir", "runs", "not_runs"}
    (run,) = document["runs"]
    assert run["run"] == "pirate-smoke/1" and run["status"] == "finished"
    assert (run["cells_done"], run["cells_all"]) == (1, 1)
    snapshot = json.loads((home / "pirate-smoke" / "1" / "run.json").read_text())
    usages = [stage["usage"] for stage in snapshot["cells"][0]["stages"]]
    assert run["tokens"] == sum(n for usage in usages for name, n in usage.items() if name.endswith("_tokens")) > 0


def test_the_run_of_the_latest_event_is_last_whatever_its_number(home: Path, call: Call) -> None:
    first, second = home / "pirate-smoke" / "1", home / "pirate-smoke" / "2"
    shutil.copytree(first, second)
    write_events(second, [{**event, "time": event["time"] - 9000} for event in events_of(second)])
    assert [run.number for run in find_runs(home).runs] == [2, 1]
    assert find_run(home).number == find_run(home, "pirate-smoke").number == 1


def test_what_is_no_run_or_damaged_is_named_and_the_rest_is_listed(home: Path, call: Call) -> None:
    runs = home / "pirate-smoke"
    (runs / "2").mkdir()
    shutil.copytree(runs / "1", runs / "3")
    (runs / "3" / "spec.json").write_text('{"name": ')
    shutil.copytree(runs / "1", runs / "4")
    lines = (runs / "4" / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (runs / "4" / "journal.jsonl").write_bytes(b"".join([*lines[:3], b'\xff\x00 nonsense\n{"time": []}\n', *lines[3:]]))
    (home / "notes").mkdir()
    (home / "letter.txt").write_text("hello")
    shown = call("runs", "--runs-dir", home)
    assert shown.code == 0
    assert "2: it has neither spec.json nor journal.jsonl" in shown.out
    assert "pirate-smoke/3: spec.json is missing or damaged" in shown.out
    assert "pirate-smoke/4: journal.jsonl:4 is no event" in shown.out
    assert all(f"pirate-smoke/{number} " in shown.out for number in (1, 3, 4))
    for number in (3, 4):
        assert states(json.loads(call("status", f"pirate-smoke/{number}", "--runs-dir", home, "--json").out))["sft"]


def test_hundreds_of_finished_runs_are_listed_without_their_rows(home: Path, call: Call) -> None:
    for number in range(2, 302):
        shutil.copytree(home / "pirate-smoke" / "1", home / "pirate-smoke" / str(number))
    shutil.rmtree(home / "store")
    shown = call("runs", "--runs-dir", home)
    assert shown.code == 0 and shown.out.count(" finished ") == 301
    assert len({run.tokens for run in find_runs(home).runs}) == 1


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path, call: Call) -> None:
    assert "No runs in" in call("runs", "--runs-dir", tmp_path / "none").out
    shown = call("status", "--runs-dir", tmp_path / "none")
    assert shown.code == 2 and "there are no runs" in shown.err


# -- naming a run -------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_number_name_folder_or_not_named_at_all(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = home / "pirate-smoke" / "1"
    for text in ("pirate-smoke/1", "pirate-smoke", "", str(folder)):
        assert find_run(home, text).folder == folder
    monkeypatch.chdir(home)
    assert find_run(tmp_path / "elsewhere", "pirate-smoke/1").folder == folder


def test_an_unknown_run_is_a_usage_error_with_a_suggestion_and_what_there_is(home: Path, call: Call) -> None:
    for text in ("pirate-smok", "pirate-smoke/7", "pirate"):
        shown = call("status", text, "--runs-dir", home)
        assert shown.code == 2
        assert f"there is no run '{text}'" in shown.err
        assert "did you mean 'pirate-smoke" in shown.err and "there is pirate-smoke/1" in shown.err


# -- status -------------------------------------------------------------------------------------------------------


def test_status_shows_rows_pace_folders_evaluation_and_weights(smoke: FinishedRun, call: Call) -> None:
    shown = call("status", "--runs-dir", smoke.runs_dir)
    assert shown.code == 0
    assert shown.out.startswith("pirate-smoke/1: finished\n")
    for id, rows in (("teacher", "16 chosen"), ("reflection", "40 reflections"), ("export", "1 adapter")):
        assert any(line.startswith(f"{id} ") and f" {rows} " in line for line in shown.out.splitlines())
        assert smoke.stage_folder(id).name in shown.out
    assert "without a system prompt, scorer's AUC" in shown.out
    (checkpoint,), (adapter,) = smoke.rows("sft", "checkpoint"), smoke.rows("export", "adapter")
    assert checkpoint["state"] in shown.out and str(smoke.runs_dir / adapter["folder"]) in shown.out
    assert max(len(line) for line in shown.out.splitlines() if " " in line.strip() and "/" not in line) <= WIDTH


def test_a_torn_last_line_and_what_nobody_knows_yet_change_nothing(home: Path, call: Call) -> None:
    before = json.loads(call("status", "--runs-dir", home, "--json").out)
    folder = home / "pirate-smoke" / "1"
    events = events_of(folder)
    for event in events:
        event["invented"] = {"later": [1, 2]}
    told = {"v": 9, "seq": 0, "time": events[-1]["time"], "event": "comet_seen", "cell": 7, "outputs": "none"}
    write_events(folder, [*events[:5], told, *events[5:]])
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"event":"run_fai')
    after = json.loads(call("status", "--runs-dir", home, "--json").out)
    assert after == before


def test_fields_of_wrong_types_count_as_absent(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    wrong: list[Any] = [None, 3, "text", [], {"a": {"rows": "many"}}]
    events = events_of(folder)
    for index, event in enumerate(events):
        events[index] = {
            key: value if key in ("event", "time") else wrong[(index + place) % len(wrong)]
            for place, (key, value) in enumerate(event.items())
        }
    write_events(folder, events)
    for name, value in (("run.json", [1]), ("lock.json", 2), ("spec.json", {"stages": [1, {"id": 4}], "models": 3})):
        (folder / name).write_text(json.dumps(value))
    for path in (home / "store").rglob("done/*.json"):
        path.write_text('{"outputs": [], "usage": {"x": "y"}}')
    for command in (["runs"], ["status"], ["logs"], ["status", "--json"], ["diff", "pirate-smoke/1", "pirate-smoke/1"]):
        assert call(*command, "--runs-dir", home).code == 0


def test_a_killed_run_is_told_as_stopped_with_the_command_that_continues_it(home: Path, call: Call) -> None:
    events = cut_before(home / "pirate-smoke" / "1", "dpo")
    events[0]["pid"] = NOBODY
    write_events(home / "pirate-smoke" / "1", events)
    for holder in (home / "store").glob("*/.holder"):
        holder.write_text(f"process {NOBODY} on here: /usr/bin/charrun specs/pirate-smoke.yaml --yes")
    shown = call("status", "--runs-dir", home)
    assert shown.out.startswith("pirate-smoke/1: stopped\n")
    assert "run the same command again:\n  charrun specs/pirate-smoke.yaml --yes\n" in shown.out
    document = json.loads(call("status", "--runs-dir", home, "--json").out)
    assert document["tokens"] > 0, "of what is done, from the store"
    found = states(document)
    assert found["pairs"] == "done" and found["dpo"] == "stopped" and found["export"] == "waiting"
    assert call("runs", "--runs-dir", home).out.splitlines()[1].split()[1:3] == ["stopped", "0/1"]


def test_a_living_process_counts_only_if_it_was_there_when_the_run_began(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    events = cut_before(folder, "sft")
    now = time.time()
    for pid, began, expected in (
        (os.getpid(), now, "running"),
        (os.getpid(), now - 10**7, "stopped"),
        (0, now, "stopped"),
    ):
        write_events(folder, [{**event, "time": began, "pid": pid} for event in events])
        document = json.loads(call("status", "--runs-dir", home, "--json").out)
        assert document["status"] == expected and states(document)["sft"] == expected
    assert lives(os.getpid(), now) and not lives(NOBODY, now) and not lives(-1, now) and not lives(10**30, now)


def test_a_running_stage_shows_what_it_has_stored_so_far(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    events = cut_before(folder, "student")
    write_events(folder, [{**event, "time": time.time(), "pid": os.getpid()} for event in events])
    shown = call("status", "--runs-dir", home)
    assert "16 responses so far" in shown.out and "charrun logs -f pirate-smoke/1 --runs-dir" in shown.out


def test_a_second_process_that_finds_the_run_locked_does_not_end_it(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    first = [{**event, "time": time.time(), "pid": os.getpid()} for event in cut_before(folder, "sft")]
    second = [{**first[0], "pid": NOBODY}, {"event": "run_failed", "time": time.time(), "error": "locked"}]
    write_events(folder, [*first, *second])
    assert find_run(home).status == "running"


def test_a_failed_run_tells_its_error_safely_and_where_to_look(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    events = cut_before(folder, "sft")
    place = {"cell": events[-1]["cell"], "stage": "sft", "time": events[-1]["time"]}
    bad = "StageFailed: sft: loss is \x1b[31mnan\x1b[0m\u202e\x07"
    write_events(
        folder,
        [*events, {**place, "event": "stage_failed", "error": bad}, {"event": "run_failed", "time": 1.0, "error": bad}],
    )
    shown = call("status", "--runs-dir", home)
    assert shown.out.startswith("pirate-smoke/1: failed\n")
    assert "sft failed: StageFailed: sft: loss is nan\n" in shown.out and "charrun logs pirate-smoke/1" in shown.out
    assert not any(c in shown.out for c in "\x1b\x07\u202e")
    lines = call("logs", "--level", "error", "--runs-dir", home).out.splitlines()
    assert [line[21:] for line in lines] == [
        "sft: failed: StageFailed: sft: loss is nan",
        "run failed: StageFailed: sft: loss is nan",
    ]


def test_an_interrupted_stage_has_not_failed(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    events = cut_before(folder, "sft")
    place = {"cell": events[-1]["cell"], "stage": "sft", "time": events[-1]["time"]}
    end = {"event": "run_interrupted", "time": events[-1]["time"]}
    write_events(folder, [*events, {**place, "event": "stage_failed", "error": "CancelledError: "}, end])
    document = json.loads(call("status", "--runs-dir", home, "--json").out)
    assert document["status"] == "interrupted" and states(document)["sft"] == "interrupted"
    assert call("logs", "--level", "error", "--runs-dir", home).out == ""


def test_rows_that_another_run_made_are_told_as_cached(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    before = json.loads(call("status", "--runs-dir", home, "--json").out)
    events = events_of(folder)
    write_events(folder, [event for event in events if event.get("stage") in (None, "sft", "evaluate")])
    after = json.loads(call("status", "--runs-dir", home, "--json").out)
    found = states(after)
    assert found == {id: "done" if id in ("sft", "evaluate") else "cached" for id in found}
    for old, new in zip(before["cells"][0]["stages"], after["cells"][0]["stages"], strict=True):
        assert (old["rows"], old["tokens"], old["folder"]) == (new["rows"], new["tokens"], new["folder"])
    assert after["cells"][0]["adapter"] == before["cells"][0]["adapter"] is not None


def test_many_cells_are_listed_one_a_line_and_one_is_shown_on_demand(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    events = events_of(folder)
    name = next(event["cell"] for event in events if "cell" in event)
    cells = [f"{name}-{number}" for number in range(40)]
    stages = [{**event, "cell": cell} for cell in cells[:10] for event in events[1:-1]]
    write_events(folder, [{**events[0], "cells": cells, "pid": NOBODY}, *stages])
    for path in folder.glob("cell-*.json"):
        path.unlink()
    shown = call("status", "--runs-dir", home)
    assert len(shown.out.splitlines()) < 60 and f"{name}-39" in shown.out and "0/10" in shown.out
    one = call("status", "--cell", f"{name}-3", "--runs-dir", home)
    assert "40 reflections" in one.out and f"{name}-39" not in one.out
    assert call("status", "--cell", "none", "--runs-dir", home).code == 2


# -- logs ---------------------------------------------------------------------------------------------------------


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
