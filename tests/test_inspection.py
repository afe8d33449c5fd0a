"""`charrun runs` and `status`: a run is read as it lies on disk, whole or not."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from run_copies import WIDTH, Call, caller, copy_of, cut_before, events_of, states, write_events

from charrun.store.process import lives
from charrun.store.runs import find_run, find_runs

NOBODY = 2**22 + 1  # above the highest process number that Linux gives


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line."""
    return caller(capsys, monkeypatch)


@pytest.fixture
def home(smoke: FinishedRun, tmp_path: Path) -> Path:
    """A copy of the finished run's folder, to be damaged."""
    return copy_of(smoke, tmp_path)


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
    assert "pirate-smoke/4: journal.jsonl:4 is damaged" in shown.out
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
    assert "without a system prompt:\n  scorer's AUC" in shown.out
    (evaluation,) = smoke.rows("evaluate", "evaluation")
    texts = evaluation["contamination"]["texts"]
    told = f"\n  Contamination: 0 of 120 prompts equal one of {texts} training texts, 0 share"
    assert told in (smoke.folder / "report.md").read_text() and told in smoke.outcome.out
    assert told.replace("\n", "").strip() in " ".join(shown.out.split())
    (checkpoint,), (adapter,) = smoke.rows("sft", "checkpoint"), smoke.rows("export", "adapter")
    assert checkpoint["state"] in shown.out and str(smoke.runs_dir / adapter["folder"]) in shown.out
    assert max(len(line) for line in shown.out.splitlines() if " " in line.strip() and "/" not in line) <= WIDTH
    heading, *rows = shown.out[shown.out.index("\nRequests\n") :].split("\n")[2:]
    assert heading.split("  ")[0] == "stage" and "in flight" in heading and "slowest 1%" in heading
    told = json.loads(call("status", "--runs-dir", smoke.runs_dir, "--json").out)["throughput"]
    assert [each["stage"] for each in told] == [row.split()[0] for row in rows if row]
    (teacher,) = [each for each in told if each["stage"] == "teacher"]
    assert teacher["requests"] == 16 and 0 < teacher["median"] <= teacher["slowest"] and teacher["in_flight"] > 0


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
    events[0] |= {"pid": NOBODY, "argv": ["specs/my pirate.yaml", "--yes"]}
    write_events(home / "pirate-smoke" / "1", events)
    shown = call("status", "--runs-dir", home)
    assert shown.out.startswith("pirate-smoke/1: stopped\n")
    assert "run the same command again:\n  charrun 'specs/my pirate.yaml' --yes\n" in shown.out
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
    write_events(
        folder, [*events, {**place, "event": "stage_failed", "error": "Interrupted: ", "interrupted": True}, end]
    )
    document = json.loads(call("status", "--runs-dir", home, "--json").out)
    assert document["status"] == "interrupted" and states(document)["sft"] == "interrupted"
    assert call("logs", "--level", "error", "--runs-dir", home).out == ""


def test_rows_that_another_run_made_are_told_as_cached(home: Path, call: Call) -> None:
    folder = home / "pirate-smoke" / "1"
    before = json.loads(call("status", "--runs-dir", home, "--json").out)
    events = events_of(folder)
    own = ("sft", "evaluate")
    folders = {e["stage"]: e["folder"] for e in events if e["event"] == "stage_started"}
    finished = [e for e in events if e["event"] == "stage_finished" and e["stage"] not in own]
    found_done = [{**e, "cached": True, "folder": folders[e["stage"]]} for e in finished]
    write_events(folder, [events[0], *found_done, *(e for e in events[1:] if e.get("stage") in (None, *own))])
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


def test_rows_that_cells_share_are_paid_for_once(home: Path) -> None:
    folder = home / "pirate-smoke" / "1"
    once, events = find_run(home).tokens, events_of(folder)
    shared = [{**e, "cell": "twin", "cached": True} for e in events if e["event"] == "stage_finished"]
    folders = {e["stage"]: e["folder"] for e in events if e["event"] == "stage_started"}
    shared = [{**event, "folder": folders[event["stage"]]} for event in shared]
    cells = [next(event["cell"] for event in events if "cell" in event), "twin"]
    write_events(folder, [{**events[0], "cells": cells}, *events[1:-1], *shared, events[-1]])
    run = find_run(home)
    assert [cell.tokens for cell in run.cells] == [once, once] and run.tokens == once
    assert {stage.state for stage in run.cells[1].stages} == {"cached"}
