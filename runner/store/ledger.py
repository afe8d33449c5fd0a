"""What a run has asked for: `ledger.jsonl` in its folder, one line before a request is sent, one when it has ended.

Contract:
1. A request is in the ledger before it is sent.
2. An answered request counts what it used and an unanswered one the most that it can have used.
3. Processes of one run see each other's requests before they send their own.
4. A damaged ledger line is named and what is whole of its request counts.
5. Lines that the journal tells of and the ledger lacks are named.

The ledger tells what this run paid for. A ticket tells what its work has used, whichever run paid.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from charrun.faults import reached
from charrun.store.files import alone
from charrun.store.lines import GrowingFile, cut_torn_line, sealed, unsealed
from charrun.usage import Usage

LEDGER = "ledger.jsonl"
LEDGER_LINES, LEDGER_LOST = "ledger_lines", "ledger_lost"
"""Under which events tell how many whole lines the ledger had, and how many of those told before were not there."""
_BLOCK = 1 << 20
_LOOKS, _LOOK_SECONDS = 5, 0.002
LEDGER_NOTE = "ledger"
"""Under which a session at the engine carries the name of its process."""


@dataclass(frozen=True)
class Place:
    """For what a request is: cell, stage item and base model."""

    cell: str
    stage: str
    model: str


@dataclass
class Totals:
    """What the lines of a ledger add up to.

    Attributes:
        used: What ended requests used, by place.
        times: Of answered requests, by place, the seconds until the answer and those that they waited to be sent.
        open: Of requests without an end, by their number: where, and the most that they can use.
        damaged: Numbers of lines that can't be used.
        lines: How many whole lines were taken.
        processes: By the name of each process that entered them, what those of its requests used that have an end, by
            place; sessions at the engine carry that name.
    """

    used: dict[Place, Usage] = field(default_factory=dict)
    times: dict[Place, list[tuple[float, float]]] = field(default_factory=dict)
    open: dict[str, tuple[Place, Usage]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    processes: dict[str, dict[Place, Usage]] = field(default_factory=dict)
    lines: int = 0
    _ended: set[str] = field(default_factory=set)

    def take(self, line: bytes) -> tuple[Place, Usage] | None:
        """Add a whole line; returns where it changes what is counted, and by how much."""
        self.lines += 1
        value = unsealed(line)
        if value is None:
            self.damaged.append(self.lines)
            return None
        number = str(value["id"])
        own = self.processes.setdefault(process_of(number), {})
        if "most" in value:
            place, most = Place(value["cell"], value["stage"], value["model"]), Usage.of(value["most"])
            self.open[number] = place, most
            return place, most
        if number in self._ended:  # settled by the bill before it ended after all
            return None
        self._ended.add(number)
        place, used = Place(value["cell"], value["stage"], value["model"]), Usage.of(value["used"])
        self.used.setdefault(place, Usage()).add(used)
        own.setdefault(place, Usage()).add(used)
        if "seconds" in value:
            self.times.setdefault(place, []).append((float(value["seconds"]), float(value["waited"])))
        _, most = self.open.pop(number, (place, Usage()))  # its beginning may be damaged
        change = Usage.of(value["used"])
        change.add(most, -1)
        return place, change

    def in_doubt(self) -> dict[Place, Usage]:
        """The most that requests without an end can have used, by place."""
        found: dict[Place, Usage] = {}
        for place, most in self.open.values():
            found.setdefault(place, Usage()).add(most)
        return found

    def all(self) -> Usage:
        """What ended requests used, all together."""
        total = Usage()
        for usage in self.used.values():
            total.add(usage)
        return total


def process_of(number: str) -> str:
    """The name of the process that has entered a request."""
    return number.partition(".")[0]


Heard = Callable[[Place, Usage], None]
"""Told of each change of what is counted: where, and by how much."""


def lines_told(events: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many lines a journal's events say that there are, and how many had gone when the run went on."""
    told = lost = 0
    for event in events:
        if LEDGER_LOST in event:
            told, lost = int(event[LEDGER_LINES]), lost + int(event[LEDGER_LOST])
        told = max(told, int(event.get(LEDGER_LINES, 0)))
    return told, lost


class Ledger(GrowingFile):
    """A run's ledger, open for writing; several processes may have it open.

    A line is appended by one write, which needs no lock. Only who asks what still fits keeps the others out meanwhile,
    and reads what they have entered.

    Attributes:
        totals: What its lines add up to, as far as this process has read them.
        process: What this process is called in it.
    """

    def __init__(self, path: Path, heard: Heard | None = None) -> None:
        super().__init__(path)
        self.totals = Totals()
        self.process = uuid.uuid4().hex[:8]
        self._own = f'"id":"{self.process}.'.encode()
        self._heard = heard or (lambda place, change: None)
        self._count = 0
        self._seen = self._end = 0
        with self._alone():
            pass

    def reserve(self, place: Place, most: Usage, fits: Callable[[Place, Usage], bool] | None = None) -> str | None:
        """Enter a request before it is sent.

        Args:
            place: For what it is.
            most: The most that it can use.
            fits: Whether that may still be asked for, given what all processes have entered until now; without it
                anything may.

        Returns:
            Its number; None where it does not fit, and nothing is entered.

        Raises:
            EnvironmentProblem: The disk is full or fails; nothing of the line is left.
        """
        number = f"{self.process}.{self._count + 1}"
        entry = {"id": number, **asdict(place), "most": most.counted()}
        if fits is None:
            self._append(entry)
        else:
            with self._alone():
                if not fits(place, most):
                    return None
                self._append(entry)
        self._count += 1
        reached("ledger.reserved")
        return number

    def settle(self, number: str, used: Usage, times: tuple[float, float] | None = None) -> None:
        """Enter the end of a request.

        Args:
            number: Its number.
            used: What it used.
            times: Seconds until it was answered, and those that it waited to be sent.

        Raises:
            EnvironmentProblem: The disk is full or fails; nothing of the line is left.
        """
        place, _ = self.totals.open[number]
        took = {} if times is None else {"seconds": round(times[0], 3), "waited": round(times[1], 3)}
        self._append({"id": number, **asdict(place), "used": used.counted(), **took})
        reached("ledger.settled")

    def _append(self, value: dict[str, Any]) -> None:
        line = sealed(value)
        with self.told():
            size = os.fstat(self._handle).st_size
            if size != self._end and self._is_torn(size):  # another process has died while it wrote
                self._cut()
                size = os.fstat(self._handle).st_size
            self.write(line)
        self._end = size + len(line)
        self._take(line)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep out other processes that ask what fits, and learn what all have entered."""
        with self.told(), alone(self._handle):
            self._drop_torn_line()
            size = self._end = os.fstat(self._handle).st_size
            while self._seen < size:
                text = os.pread(self._handle, _BLOCK, self._seen)
                whole = text[: text.rfind(b"\n") + 1]
                if not whole:
                    break
                for line in whole.splitlines(keepends=True):
                    self._seen += len(line)
                    if self._own not in line:
                        self._take(line)
            yield

    def _drop_torn_line(self) -> None:
        """What a process was writing when it died; what another one is writing now is whole in a moment."""
        for _ in range(_LOOKS):
            if not self._is_torn(os.fstat(self._handle).st_size):
                return
            time.sleep(_LOOK_SECONDS)
        cut_torn_line(self._handle)

    def _is_torn(self, size: int) -> bool:
        return size > 0 and os.pread(self._handle, 1, size - 1) != b"\n"

    def _cut(self) -> None:
        with alone(self._handle):
            self._drop_torn_line()

    def _take(self, line: bytes) -> None:
        change = self.totals.take(line)
        if change is not None:
            self._heard(*change)


def read_ledger(path: Path) -> Totals:
    """What a ledger's lines add up to; nothing where there is none. A torn last line is not a line.

    Raises:
        OSError: The file is there and can't be read.
    """
    totals = Totals()
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    totals.take(line)
    except FileNotFoundError:
        pass
    return totals
