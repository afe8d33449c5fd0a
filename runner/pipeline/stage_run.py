"""One stage in one cell: its fingerprint, what of it is already done, and making the rest."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import events
from charrun.errors import BudgetReached, Interrupted, Locked, StageFailed, disk_problem
from charrun.faults import reached
from charrun.pipeline.adapters import discard
from charrun.pipeline.ahead import NotYet, go_ahead
from charrun.pipeline.attempt import Attempt, attempting
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import running
from charrun.pipeline.identity import content, describe, how_made, numbered, numbers, with_inputs
from charrun.pipeline.results import StageResult
from charrun.spec import StageItem
from charrun.store.canonical import digest
from charrun.store.files import make_folder, set_aside, write_json
from charrun.store.items import RECORDS, USAGE
from charrun.store.tickets import DONE, Outputs, Ticket, described, read_ticket
from charrun.store.training import REFERENCE, TRAINING
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell
    from charrun.stage import Row, Stage

_LENGTH = 16
_TOLD_LATER = NotYet, StageFailed, Locked
_SET_ASIDE = (DONE, *RECORDS, TRAINING, REFERENCE, USAGE)


class StageRun:
    """Makes its outputs once, finds them again, and makes more when asked.

    Attributes:
        left_out: Whether the selection begins after it, so that its outputs must be there already.
        forced: Whether it is made anew although it is done.
        extra: Rows that later stages asked for beyond the scale's number.
        fingerprint: Digest of all that it depends on; empty while its inputs are not known.
        folder: Its store folder,
        ticket: the ticket of this number of rows from these inputs,
        consumed: and the digests of the rows that it consumes: all known with the fingerprint.
        made: Of outputs that are done, for which scale, from which rows and by which versions.
        earlier: The stages before it, in spec order.
        base: Of outputs that no later stage has asked for more of, the digests of the rows by kind.
        begins: Set once its training has made a step, or it has its rows, or has failed.
        is_at_work: Whether it makes its rows now.
        current: What is open while it runs.
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
        self.ticket = Path()
        self.consumed: dict[str, str] = {}
        self.made: Mapping[str, Any] = {}
        self.base: dict[str, str] = {}
        self.result: StageResult | None = None
        self._ticket: Ticket | None = None
        self.earlier = earlier
        self._outputs: Outputs | None = None
        self._absent = False
        self.current: Attempt | None = None
        self._lost: set[str] = set()
        self._lock = asyncio.Lock()
        self.begins = asyncio.Event()
        self.is_at_work = False

    # -- upstream -------------------------------------------------------------------------------------------------

    def producers(self, kind: str) -> list[StageRun]:
        """Earlier stages that produce a kind, in order; only those that `needs` names, where it names one of them."""
        found = [run for run in self.earlier if kind in run.stage.produces]
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

    async def ensure(self, extra: int = 0) -> Outputs:
        """The stage's outputs, from the store or made now, with at least so many rows beyond the scale's number."""
        async with self._lock:
            if extra > self.extra:
                self.extra = extra
                self._outputs = None
            if self._outputs is None:
                try:
                    self._outputs = await self._make()
                finally:
                    self.begins.set()
            return self._outputs

    async def rows(self, kind: str, extra: int = 0) -> list[Row]:
        """Rows of a kind, read now; of checkpoints only such that the engine still holds."""
        outputs = await self.ensure(extra)
        rows = outputs[kind].read()
        if kind == CHECKPOINT and (lost := await self._lost_of(rows)):
            self.cell.shared.message(
                self, f"the engine no longer holds {', '.join(sorted(lost))}: {self.item.id} trains again"
            )
            async with self._lock:
                self._lost |= lost
                self._outputs = await self._make()
            rows = self._outputs[kind].read()
        return rows

    def peek(self) -> Outputs | None:
        """The outputs, if they and everything they depend on are in the store; nothing is made or written.

        The answer is kept: it is for what is asked before a run.
        """
        if self._outputs is None and not self._absent:
            inputs = {(kind, run.item.id): run.peek() for kind, run in self.inputs()}
            known = {place: outputs for place, outputs in inputs.items() if outputs is not None}
            if len(known) == len(inputs) and not self.forced:
                self.locate({(kind, id): outputs[kind].content for (kind, id), outputs in known.items()})
                self._outputs = self._read()
            self._absent = self._outputs is None
        return self._outputs

    def checkpoint_is_lost(self) -> bool:
        """Whether the engine is known not to hold a checkpoint of its outputs any more; nothing is started to ask."""
        outputs = self.peek()
        if outputs is None or CHECKPOINT not in outputs:
            return False
        paths = [str(row[key]) for row in outputs[CHECKPOINT].read() for key in ("state", "sampler")]
        return False in self.cell.shared.held(paths).values()

    @property
    def attempt(self) -> Attempt:
        """What is open while the stage runs."""
        if self.current is None:
            raise StageFailed(f"{self.item.id} asks for its records before it runs", "a defect of the stage")
        return self.current

    @property
    def awaited(self) -> frozenset[StageRun]:
        """Stages that it goes ahead of just now: their checkpoints are not there yet."""
        return frozenset() if self.current is None else self.current.awaited

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

    def locate(self, inputs: Mapping[tuple[str, str], str]) -> dict[str, Any]:
        """Find fingerprint, folder and ticket; returns what the fingerprint is made of.

        Args:
            inputs: By kind and stage item, the digest of the content of its rows.
        """
        rows = {name: inputs[kind, run.item.id] for name, kind, run in numbered(self)}
        described = with_inputs(self, self.described, rows)
        self.fingerprint = digest(described)
        self.folder = self.cell.shared.store / f"{self.item.uses}-{self.fingerprint[:_LENGTH]}"
        # What it is asked for beyond its number it may ask for in turn: named by the rows before that, the work has one
        # name, whether its inputs have grown already or will.
        named = {n: run.base.get(kind, rows[n]) for n, kind, run in numbered(self)} if self.extra else rows
        ticket = digest([numbers(self.cell.scale), self.extra, named])[:_LENGTH]
        self.consumed, self.ticket = rows, self.folder / DONE / f"{ticket}.json"
        return described

    async def _make(self) -> Outputs:
        shared = self.cell.shared
        await go_ahead(self)
        for run in self.before():
            await shared.await_end(run)
        inputs = {(kind, run.item.id): (await run.ensure())[kind] for kind, run in self.inputs()}
        described = self.locate({place: artifact.content for place, artifact in inputs.items()})
        folder, ticket = self.folder, self.ticket
        async with shared.turn(folder):  # cells that share this work take turns: one makes, all read
            forced = self.forced and shared.force(folder)
            if not forced and (found := self._found()) is not None:
                return found
            if self.left_out and not self.extra:
                raise StageFailed(f"{self.item.id} is not done, and --from leaves it out", "run it first")
            shared.raise_failure(ticket)
            try:
                async with self._held():
                    if not forced and (found := self._found()) is not None:
                        return found  # another process has made it while this one waited
                    if forced:
                        set_aside(folder, _SET_ASIDE)
                        make_folder(ticket.parent)
                    self._void()
                    write_json(folder / "stage.json", described)
                    return await self._do()
            except StageFailed as error:
                shared.failures[ticket] = error
                raise

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[None]:
        """While it works in its folder; tells of a full disk, and of money that has run out."""
        shared = self.cell.shared
        shared.go_on()
        try:
            make_folder(self.ticket.parent)
            async with shared.writing(self.folder):
                yield
        except BudgetReached as error:
            shared.break_off(error)
            raise
        except OSError as error:
            raise disk_problem(f"{self.item.id}: {error.filename or self.folder}", error) from error

    async def go_ahead(self, described: dict[str, Any], awaited: frozenset[StageRun]) -> None:
        """Ask for what does not need the checkpoints of some stages; what is wrong is told when it is made."""
        async with self._held():
            write_json(self.folder / "stage.json", described)
            async with attempting(self, awaited):
                with contextlib.suppress(*_TOLD_LATER), running(type(self.stage), self.item.id, self.folder):
                    await self.stage.run(StageContext(self))
        ids = [run.item.id for run in self.earlier if run in awaited]
        self.cell.shared.record("stage_waits", self, awaited=ids)
        self.tell(events.StageWaits(*self.place, tuple(ids)))

    def before(self) -> list[StageRun]:
        """The stages that are to end before it begins, also where it uses nothing of them."""
        return [run for run in self.earlier if run in self.cell.selected and self._awaits(run)]

    def _awaits(self, earlier: StageRun) -> bool:
        """Whether it begins after another stage has ended.

        One that uses the same rows may ask for more of them, unless it is known to be made to run beside others.
        """
        if self.stage.awaits_all:
            return True
        return earlier.stage.awaits_all and not self.upstream().isdisjoint(earlier.upstream())

    def upstream(self) -> set[StageRun]:
        """All stages whose rows it rests on."""
        found = {run for _, run in self.inputs()}
        return found.union(*(run.upstream() for run in found))

    async def _do(self) -> Outputs:
        self.is_at_work = True
        try:
            async with attempting(self) as begun:
                with running(type(self.stage), self.item.id, self.folder):
                    await self.stage.run(StageContext(self))
                    reached("outputs.before")
                    asked = {run.item.id: run.extra for _, run in self.inputs() if run.extra}
                    work = begun.work
                    intermediates = [each.state for each in work.trained]
                    past = self._ticket if self.extra else None
                    done = work.finish(self.stage.produces, content, work.seconds, asked, past, how_made(self))
                    reached("outputs.after")
        finally:
            self.is_at_work = False
        outputs = self._take(done, cached=False)
        self._tell_end(done, cached=False)
        self.cell.shared.aside(discard(self, intermediates))
        return outputs

    def _tell_end(self, done: Ticket, **how: Any) -> None:
        told = {"outputs": described(done.outputs), "usage": done.usage, "shared": list(done.shared)}
        self.cell.shared.record("stage_finished", self, seconds=done.seconds, **how, **told)
        self.tell(self._finished())

    def tell_failure(self, error: BaseException) -> None:
        """Tell those who watch, and the journal, why it ended."""
        stopped = isinstance(error, asyncio.CancelledError | Interrupted)
        told = f"{type(error).__name__}: {error}"
        self.cell.shared.record("stage_failed", self, error=told, interrupted=stopped)
        self.tell(events.StageFailed(*self.place, events.STOPPED if stopped else told))

    def _found(self) -> Outputs | None:
        """Outputs that are done, told to those who watch."""
        outputs = self._read()
        if outputs is None or self._is_lost(outputs):
            return None
        assert self._ticket is not None
        self._tell_end(self._ticket, folder=self.folder.name, cached=True)
        return outputs

    def _read(self) -> Outputs | None:
        """Outputs that are done."""
        entry = read_ticket(self.ticket)
        if entry is None or not set(self.stage.produces) <= set(entry.outputs) or entry.damage(self.folder):
            return None
        for _, run in self.inputs():  # later stages saw the rows that this one had asked earlier ones for
            extra = entry.asked_for.get(run.item.id, 0)
            if extra > run.extra:
                run.extra, run._outputs, run._absent = extra, None, False
        return self._take(entry, cached=self.result is None or self.result.cached)

    def _take(self, entry: Ticket, *, cached: bool) -> Outputs:
        self._ticket = entry
        self.made = entry.made
        if not self.extra:
            self.base = {kind: artifact.content for kind, artifact in entry.outputs.items()}
        self.result = StageResult(
            id=self.item.id,
            seconds=entry.seconds,
            rows={kind: artifact.rows for kind, artifact in entry.outputs.items()},
            usage=Usage(**entry.usage),
            cached=cached,
        )
        return entry.outputs

    def _void(self) -> None:
        """Name what is damaged of work that was done, and set its ticket aside: it is made again."""
        entry = read_ticket(self.ticket)
        if entry is None:
            if self.ticket.exists():
                self.cell.shared.message(self, f"{self.ticket} is damaged: {self.item.id} is made again")
            return
        for path in entry.damage(self.folder):
            self.cell.shared.message(self, f"{path} is missing or damaged and is made again")
        for path in entry.shortened(self.folder):
            self.cell.shared.message(self, f"{path} is shorter than it was: what is missing is asked for again")
        set_aside(self.ticket.parent, [self.ticket.name])

    async def _lost_of(self, rows: Sequence[Row]) -> set[str]:
        """Paths among checkpoints that the engine no longer holds."""
        service = await self.cell.shared.service()
        paths = [str(row[key]) for row in rows for key in ("state", "sampler")]
        return {path for path in paths if not await service.exists(path)}

    def _is_lost(self, outputs: Outputs) -> bool:
        if not self._lost or CHECKPOINT not in outputs:
            return False
        return any({str(row["state"]), str(row["sampler"])} & self._lost for row in outputs[CHECKPOINT].read())

    def _finished(self) -> events.StageFinished:
        done = self.result
        assert done is not None
        return events.StageFinished(*self.place, done.rows, done.seconds, done.usage.to_dict(), done.cached)
