"""One piece of a stage's work: the record files that it has open, what it has published, what it has used.

What it used is added up from what is stored, so it counts what earlier processes did for the same work and were
killed: each record names its work, and what goes through neither samples nor scores has a line in `usage.jsonl`.
The lines of that file tell of wall time too, one each second at least while answers come.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import CharrunError, StageFailed
from charrun.pipeline.answers import Answers
from charrun.store.files import make_folder, sync_file, sync_folder, write_atomic
from charrun.store.items import RECORDS, USAGE, ItemStore
from charrun.store.lines import AppendFile, read_lines
from charrun.store.tickets import Ticket, publish, write_ticket
from charrun.store.training import REFERENCE, TRAINING, ReferenceLog, Saved, TrainingLog
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared
    from charrun.stage import Row


_GROWING = (*RECORDS, USAGE, TRAINING, REFERENCE)
_MARK_SECONDS = 1.0


class Work:
    """What is open while a stage makes its rows; its folder is locked.

    Attributes:
        id: Id of the stage item.
        folder: The store folder.
        ticket: The ticket that it will write.
        name: What records call it: folder and ticket.
        published: Rows by kind.
    """

    def __init__(self, shared: Shared, id: str, ticket: Path, tell: Callable[[str], None]) -> None:
        self.id = id
        self.folder = ticket.parent.parent
        self.ticket = ticket
        self.name = f"{self.folder.name}/{ticket.stem}"
        self.published: dict[str, Sequence[Row]] = {}
        self._shared = shared
        self._tell = tell
        self._files: dict[str, str] = {}
        self._answers: Answers | None = None
        self._common: dict[str, Answers] = {}
        self._training: TrainingLog | None = None
        self._reference: ReferenceLog | None = None
        self._usage = Usage()
        self._usage_file: AppendFile | None = None
        self._began = time.monotonic()
        self._before = self._told = 0.0
        self._is_over = False
        damaged: list[int] = []
        for line in read_lines(self.folder / USAGE, damaged):
            if line.value["work"] == self.name:
                self._usage.add(Usage(**line.value["usage"]))
                self._before += float(line.value.get("seconds", 0.0))  # earlier versions told of no time
        self._name_damage(self.folder, [f"{USAGE}:{number}" for number in damaged], "counted no more")

    # -- records --------------------------------------------------------------------------------------------------

    @property
    def answers(self) -> Answers:
        """The stage's own responses."""
        if self._answers is None:
            self._answers = Answers(ItemStore(self.folder))
            self._name_damage(self.folder, self._answers.items.damaged, "asked for again")
        return self._answers

    async def common(self, name: str) -> Answers:
        """Responses in a folder that other stages, cells and runs use too."""
        if name not in self._common:
            self._common[name] = await self._shared.answers.open(name)
            items = self._common[name].items
            self._name_damage(items.folder, items.damaged, "asked for again")
            items.damaged.clear()  # another stage of this run may have the folder open too
            self._shared.record("folder_used", shared=name, work=self.name)
        return self._common[name]

    @property
    def training(self) -> TrainingLog:
        """Steps and checkpoints."""
        if self._training is None:
            self._training = TrainingLog(self.folder)
            self._name_damage(self.folder, self._training.damaged, "trained again")
        return self._training

    @property
    def reference(self) -> ReferenceLog:
        """Log-probs under fresh weights."""
        if self._reference is None:
            self._reference = ReferenceLog(self.folder)
            self._name_damage(self.folder, self._reference.damaged, "computed again")
        return self._reference

    def _name_damage(self, folder: Path, lines: Sequence[str], remedy: str) -> None:
        for line in lines:
            self._tell(f"{folder / line} is damaged: what it held is {remedy}")

    # -- usage ----------------------------------------------------------------------------------------------------

    def count(self, usage: Usage) -> None:
        """Store what was used beside samples and scores."""
        if self._usage_file is None:
            self._usage_file = AppendFile(self.folder / USAGE)
        seconds = round(time.monotonic() - self._began - self._told, 3)
        self._usage_file.append({"work": self.name, "usage": usage.to_dict(), "seconds": seconds})
        self._told += seconds
        self._usage.add(usage)

    def mark(self) -> None:
        """Store the wall time, if none was stored for a second: a process that is killed tells of it no more."""
        if not self._is_over and time.monotonic() - self._began - self._told >= _MARK_SECONDS:
            self.count(Usage())

    @property
    def seconds(self) -> float:
        """Wall time of this work, whichever process did it."""
        return self._before + time.monotonic() - self._began

    def usage(self) -> Usage:
        """All that this work has used, whichever process did it."""
        total = Usage()
        total.add(self._usage)
        for answers in [*([self._answers] if self._answers else []), *self._common.values()]:
            total.add(answers.items.usage(self.name))
        return total

    # -- outputs --------------------------------------------------------------------------------------------------

    def write(self, name: str, pieces: str | Sequence[str]) -> Path:
        """Write a file of the work, whole; its digest stands in the ticket."""
        path = self.folder / name
        make_folder(path.parent)
        self._files[name] = write_atomic(path, pieces)
        return path

    def adopt(self, name: str, sha256: str) -> None:
        """Make a file that lies in the folder already part of the work; durable when this returns."""
        sync_file(self.folder / name)
        sync_folder((self.folder / name).parent)
        self._files[name] = sha256

    @property
    def trained(self) -> list[Saved]:
        """Checkpoints that only served to go on from."""
        return self._training.intermediates() if self._training else []

    def finish(
        self,
        kinds: Sequence[str],
        content: Callable[[Row], object],
        seconds: float,
        asked: Mapping[str, int],
        past: Ticket | None,
        made: Mapping[str, Any],
    ) -> Ticket:
        """Publish the rows and write the ticket.

        Args:
            kinds: What must have been published.
            content: What of a row counts as its content.
            seconds: Wall time of this work.
            asked: Rows asked of earlier stages beyond their scale's number, by stage id.
            past: The work that this one extends.
            made: For which scale, from which rows and by which versions.

        Raises:
            StageFailed: A kind was not published.
        """
        lacking = [kind for kind in kinds if kind not in self.published]
        if lacking:
            raise StageFailed(f"{self.id} ended without publishing {', '.join(lacking)}")
        outputs = {kind: publish(self.folder, kind, rows, content) for kind, rows in self.published.items()}
        usage, common = self.usage(), sorted(self._common)
        if past:
            usage.add(Usage(**past.usage))
        self._close_own()  # what the outputs were made of is on the disk before they count
        ticket = Ticket(
            outputs=outputs,
            files=dict(sorted(self._files.items())),
            sizes=self._sizes(common),
            asked_for=dict(asked),
            seconds=round(seconds + (past.seconds if past else 0.0), 3),
            usage=usage.to_dict(),
            shared=common,
            made=dict(made),
        )
        write_ticket(self.ticket, ticket)
        self._is_over = True
        return ticket

    def _sizes(self, common: Sequence[str]) -> dict[str, int]:
        """Bytes of the files that only grow, by path within the folder; of those that are shared from it."""
        names = [*_GROWING, *(f"../{name}/{record}" for name in common for record in RECORDS)]
        return {name: (self.folder / name).stat().st_size for name in names if (self.folder / name).exists()}

    async def close(self) -> None:
        """Make all records durable and close them; work that is not finished goes on with its time."""
        if not self._is_over and self.usage() != Usage():
            with contextlib.suppress(CharrunError):  # a full disk must not hide the error that it caused
                self.count(Usage())
        self._is_over = True
        self._close_own()
        for name in list(self._common):
            del self._common[name]
            await self._shared.answers.close(name)

    def _close_own(self) -> None:
        items = self._answers.items if self._answers else None
        for file in (items, self._training, self._reference, self._usage_file):
            if file is not None:
                file.close()
