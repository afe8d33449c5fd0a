"""The ledger of a run: the contract of `charrun.store.ledger`, sentence by sentence."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun, charrun

from charrun.errors import EnvironmentProblem
from charrun.store.ledger import LEDGER, Ledger, Place, read_ledger
from charrun.usage import Usage, of_samples

HERE, THERE = Place("pirate-smoke", "teacher", "org/teacher"), Place("pirate-smoke", "student", "org/student")
MOST = of_samples(100, 0, 2, 64)
WRITER = """
import sys, pathlib
from charrun.store.ledger import Ledger, Place
from charrun.usage import Usage
ledger, limit, go = Ledger(pathlib.Path(sys.argv[1])), int(sys.argv[2]), pathlib.Path(sys.argv[3])
place = Place("cell", "stage", "model")
def fits(place, most):
    counted = ledger.totals.all().sampled_tokens + sum(u.sampled_tokens for _, u in ledger.totals.open.values())
    return counted + most.sampled_tokens <= limit
print("ready", flush=True)
while not go.exists():
    pass
while (number := ledger.reserve(place, Usage(sampled_tokens=7), fits)) is not None:
    ledger.settle(number, Usage(sampled_tokens=5))
"""


def always(place: Place, most: Usage) -> bool:
    return True


def entered(ledger: Ledger, place: Place = HERE) -> str:
    number = ledger.reserve(place, MOST, always)
    assert number is not None
    return number


def test_what_a_request_of_several_samples_uses() -> None:
    """The prompt once, as far as it was not in the cache, and a cache hit for each further sample."""
    assert of_samples(100, 30, 3, 50) == Usage(requests=1, prefill_tokens=70, cached_tokens=230, sampled_tokens=50)
    assert of_samples(100, 30, 3, 50).input_tokens == 300


def test_a_request_is_in_the_ledger_before_it_is_sent(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER)
    number = entered(ledger)
    found = read_ledger(tmp_path / LEDGER)  # as another process finds it, should this one die now
    assert found.open == {number: (HERE, MOST)} and not found.used
    assert ledger.reserve(HERE, MOST, lambda place, most: False) is None
    assert len(read_ledger(tmp_path / LEDGER).open) == 1


def test_an_answered_request_counts_what_it_used_and_an_unanswered_one_the_most_that_it_can_have_used(
    tmp_path: Path,
) -> None:
    changes: list[tuple[Place, Usage]] = []
    ledger = Ledger(tmp_path / LEDGER, lambda place, change: changes.append((place, change)))
    first, second, _ = entered(ledger), entered(ledger, THERE), entered(ledger, THERE)
    used = of_samples(100, 40, 2, 20)
    ledger.settle(first, used)
    ledger.settle(second, Usage())  # it was refused
    ledger.close()
    for totals in (ledger.totals, read_ledger(tmp_path / LEDGER), Ledger(tmp_path / LEDGER).totals):
        assert totals.used == {HERE: used, THERE: Usage()} and totals.all() == used
        assert totals.in_doubt() == {THERE: MOST}
    counted = Usage()
    for _, change in changes:
        counted.add(change)
    assert counted == Usage(**{name: value + MOST.to_dict()[name] for name, value in used.to_dict().items()})


def test_processes_of_one_run_see_each_others_requests_before_they_send_their_own(tmp_path: Path) -> None:
    """Four processes spend from one purse: together they never reserve more than there is."""
    go = tmp_path / "go"
    command = [sys.executable, "-c", WRITER, str(tmp_path / LEDGER), "3000", str(go)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
    go.touch()
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    totals = read_ledger(tmp_path / LEDGER)
    assert not totals.open and not totals.damaged
    # The last one that fitted had at most 1000 - 7 before it, and whoever found no room had others' reserves counted.
    assert 3000 - 7 - 3 * 2 < totals.all().sampled_tokens + 7 <= 3000 + 2
    assert len({line.split('"id":"')[1][:8] for line in (tmp_path / LEDGER).read_text().splitlines()}) > 1


def test_a_damaged_ledger_line_is_named_and_what_is_whole_of_its_request_counts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER)
    used = of_samples(100, 0, 2, 9)
    ledger.settle(entered(ledger), used)
    ledger.settle(entered(ledger, THERE), used)
    ledger.close()
    begun, ended, *rest = (tmp_path / LEDGER).read_bytes().splitlines(keepends=True)
    (tmp_path / LEDGER).write_bytes(b"".join([begun.replace(b"requests", b"reqvests"), ended, *rest]))
    found = read_ledger(tmp_path / LEDGER)
    assert found.damaged == [1] and found.used == {HERE: used, THERE: used} and not found.open
    (tmp_path / LEDGER).write_bytes(b"".join([begun, ended.replace(b"used", b"usid"), *rest]))
    found = read_ledger(tmp_path / LEDGER)
    assert found.damaged == [2] and found.used == {THERE: used} and found.in_doubt() == {HERE: MOST}


def test_lines_that_the_journal_tells_of_and_the_ledger_lacks_are_named(smoke: FinishedRun, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(smoke.runs_dir, tmp_path / "runs"))
    path = runs / "pirate-smoke" / "1" / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-7]))
    told = f"ledger.jsonl has {len(lines) - 7:,} lines where the journal tells of {len(lines):,}"
    assert told in charrun("verify", "--runs-dir", runs).text
    again = charrun(SPECS / "pirate-smoke.yaml", "--runs-dir", runs, "--only", "teacher", "--force", "teacher")
    assert again.code == 0 and f"has {len(lines) - 7:,} lines of {len(lines):,}" in again.text, again.text
    assert len(path.read_bytes().splitlines()) > len(lines)  # and still the loss is known
    found = charrun("verify", "--runs-dir", runs)
    assert "ledger.jsonl had lost 7 lines when the run went on" in found.text, found.text
    path.unlink()
    assert "ledger.jsonl is missing, with its " in charrun("verify", "--runs-dir", runs).text


def test_a_torn_last_entry_is_dropped(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER)
    number = entered(ledger)
    with (tmp_path / LEDGER).open("ab") as file:
        file.write(b'{"id":"torn')
    assert list(read_ledger(tmp_path / LEDGER).open) == [number]
    ledger.settle(number, MOST)
    assert read_ledger(tmp_path / LEDGER).used == {HERE: MOST}
    assert b"torn" not in (tmp_path / LEDGER).read_bytes()


def test_a_full_disk_enters_nothing_and_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / LEDGER)

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EnvironmentProblem, match=r"ledger.jsonl: No space left"):
        ledger.reserve(HERE, MOST, always)
    monkeypatch.undo()
    assert not ledger.totals.open and (tmp_path / LEDGER).read_bytes() == b""
    entered(ledger)
