"""Lines that only grow, files that are whole or absent: the contracts of `charrun.store`, sentence by sentence."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from charrun.errors import EnvironmentProblem
from charrun.store import sync
from charrun.store.canonical import canonical, digest, digest_rows, seed_from
from charrun.store.files import make_folder, read_json, set_aside, write_atomic, write_json, write_rows
from charrun.store.lines import AppendFile, read_lines, sealed, unsealed


def values(path: Path, damaged: list[int] | None = None) -> list[dict[str, Any]]:
    return [line.value for line in read_lines(path, damaged)]


def fail_with(number: int) -> Any:
    def fail(*args: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


# -- lines --------------------------------------------------------------------------------------------------------


def test_a_line_is_appended_by_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: (written.append(bytes(data)), write(handle, data))[1])
    file = AppendFile(tmp_path / "a.jsonl")
    file.append({"n": 1, "text": "x" * 100_000})
    file.close()
    assert len(written) == 1 and written[0] == (tmp_path / "a.jsonl").read_bytes()


def test_a_line_carries_a_checksum_of_its_own_bytes() -> None:
    line = sealed({"b": 1, "a": "ä"})
    assert json.loads(line) == {"a": "ä", "b": 1, "sum": json.loads(line)["sum"]}
    assert unsealed(line) == {"a": "ä", "b": 1}
    for place in range(len(line) - 1):
        for bit in range(8):
            flipped = bytearray(line)
            flipped[place] ^= 1 << bit
            assert unsealed(bytes(flipped)) is None, (place, bit)


def test_a_torn_last_line_is_dropped_when_its_file_is_next_opened_for_writing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first, second = sealed({"n": 1}), sealed({"n": 2})
    for cut in range(len(second)):
        path.write_bytes(first + second[:cut])
        assert values(path) == [{"n": 1}]
        file = AppendFile(path)
        file.append({"n": 3})
        file.close()
        assert path.read_bytes() == first + sealed({"n": 3})


def test_a_damaged_line_is_named_and_never_used(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [sealed({"n": n}) for n in range(4)]
    lines[1] = lines[1].replace(b"1", b"7", 1)
    lines[2] = b"not json\n"
    path.write_bytes(b"".join(lines))
    damaged: list[int] = []
    assert values(path, damaged) == [{"n": 0}, {"n": 3}]
    assert damaged == [2, 3]


def test_a_line_that_the_disk_cuts_short_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "a.jsonl")
    file.append({"n": 1})
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[: len(data) // 2]))
    with pytest.raises(EnvironmentProblem, match="No space left on device") as caught:
        file.append({"n": 2})
    assert "make room and run the same command again" in caught.value.hint
    monkeypatch.undo()
    file.append({"n": 3})
    file.close()
    damaged: list[int] = []
    assert values(tmp_path / "a.jsonl", damaged) == [{"n": 1}, {"n": 3}] and not damaged


def test_closing_a_file_makes_it_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "a.jsonl")
    handle = file.fileno()
    file.append({"n": 1})
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    file.close()
    file.close()
    assert handle in synced


# -- sync ---------------------------------------------------------------------------------------------------------


def test_what_was_appended_is_on_the_disk_a_second_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "a.jsonl")
    inode, synced = os.fstat(file.fileno()).st_ino, threading.Event()
    fsync = os.fsync

    def watched(handle: int) -> None:
        is_mine = os.fstat(handle).st_ino == inode
        fsync(handle)
        if is_mine:
            synced.set()

    monkeypatch.setattr(os, "fsync", watched)
    for _ in range(2):  # the first one, and one after a time of silence
        synced.clear()
        file.append({"n": 1})
        assert synced.wait(10 * sync.INTERVAL_SECONDS)
    file.close()


def test_an_append_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = AppendFile(tmp_path / "a.jsonl")
    callers: set[str] = set()
    done = threading.Event()

    def watched(handle: int) -> None:
        callers.add(threading.current_thread().name)
        done.set()

    monkeypatch.setattr(os, "fsync", watched)
    for n in range(100):
        file.append({"n": n})
    assert "MainThread" not in callers
    assert done.wait(10)
    monkeypatch.undo()
    file.close()


def test_a_disk_that_fails_in_the_background_is_told_at_the_next_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = AppendFile(tmp_path / "a.jsonl")
    failed = threading.Event()

    def broken(handle: int) -> None:
        failed.set()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    file.append({"n": 1})
    assert failed.wait(10)
    while file.failure is None:
        threading.Event().wait(0.001)
    with pytest.raises(EnvironmentProblem, match="Input/output error"):
        file.append({"n": 2})
    monkeypatch.undo()
    file.close()


# -- files --------------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_rows(path, [{"n": 1}, {"not": object()}])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_is_on_the_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(handle: int) -> None:
        told.append("sync " + os.readlink(f"/proc/self/fd/{handle}"))
        fsync(handle)

    def replaced(old: Path, new: Path) -> None:
        told.append(f"rename {old}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_atomic(tmp_path / "a.json", "text")
    aside = str(tmp_path / f".tmp-{os.getpid()}-a.json")
    assert told == [f"sync {aside}", f"rename {aside}", f"sync {tmp_path}"]


def test_a_new_folders_name_is_on_the_disk_before_anything_is_written_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))[1]
    )
    make_folder(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_a_damaged_json_file_counts_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value = {"b": [1, 2.5, None], "a": {"ä": "x"}}
    write_json(path, value)
    assert read_json(path) == value
    whole = path.read_bytes()
    for cut in range(len(whole) - 1):  # the last line break may go
        path.write_bytes(whole[:cut])
        assert read_json(path) is None
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        path.write_bytes(bytes(flipped))
        assert read_json(path) in (None, value)  # a bit of white space changes nothing
    assert read_json(tmp_path / "none.json") is None


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_write_that_fails_leaves_no_file_behind(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "a.json", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_replaced_is_named_and_not_its_draft(tmp_path: Path) -> None:
    (tmp_path / "a.json").mkdir()
    with pytest.raises(OSError, match="directory") as told:
        write_atomic(tmp_path / "a.json", "text")
    assert told.value.filename == str(tmp_path / "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_is_set_aside_is_renamed_and_never_deleted(tmp_path: Path) -> None:
    for content in ("one", "two"):
        (tmp_path / "a.jsonl").write_text(content)
        (tmp_path / "done").mkdir(exist_ok=True)
        set_aside(tmp_path, ["done", "a.jsonl", "not there"])
    assert {p.name for p in tmp_path.iterdir()} == {
        "a.jsonl.aside-1",
        "a.jsonl.aside-2",
        "done.aside-1",
        "done.aside-2",
    }
    assert (tmp_path / "a.jsonl.aside-2").read_text() == "two"


def test_digests_depend_on_content_alone() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest_rows([1, 2]) != digest_rows([2, 1])
    assert canonical({"b": 1e-5, "a": "ä"}) == '{"a":"ä","b":1e-05}'
    assert seed_from(7, "x") == seed_from(7, "x") != seed_from(8, "x")
    with pytest.raises(ValueError):
        canonical(float("nan"))


def test_the_digest_of_rows_is_the_digest_of_their_file(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"b": "ä"}]
    assert write_rows(tmp_path / "rows.jsonl", rows) == digest_rows(rows)
