"""A run's own folder: `<runs-dir>/<name>/<n>/`.

Contract:
1. The journal only grows, one event a line, appended by one write.
2. Events are numbered without gaps, also where two processes write.
3. The end of a stage, a checkpoint and the end of a run are on the disk before the run goes on.
4. A torn last event is dropped before the next one is appended.
5. A damaged event is named, and the others are read.
6. `run.json` can be deleted and is rebuilt from the journal.
7. The run's number grows only when the resolved spec changes, its limits aside.
8. A damaged frozen spec is named and written anew.
9. The journal names a store folder, on the disk, before rows are stored there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.faults import reached
from charrun.secrets import hide
from charrun.store.canonical import canonical, digest
from charrun.store.files import alone, make_folder, read_json, sync_folder, write_json
from charrun.store.journal import read_journal
from charrun.store.lines import cut_torn_line, sealed, write_whole

JOURNAL_VERSION = 2
SPEC, JOURNAL, SNAPSHOT, LOCK = "spec.json", "journal.jsonl", "run.json", "lock.json"
_LIMITS = ("budget", "prices")
"""Parts of a spec that are no part of what a run is."""
_PASSING = ("message", "check")
"""Events that need not be on the disk before the run goes on."""


class RunFolder:
    """One run on disk: frozen spec, journal, snapshot, report.

    Attributes:
        folder: Where it lies.
        mended: What was damaged and is whole again, one sentence each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mended: list[str] = []
        self._journal = folder / JOURNAL
        self._sequence = 0
        self._size = 0

    @property
    def name(self) -> str:
        """Spec name and number, such as `pirate-mini/1`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def spec_digest(self) -> str:
        """Digest of the frozen spec; empty where it is missing or damaged."""
        frozen = read_json(self.folder / SPEC)
        return "" if frozen is None else spec_digest(frozen)

    @classmethod
    def open(cls, runs_dir: Path, name: str, spec: dict[str, Any]) -> RunFolder:
        """The folder of this resolved spec: the one that exists, else the next number.

        Raises:
            EnvironmentProblem: The folder can't be written.
        """
        home = make_folder(runs_dir / name)
        spec = json.loads(hide(canonical(spec)))  # as it will be kept
        try:
            with _alone_in(home):  # two that begin at once take two numbers, or of one spec the same
                return cls._found(home, spec)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {home}: {error.strerror or error}", "choose another place with --runs-dir"
            ) from error

    @classmethod
    def find(cls, runs_dir: Path, name: str, spec: dict[str, Any]) -> RunFolder | None:
        """The folder of this resolved spec, if there is one; nothing is written."""
        spec = json.loads(hide(canonical(spec)))
        with contextlib.suppress(OSError):
            return next((cls(folder) for folder, _ in _of(runs_dir / name, spec)), None)
        return None

    @classmethod
    def _found(cls, home: Path, spec: dict[str, Any]) -> RunFolder:
        for folder, frozen in _of(home, spec):
            run = cls(folder)
            if frozen is None:
                run.mended.append(f"{folder / SPEC} was missing or damaged and is written anew")
            if frozen != spec:  # damaged, or of other limits
                write_json(folder / SPEC, spec)
            return run
        folder = make_folder(home / str(max(_numbers(home), default=0) + 1))
        write_json(folder / SPEC, spec)
        return cls(folder)

    def record(self, event: str, **fields: Any) -> None:
        """Append one event to the journal.

        Raises:
            OSError: The journal can't be written; nothing of the event is left.
        """
        reached("journal.before")
        is_new = not self._journal.exists()
        handle = os.open(self._journal, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            with alone(handle):
                size = os.fstat(handle).st_size
                if size != self._size:
                    size = self._catch_up(handle)
                head = {"v": JOURNAL_VERSION, "seq": self._sequence, "time": round(time.time(), 3), "event": event}
                line = sealed({**head, **fields})
                write_whole(handle, line, size)
                self._size = size + len(line)
                self._sequence += 1
            if event not in _PASSING:
                os.fsync(handle)
        finally:
            os.close(handle)
        if is_new:
            sync_folder(self.folder)
        reached("journal.after")

    def events(self) -> list[dict[str, Any]]:
        """All sound events so far, oldest first."""
        return [dict(event) for event in read_journal(self._journal).events]

    def write(self, name: str, value: dict[str, Any]) -> Path:
        """Write a JSON file into the run's folder."""
        path = self.folder / name
        write_json(path, value)
        return path

    def _catch_up(self, handle: int) -> int:
        """Learn what others have appended, or earlier processes; returns the size without a torn last line."""
        size = cut_torn_line(handle)
        start = self._size if self._size < size else 0
        self._sequence = self._sequence if start else 0
        while start < size:
            block = os.pread(handle, min(1 << 20, size - start), start)
            self._sequence += block.count(b"\n")
            start += len(block)
        return size


def _of(home: Path, spec: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any] | None]]:
    """The runs of a resolved spec, the latest first, each with its frozen spec; None where that is damaged."""
    wanted = spec_digest(spec)
    for number in sorted(_numbers(home), reverse=True):
        folder = home / str(number)
        frozen = read_json(folder / SPEC)
        if wanted == spec_digest(frozen) if frozen is not None else wanted in specs_of(folder):
            yield folder, frozen


def _numbers(home: Path) -> list[int]:
    return [int(path.name) for path in home.iterdir() if path.name.isascii() and path.name.isdigit()]


def spec_digest(spec: Mapping[str, Any]) -> str:
    """Digest of a resolved spec without its limits: a run goes on under another budget."""
    return digest({name: value for name, value in spec.items() if name not in _LIMITS})


def specs_of(folder: Path) -> set[str]:
    """Digests of the resolved specs that a run was begun with, as its journal tells."""
    try:
        return {str(event["spec"]) for event in read_journal(folder / JOURNAL).events if event.get("spec")}
    except OSError:
        return set()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder for a moment, as far as folders can be locked here."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows
        yield
        return
    try:
        with alone(handle):
            yield
    finally:
        os.close(handle)
