"""A run's own folder: `<runs-dir>/<name>/<n>/`.

`journal.jsonl` is the truth, append-only, one event a line with a sequence number; `run.json` is a snapshot for
people; `spec.json` the frozen, resolved spec. `n` grows only when the resolved spec changes: the same spec
continues its folder.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.store.canonical import canonical, digest
from charrun.store.files import cut_torn_line, make_folder, read_json, read_rows, write_json

JOURNAL_VERSION = 1


class RunFolder:
    """One run on disk: frozen spec, journal, snapshot, report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / "journal.jsonl"
        self._sequence = 0
        if self._journal.exists():
            cut_torn_line(self._journal)
            self._sequence = self._journal.read_bytes().count(b"\n")

    @property
    def name(self) -> str:
        """Spec name and number, such as `pirate-mini/1`."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @classmethod
    def open(cls, runs_dir: Path, name: str, spec: dict[str, Any]) -> RunFolder:
        """The folder of this resolved spec: the one that exists, else the next number.

        Raises:
            EnvironmentProblem: The folder can't be written.
        """
        home = make_folder(runs_dir / name)
        wanted = digest(spec)
        numbers = sorted(int(p.name) for p in home.iterdir() if p.name.isdigit())
        for number in reversed(numbers):
            frozen = read_json(home / str(number) / "spec.json")
            if frozen is not None and digest(frozen) == wanted:
                return cls(home / str(number))
        folder = make_folder(home / str((numbers[-1] if numbers else 0) + 1))
        try:
            write_json(folder / "spec.json", spec)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {folder}: {error.strerror or error}") from error
        return cls(folder)

    def record(self, event: str, **fields: Any) -> None:
        """Append one event to the journal."""
        line = {
            "v": JOURNAL_VERSION,
            "seq": self._sequence,
            "time": round(time.time(), 3),
            "event": event,
            **fields,
        }
        handle = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, (canonical(line) + "\n").encode())
            if event.endswith(("_finished", "_failed", "_published")):
                os.fsync(handle)
        finally:
            os.close(handle)
        self._sequence += 1

    def events(self) -> list[dict[str, Any]]:
        """All events so far, oldest first."""
        return list(read_rows(self._journal)) if self._journal.exists() else []

    def snapshot(self, value: dict[str, Any]) -> None:
        """Write `run.json`."""
        write_json(self.folder / "run.json", value)

    def write(self, name: str, value: Any) -> Path:
        """Write a JSON file into the run's folder."""
        path = self.folder / name
        write_json(path, value)
        return path
