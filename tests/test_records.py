"""What a stage stores while it works, and what makes its outputs count: the contracts, sentence by sentence."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from charrun.errors import EnvironmentProblem
from charrun.store import tickets
from charrun.store.files import write_rows
from charrun.store.items import ItemStore, Record, Score
from charrun.store.tickets import Artifact, Ticket, publish, read_ticket, write_ticket
from charrun.store.training import ReferenceLog, Saved, TrainingLog
from charrun.usage import Usage


def record(key: str, start: int, texts: list[str], work: str = "w") -> Record:
    return {
        "key": key,
        "start": start,
        "model": "m",
        "input": {"item": ""},
        "sequences": [{"text": text, "tokens": [1, 2], "stop_reason": "stop"} for text in texts],
        "prompt_tokens": 3,
        "sampled_tokens": 2 * len(texts),
        "cache_hit_tokens": 0,
        "work": work,
    }


def score(key: str, value: float) -> Score:
    return {
        "key": key,
        "model": "m",
        "mean_logprob": value,
        "tokens": 7,
        "prompt_tokens": 9,
        "cache_hit_tokens": 2,
        "work": "w",
    }


def texts(store: ItemStore, key: str, count: int) -> list[str | None]:
    return [(store.sequence(key, index) or {"text": None})["text"] for index in range(count)]


def content(row: Any) -> Any:
    return row


# -- items --------------------------------------------------------------------------------------------------------


def test_a_response_is_stored_before_it_is_used_or_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ItemStore(tmp_path)
    monkeypatch.setattr(os, "write", lambda handle, data: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(EnvironmentProblem):
        store.append(record("k", 0, ["a"]))
    with pytest.raises(EnvironmentProblem):
        store.append_score(score("s", -1.0))
    assert store.sequence("k", 0) is None and store.score("s") is None
    assert store.usage("w").requests == 0
    monkeypatch.undo()
    store.append(record("k", 0, ["a"]))
    assert texts(store, "k", 1) == ["a"] and store.usage("w").sampled_tokens == 2
    store.close()


def test_a_response_of_several_sequences_is_one_record(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.append(record("k", 0, ["a", "b", "c"]))
    store.close()
    lines = (tmp_path / "items.jsonl").read_text().splitlines()
    assert [len(json.loads(line)["sequences"]) for line in lines] == [3]


def test_a_stored_response_is_found_by_its_requests_key_and_sample_index(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.append(record("k", 0, ["a", "b"]))
    store.append(record("k", 4, ["e"]))
    store.append_score(score("s", -1.5))
    store.close()
    again = ItemStore(tmp_path)
    assert texts(again, "k", 5) == ["a", "b", None, None, "e"]
    assert [sequence["text"] for sequence in again.sequences("k", 2)] == ["a", "b"]
    assert list(again.missing("k", 8, 16)) == [(2, 2), (5, 3)]
    assert list(again.missing("new", 20, 16)) == [(0, 16), (16, 4)]
    assert again.score("s") == -1.5
    assert again.usage("w") == Usage(requests=3, prefill_tokens=13, cached_tokens=5, sampled_tokens=7)
    again.close()


def test_a_torn_record_is_asked_for_again(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    store.append(record("k", 0, ["a"]))
    store.append(record("k", 1, ["b"]))
    store.close()
    path = tmp_path / "items.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again = ItemStore(tmp_path)
    assert list(again.missing("k", 2, 16)) == [(1, 1)]
    assert again.damaged == []  # a crash is not damage
    again.append(record("k", 1, ["b"]))
    again.close()
    assert [json.loads(line)["start"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_damaged_record_is_named_and_asked_for_again(tmp_path: Path) -> None:
    store = ItemStore(tmp_path)
    for start, text in enumerate("abc"):
        store.append(record("k", start, [text]))
    store.close()
    path = tmp_path / "items.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"text":"b"', b'"text":"x"'))
    again = ItemStore(tmp_path)
    assert again.damaged == ["items.jsonl:2"]
    assert texts(again, "k", 3) == ["a", None, "c"]
    assert list(again.missing("k", 3, 16)) == [(1, 1)]
    again.append(record("k", 1, ["b"]))
    assert texts(again, "k", 3) == ["a", "b", "c"]
    again.close()


def test_responses_stay_on_the_disk_and_the_memory_holds_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tracemalloc

    store = ItemStore(tmp_path)
    big = "x" * 20_000
    tracemalloc.start()
    for start in range(1500):
        store.append(record(f"k{start}", 0, [big]))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "items.jsonl").stat().st_size > 30_000_000
    assert held < 3_000_000
    assert texts(store, "k7", 1) == [big]
    store.close()


# -- training -----------------------------------------------------------------------------------------------------


def test_a_steps_metrics_are_stored_before_the_checkpoint_that_holds_it(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    log.saved("a", Saved(1, "tinker://one", 9.0))  # as if the step's own line had been damaged
    assert log.resumable("a") == []
    log.step("a", 0, {"loss": 1.0})
    assert [each.state for each in log.resumable("a")] == ["tinker://one"]
    log.close()


def test_a_checkpoints_record_names_the_next_step(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    log.step("a", 0, {"loss": 1.0})
    log.saved("a", Saved(1, "tinker://one", 9.0))
    log.close()
    (saved,) = TrainingLog(tmp_path).resumable("a")
    assert saved == Saved(1, "tinker://one", 9.0) and not saved.is_final


def test_a_training_goes_on_from_the_newest_checkpoint_whose_steps_are_all_stored(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    for step in range(6):
        log.step("a", step, {"loss": float(step)})
        if step % 2:
            log.saved("a", Saved(step + 1, f"tinker://{step + 1}", 9.0))
    log.saved("a", Saved(6, "tinker://final", None, "tinker://sampler", "base"))
    assert [each.state for each in log.resumable("a")] == ["tinker://final", "tinker://6", "tinker://4", "tinker://2"]
    assert [each.state for each in log.intermediates()] == ["tinker://2", "tinker://4", "tinker://6"]
    log.close()
    path = tmp_path / "training.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damaged = [line.replace(b'"loss":4.0', b'"loss":7.0') for line in lines]  # of step 4
    path.write_bytes(b"".join(damaged))
    again = TrainingLog(tmp_path)
    assert again.damaged and len(again.curve("a")) == 4
    assert [each.state for each in again.resumable("a")] == ["tinker://4", "tinker://2"]
    again.close()


def test_reference_log_probs_are_on_the_disk_before_any_step_is_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ReferenceLog(tmp_path)
    log.add([("row", [-0.5, -1.25, -1e-9])])
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.readlink(f"/proc/self/fd/{handle}")))
    log.sync()
    assert synced == [str(tmp_path / "reference.jsonl")]
    monkeypatch.undo()
    assert "row" in log and list(log.values("row")) == [-0.5, -1.25, -1e-9]
    log.close()
    again = ReferenceLog(tmp_path)
    assert again.sum("row") == -1.750000001 and "other" not in again
    again.close()


def test_a_step_that_was_done_twice_counts_once(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path)
    for step in (0, 1, 2, 1, 2):
        log.step("a", step, {"loss": float(step)})
    assert [metrics["loss"] for metrics in log.curve("a")] == [0.0, 1.0, 2.0]
    log.close()


# -- tickets ------------------------------------------------------------------------------------------------------


def made(folder: Path) -> tuple[Path, Ticket]:
    (folder / "done").mkdir()
    outputs = {"pairs": publish(folder, "pairs", [{"n": 1}, {"n": 2}], content)}
    sha = write_rows(folder / "steps.jsonl", [{"step": 0}])
    path = folder / "done" / "t.json"
    ticket = Ticket(outputs, {"steps.jsonl": sha}, {"items.jsonl": 3}, {"teacher": 2}, 1.5, {"steps": 1}, ["answers-x"])
    write_ticket(path, ticket)
    return path, ticket


def test_nothing_looks_done_that_is_not_a_ticket_is_written_after_everything_that_it_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    original = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (order.append(Path(new).name), original(old, new))[1])
    path, ticket = made(tmp_path)
    assert [name.split("-")[0] for name in order] == ["pairs", "steps.jsonl", "t.json"]
    assert read_ticket(path) == ticket
    path.write_bytes(path.read_bytes()[:-20])
    assert read_ticket(path) is None


def test_a_ticket_names_the_digest_of_every_file_of_its_work(tmp_path: Path) -> None:
    path, ticket = made(tmp_path)
    told = json.loads(path.read_text())
    assert told["outputs"]["pairs"]["sha256"] == ticket.outputs["pairs"].sha256 and len(told["files"]) == 1
    assert ticket.damage(tmp_path) == []


def test_a_missing_or_damaged_file_makes_the_ticket_void_and_the_file_is_named(tmp_path: Path) -> None:
    _, ticket = made(tmp_path)
    rows, steps = ticket.outputs["pairs"].path, tmp_path / "steps.jsonl"
    for path in (rows, steps):
        whole = path.read_bytes()
        for damaged in (whole[:-1], whole.replace(b"1", b"3").replace(b"0", b"3"), whole + b"{}\n"):
            path.write_bytes(damaged)
            assert ticket.damage(tmp_path) == [str(path)]
        path.unlink()
        assert ticket.damage(tmp_path) == [str(path)]
        path.write_bytes(whole)
    assert ticket.shortened(tmp_path) == [str(tmp_path / "items.jsonl")]


def test_a_ticket_that_was_written_for_other_work_is_void(tmp_path: Path) -> None:
    path = tmp_path / "sft-0123456789abcdef" / "done" / "0123.json"
    path.parent.mkdir(parents=True)
    write_ticket(path, Ticket({}, seconds=1.5))
    assert (read := read_ticket(path)) is not None and read.seconds == 1.5
    for other in (path.with_name("4567.json"), tmp_path / "sft-fedcba9876543210" / "done" / path.name):
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(path.read_bytes())
        assert read_ticket(other) is None


def test_an_artifact_is_read_only_if_its_bytes_are_those_that_were_published(tmp_path: Path) -> None:
    artifact = publish(tmp_path, "pairs", [{"n": 1}], content)
    assert artifact.read() == [{"n": 1}]
    artifact.path.write_bytes(b'{"n":2}\n')
    with pytest.raises(EnvironmentProblem, match="is missing or damaged"):
        artifact.read()
    assert publish(tmp_path, "pairs", [{"n": 1}], content) == artifact  # written anew
    assert artifact.read() == [{"n": 1}]


def test_whether_work_is_done_is_decided_without_reading_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = made(tmp_path)

    def refuse(self: Artifact) -> Any:
        raise AssertionError("rows are read")

    monkeypatch.setattr(tickets.Artifact, "read", refuse)
    ticket = read_ticket(path)
    assert ticket is not None and ticket.damage(tmp_path) == []
    assert (ticket.outputs["pairs"].rows, replace(ticket).seconds) == (2, 1.5)
