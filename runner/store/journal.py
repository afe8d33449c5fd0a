"""Reading a run's journal while it may be written, torn or damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.store.lines import unsealed

Event = Mapping[str, Any]
_TAIL_BYTES = 1 << 16
_END_OF_TIME = 2.5e11
"""Calendars end in the year 9999."""


@dataclass(frozen=True)
class Journal:
    """What a journal holds.

    Attributes:
        events: Whole events in file order, each with an `event` (its name) and a `time` (seconds since 1970).
        damage: The first line that can't be read, such as `journal.jsonl:7 is damaged`; empty where there is none.
    """

    events: tuple[Event, ...]
    damage: str = ""


class Tail:
    """A journal that is read on from where the last reading ended.

    Only whole lines are taken: what follows the last line break is being written, or was when its writer died.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage = ""
        self._offset = 0
        self._lines = 0

    def read(self) -> list[Event]:
        """The events since the last call; none where the file is not there yet.

        Raises:
            OSError: The file is there and can't be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = []
        for line in whole.splitlines(keepends=True):
            self._lines += 1
            event = _event(line)
            if event is not None:
                found.append(event)
            elif not self.damage:
                self.damage = f"{self.path.name}:{self._lines} is damaged"
        return found


def read_journal(path: Path) -> Journal:
    """All of a journal; empty where there is none.

    Raises:
        OSError: The file is there and can't be read.
    """
    tail = Tail(path)
    return Journal(tuple(tail.read()), tail.damage)


def ends_whole(path: Path) -> bool:
    """Whether a journal ends with a whole line.

    Raises:
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return size > 0 and file.seek(size - 1) >= 0 and file.read(1) == b"\n"


def folders_in(events: Iterable[Event]) -> Iterator[str]:
    """Names of the store folders that events name, each as often as it is named."""
    for event in events:
        shared = event.get("shared")
        named = [event.get("folder"), *(shared if isinstance(shared, list) else [shared])]
        yield from (name for name in named if isinstance(name, str) and name)


def last_time(path: Path) -> float:
    """Time of a journal's last whole event, read from its end alone; 0 where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
    except OSError:
        return 0.0
    for line in reversed(lines):
        event = _event(line) if line.endswith(b"\n") else None
        if event is not None:
            return float(event["time"])
    return 0.0


def _event(line: bytes) -> Event | None:
    try:
        value = unsealed(line)
    except (ValueError, RecursionError):
        return None
    if value is None or not isinstance(value.get("event"), str):
        return None
    time = value.get("time")
    return value if isinstance(time, int | float) and 0 <= time < _END_OF_TIME else None
