"""The store keeps every whole record and never takes a torn one for whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from charrun.errors import EnvironmentProblem, Locked
from charrun.store.canonical import canonical, digest, digest_rows, seed_from
from charrun.store.files import read_rows, write_atomic, write_rows
from charrun.store.items import ItemStore, Record
from charrun.store.lock import writing
from charrun.store.run import RunFolder


def record(key: str, start: int, texts: list[str]) -> Record:
    return {
        "key": key,
        "start": start,
        "model": "m",
        "input": {"item": ""},
        "sequences": [{"text": text, "tokens": [1, 2], "stop_reason": "stop"} for text in texts],
        "prompt_tokens": 3,
        "sampled_tokens": 2 * len(texts),
        "cache_hit_tokens": 0,
    }


def test_records_are_found_again_by_key_and_sample_index(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.append(record("k", 0, ["a", "b"]))
    store.append(record("k", 4, ["e"]))
    store.append_score("s", "m", -1.5, 7)
    store.close()
    again = ItemStore(tmp_path)
    assert [(again.sequence("k", i) or {"text": None})["text"] for i in range(5)] == ["a", "b", None, None, "e"]
    assert list(again.missing("k", 8, 16)) == [(2, 2), (5, 3)]
    assert list(again.missing("new", 20, 16)) == [(0, 16), (16, 4)]
    assert again.score("s") == -1.5
    again.close()


def test_a_torn_last_line_is_cut_off_and_asked_for_again(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.append(record("k", 0, ["a"]))
    store.append(record("k", 1, ["b"]))
    store.close()
    path = tmp_path / "items.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = ItemStore(tmp_path)
    assert list(again.missing("k", 2, 16)) == [(1, 1)]
    again.append(record("k", 1, ["b"]))
    again.close()
    assert [row["start"] for row in read_rows(path)] == [0, 1]


def test_a_damaged_record_is_named_not_used(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"key": "k"}\n')
    with pytest.raises(EnvironmentProblem, match=r"items\.jsonl is damaged"):
        ItemStore(tmp_path)


def test_one_process_writes_a_folder_at_a_time_and_a_dead_one_blocks_nobody(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, pathlib\nfrom charrun.store.lock import writing\n"
            "with writing(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(Locked, match=f"process {holder.pid}"), writing(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with writing(tmp_path):
        pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_rows(path, [{"not": object()}])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_digests_depend_on_content_alone() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest_rows([1, 2]) != digest_rows([2, 1])
    assert canonical({"b": 1e-5, "a": "ä"}) == '{"a":"ä","b":1e-05}'
    assert seed_from(7, "x") == seed_from(7, "x") != seed_from(8, "x")
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_the_run_number_grows_only_when_the_resolved_spec_changes(tmp_path: Path) -> None:
    first = RunFolder.open(tmp_path, "demo", {"seed": 7})
    assert first.folder.name == "1"
    assert RunFolder.open(tmp_path, "demo", {"seed": 7}).folder == first.folder
    assert RunFolder.open(tmp_path, "demo", {"seed": 8}).folder.name == "2"


def test_the_journal_numbers_its_events_across_runs(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path, "demo", {"seed": 7})
    folder.record("run_started")
    RunFolder.open(tmp_path, "demo", {"seed": 7}).record("run_finished")
    assert [(e["seq"], e["event"]) for e in folder.events()] == [(0, "run_started"), (1, "run_finished")]


def test_a_torn_journal_line_is_cut_off_before_the_next_event(tmp_path: Path) -> None:
    folder = RunFolder.open(tmp_path, "demo", {"seed": 7})
    folder.record("run_started")
    with (folder.folder / "journal.jsonl").open("a") as file:
        file.write('{"event": "stage_st')
    again = RunFolder.open(tmp_path, "demo", {"seed": 7})
    again.record("run_finished")
    assert [(e["seq"], e["event"]) for e in again.events()] == [(0, "run_started"), (1, "run_finished")]


def test_a_damaged_frozen_spec_is_another_spec(tmp_path: Path) -> None:
    first = RunFolder.open(tmp_path, "demo", {"seed": 7})
    (first.folder / "spec.json").write_text('{"seed"')
    assert RunFolder.open(tmp_path, "demo", {"seed": 7}).folder.name == "2"
