"""One stage in one cell: its fingerprint, what of it is already done, and making the rest."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import events
from charrun.errors import EnvironmentProblem, StageFailed
from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import running
from charrun.pipeline.identity import content, describe, numbers, with_inputs
from charrun.pipeline.results import StageResult
from charrun.service.ledger import Usage
from charrun.spec import StageItem
from charrun.store.canonical import digest, digest_rows
from charrun.store.files import make_folder, read_json, read_rows, set_aside, write_json, write_rows
from charrun.store.lock import writing

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell
    from charrun.stage import Row, Stage

CHECKPOINT = "checkpoint"
_LENGTH = 16
_FULL = (errno.ENOSPC, errno.EDQUOT)
_RECORDS = ("done", "items.jsonl", "scores.jsonl")
Outputs = Mapping[str, list["Row"]]


@dataclass(frozen=True)
class _Place:
    """Where a stage's outputs belong: its store folder, and the ticket of this number of rows from these inputs."""

    described: dict[str, Any]
    fingerprint: str
    folder: Path
    ticket: Path


class StageRun:
    """Makes its outputs once, finds them again, and makes more when asked.

    Attributes:
        left_out: Whether the selection begins after it, so that its outputs must be there already.
        forced: Whether it is made anew although it is done.
        extra: Rows that later stages asked for beyond the scale's number.
    """

    def __init__(self, cell: Cell, item: StageItem, stage: Stage, earlier: tuple[StageRun, ...]) -> None:
        self.cell = cell
        self.item = item
        self.stage = stage
        self.options = item.options
        self.left_out = False
        self.forced = False
        self.extra = 0
        self.fingerprint = ""
        self.folder = Path()
        self.result: StageResult | None = None
        self._earlier = earlier
        self._outputs: Outputs | None = None
        self._absent = False
        self._published: dict[str, list[Row]] = {}
        self._lock = asyncio.Lock()
        self._usage = Usage()
        self._done = self._total = 0

    # -- upstream -------------------------------------------------------------------------------------------------

    def producers(self, kind: str) -> list[StageRun]:
        """Earlier stages that produce a kind, in order; only those that `needs` names, where it names one of them."""
        found = [run for run in self._earlier if kind in run.stage.produces]
        named = [run for run in found if run.item.id in self.item.needs]
        return named or found

    def producer(self, kind: str) -> StageRun:
        """The nearest of them."""
        found = self.producers(kind)
        if not found:
            raise StageFailed(f"{self.item.id}: no earlier stage produces '{kind}'")
        return found[-1]

    def inputs(self) -> list[tuple[str, StageRun]]:
        """Every kind that it uses with each stage that produces it."""
        kinds = (*self.stage.consumes, *self.stage.optional)
        return [(kind, run) for kind in kinds for run in self.producers(kind)]

    # -- outputs --------------------------------------------------------------------------------------------------

    async def ensure(self, more: int = 0) -> Outputs:
        """The stage's outputs, from the store or made now; with `more`, that many rows more than before."""
        async with self._lock:
            if more:
                self.extra += more
                self._outputs = None
            if self._outputs is None:
                self._outputs = await self._make()
            return self._outputs

    def peek(self) -> Outputs | None:
        """The outputs, if they and everything they depend on are in the store; nothing is made or written.

        The answer is kept: it is for what is asked before a run.
        """
        if self._outputs is None and not self._absent:
            inputs = {(kind, run.item.id): run.peek() for kind, run in self.inputs()}
            known = {place: outputs for place, outputs in inputs.items() if outputs is not None}
            if len(known) == len(inputs) and not self.forced:
                ticket = self._locate(known).ticket
                self._outputs = self._read(ticket, mend=False)
                self._recall(ticket)
            self._absent = self._outputs is None
        return self._outputs

    def publish(self, kind: str, rows: Sequence[Row]) -> None:
        """Collect rows of a kind; a kind that the stage does not declare is a defect of the stage."""
        if kind not in self.stage.produces:
            raise StageFailed(f"{self.item.id} published '{kind}', which its `produces` does not name")
        self._published[kind] = list(rows)

    def count(self, usage: Usage) -> None:
        """Add to the token counts and show them."""
        self._usage.add(usage)
        self.progress()

    def progress(self, done: int = 0, total: int | None = None) -> None:
        """Show work done."""
        if total is not None:
            self._done, self._total = 0, total
        self._done += done
        self.tell(events.StageProgressed(*self.place, self._done, self._total, self._usage.tokens))

    @property
    def place(self) -> tuple[str, str]:
        """Cell and stage item, as events name them."""
        return self.cell.name, self.item.id

    def tell(self, event: events.Event) -> None:
        """Tell those who watch."""
        self.cell.shared.observers.tell(event)

    @cached_property
    def described(self) -> dict[str, Any]:
        """What it depends on, consumed rows aside."""
        return describe(self)

    @cached_property
    def described_digest(self) -> str:
        """Digest of what it depends on, consumed rows aside."""
        return digest(self.described)

    # -- making ---------------------------------------------------------------------------------------------------

    def _locate(self, inputs: Mapping[tuple[str, str], Outputs]) -> _Place:
        rows = {f"{kind} of {id}": digest_rows(map(content, outputs[kind])) for (kind, id), outputs in inputs.items()}
        described = with_inputs(self, self.described, rows)
        self.fingerprint = digest(described)
        self.folder = self.cell.shared.store / f"{self.item.uses}-{self.fingerprint[:_LENGTH]}"
        ticket = digest([numbers(self.cell.scale), self.extra, rows])[:_LENGTH]
        return _Place(described, self.fingerprint, self.folder, self.folder / "done" / f"{ticket}.json")

    async def _make(self) -> Outputs:
        inputs = {(kind, run.item.id): await run.ensure() for kind, run in self.inputs()}
        place = self._locate(inputs)
        async with self.cell.shared.turn(place.folder):  # cells that share this work take turns: one makes, all read
            forced = self.forced and self.cell.shared.force(place.folder)
            found = None if forced else self._read(place.ticket)
            if found is not None:
                self._record_found(place.ticket)
                self._recall(place.ticket)
                return found
            if self.left_out and not self.extra:
                raise StageFailed(f"{self.item.id} is not done, and --from leaves it out", "run it first")
            make_folder(place.ticket.parent)
            for kind, run in self.inputs():
                if kind == CHECKPOINT:
                    await run.renew_lost_checkpoint()
            try:
                with writing(place.folder):
                    if forced:
                        set_aside(place.folder, _RECORDS)
                        make_folder(place.ticket.parent)
                    write_json(place.folder / "stage.json", place.described)
                    return await self._work(place.ticket)
            except OSError as error:
                remedy = "make room" if error.errno in _FULL else "see to it"
                raise EnvironmentProblem(
                    f"{self.item.id}: {error.strerror or error}: {error.filename or place.folder}",
                    f"what is recorded stays; {remedy} and run the same command again",
                ) from error

    async def _work(self, ticket: Path) -> Outputs:
        shared = self.cell.shared
        self._published = {}
        self._usage, self._done, self._total = Usage(), 0, 0
        shared.record("stage_started", self, folder=self.folder.name, extra=self.extra)
        self.tell(events.StageStarted(*self.place, self.item.uses, self.stage.summary))
        context = StageContext(self)
        started = time.monotonic()
        try:
            with running(type(self.stage), self.item.id, self.folder):
                try:
                    await self.stage.run(context)
                finally:
                    context.close()
                self._store(ticket, time.monotonic() - started)
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
            shared.record("stage_failed", self, error=told)
            stopped = isinstance(error, asyncio.CancelledError)
            self.tell(events.StageFailed(*self.place, "stopped before it was done" if stopped else told))
            raise
        outputs = self._read(ticket)
        assert outputs is not None, "just written"
        self.tell(self._finished())
        return outputs

    def _store(self, ticket: Path, seconds: float) -> None:
        lacking = [kind for kind in self.stage.produces if kind not in self._published]
        if lacking:
            raise StageFailed(f"{self.item.id} ended without publishing {', '.join(lacking)}")
        outputs = {}
        for kind, rows in self._published.items():
            sha = digest_rows(rows)
            name = f"{kind}-{sha[:_LENGTH]}.jsonl"
            if not (self.folder / name).exists():
                write_rows(self.folder / name, rows)
            outputs[kind] = {"file": name, "rows": len(rows), "sha256": sha}
        past = self.result.usage.to_dict() if self.result and not self.result.cached else {}
        before = self.result.seconds if past and self.result else 0.0
        usage = Usage(**past)
        usage.add(self._usage)
        asked = {run.item.id: run.extra for _, run in self.inputs() if run.extra}
        spent = {"seconds": round(before + seconds, 3), "usage": usage.to_dict()}
        write_json(ticket, {"outputs": outputs, "asked_for": asked, **spent})
        shared = self.cell.shared
        shared.record("stage_finished", self, outputs=outputs, seconds=round(seconds, 3), cached=False)
        self.result = StageResult(self.item.id, before + seconds, {}, usage, cached=False)

    def _read(self, ticket: Path, *, mend: bool = True) -> Outputs | None:
        entry = _entry(ticket)
        if entry is None or not set(self.stage.produces) <= set(entry["outputs"]):
            return None
        outputs = {}
        for kind, output in entry["outputs"].items():
            path = self.folder / output["file"]
            rows = _rows(path)
            if rows is None or digest_rows(rows) != output.get("sha256"):
                if mend:
                    self.cell.shared.message(self, f"{path} is missing or damaged and is made again")
                    path.unlink(missing_ok=True)
                return None
            outputs[kind] = rows
        fresh = self.result is not None and not self.result.cached
        self.result = StageResult(
            id=self.item.id,
            seconds=entry["seconds"],
            rows={kind: len(rows) for kind, rows in outputs.items()},
            usage=Usage(**entry["usage"]),
            cached=not fresh,
        )
        return outputs

    def _recall(self, ticket: Path) -> None:
        """Let earlier stages have the rows again that this one asked of them when it was made: later ones saw those."""
        asked = (_entry(ticket) or {}).get("asked_for", {})
        for _, run in self.inputs():
            extra = asked.get(run.item.id, 0)
            if extra > run.extra:
                run.extra, run._outputs, run._absent = extra, None, False

    def _record_found(self, ticket: Path) -> None:
        entry = _entry(ticket)
        assert entry is not None, "just read"
        outputs = entry["outputs"]
        self.cell.shared.record("stage_finished", self, folder=self.folder.name, outputs=outputs, cached=True)
        self.tell(self._finished())

    def _finished(self) -> events.StageFinished:
        done = self.result
        assert done is not None
        return events.StageFinished(*self.place, done.rows, done.seconds, done.usage.to_dict(), done.cached)

    async def renew_lost_checkpoint(self) -> None:
        """Train again where the engine no longer holds the stage's checkpoint."""
        outputs = await self.ensure()
        service = await self.cell.shared.service()
        if all([await service.exists(str(row["state"])) for row in outputs[CHECKPOINT]]):
            return
        self.cell.shared.message(self, f"the engine no longer holds the checkpoint of {self.item.id}: training again")
        lost = {row["state"] for row in outputs[CHECKPOINT]}
        async with self._lock:
            for ticket in (self.folder / "done").iterdir():
                if _holds(self.folder, ticket, lost):
                    ticket.unlink()
            self._outputs = await self._make()


def _holds(folder: Path, ticket: Path, states: set[Any]) -> bool:
    """Whether a ticket's checkpoint is one of these; another cell may have trained it anew meanwhile."""
    entry = _entry(ticket)
    rows = _rows(folder / entry["outputs"][CHECKPOINT]["file"]) if entry else None
    return rows is None or any(row["state"] in states for row in rows)


def _entry(ticket: Path) -> dict[str, Any] | None:
    """What a ticket says; None where it is missing or was damaged, so that it is made again."""
    entry = read_json(ticket)
    try:
        Usage(**entry["usage"])
        outputs = {kind: {**out, "file": str(out["file"])} for kind, out in entry["outputs"].items()}
        asked = {str(id): int(extra) for id, extra in entry.get("asked_for", {}).items()}
        return {**entry, "outputs": outputs, "asked_for": asked, "seconds": float(entry["seconds"])}
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _rows(path: Path) -> list[Row] | None:
    try:
        return list(read_rows(path))
    except (OSError, ValueError):
        return None
