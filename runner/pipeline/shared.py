"""What the cells of one run share: spec, store, engine, prompts, and those who watch."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import events
from charrun.errors import BudgetReached, EnvironmentProblem, Interrupted, Locked, StageFailed, disk_problem
from charrun.pipeline.answers import SharedAnswers
from charrun.pipeline.choice import Choice
from charrun.pipeline.defects import asking
from charrun.pipeline.lockfile import complete_lock
from charrun.pipeline.named import NamedCheckpoints
from charrun.pipeline.observers import Observers
from charrun.pipeline.prompts import Prompts
from charrun.pipeline.slots import Slots
from charrun.pipeline.spending import Spending
from charrun.pipeline.together import gather
from charrun.plugin_manager import Registry
from charrun.secrets import hide_message
from charrun.service.endpoint_client import look_at_all
from charrun.service.engine import Connection, EngineRequest, StoredCheckpoint
from charrun.service.models import local_folder
from charrun.service.pulse import pulse
from charrun.service.service import Service
from charrun.spec import Character, load_character
from charrun.spec.prices import FREE, Rates, own_rates, price_book, rates_of
from charrun.store.canonical import folder_digest
from charrun.store.journal import read_journal
from charrun.store.ledger import LEDGER, LEDGER_LINES, LEDGER_LOST, LEDGER_NOTE, Heard, Ledger, lines_told
from charrun.store.lock import FolderLock
from charrun.store.run import JOURNAL, LOCK, RunFolder

if TYPE_CHECKING:
    from charrun.pipeline.stage_run import StageRun

_POLL_SECONDS = 0.5


class Shared:
    """One run's surroundings. The engine is started and the SDK imported when a stage first needs them.

    Attributes:
        to_train: By base model and LoRA rank, the stage item that is going to train such an adapter.
        to_ask: Names of models at endpoints that are going to be asked.
        contexts: Longest prompt plus answer by model, as the engine said when it was looked at.
        lost: Paths of checkpoints that the engine is known not to hold any more.
        stopping: Whether a person has asked the run to stop: nothing is begun any more, what is in flight is awaited.
        dry: Whether nobody is at the other end.
        goes_ahead: Whether a stage may ask for what it can before its inputs are all there: not where money may run out
            before the trainings that all rests on have ended.
        failures: By ticket the errors of stages that have failed: cells that share the work share the failure.
    """

    dry = False
    goes_ahead = True

    def __init__(
        self,
        choice: Choice,
        registry: Registry,
        runs_dir: Path,
        folder: RunFolder,
        observers: Observers,
        *,
        wait: bool = False,
        budget: float | None = None,
    ) -> None:
        self.spec = choice.spec
        self.stand_ins = choice.stand_ins
        self.registry = registry
        self.engine = choice.engine
        self.runs_dir = runs_dir
        self.store = runs_dir / "store"
        self.folder = folder
        self.observers = observers
        self.prompts = Prompts({**registry.templates, **self.spec.templates})
        self.slots = Slots()
        self.exact = not self.engine.hosted
        self._connection: Connection | None = None
        self._service: Service | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._opening = asyncio.Lock()
        self.namespace = cache(self._namespace)
        self._turns: dict[Path, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._forced: set[Path] = set()
        self._wait = wait
        self.to_train: dict[tuple[str, int], str] = {}
        self.to_ask: set[str] = set()
        self.contexts: Mapping[str, int] = {}
        self.lost: set[str] = set()
        self.stopping = False
        self.failures: dict[Path, StageFailed] = {}
        self.answers = SharedAnswers(self.store, self.writing)
        self.named = NamedCheckpoints(runs_dir, self.held)
        self.rates = cache(self._rates)
        limit, caps = (budget if budget is not None else self.spec.budget_usd), self.spec.stage_budgets
        if not choice.paid:
            limit, caps = None, {}
        self._broke: BudgetReached | None = None
        self._asides: set[asyncio.Task[None]] = set()
        self._lines = 0  # of the ledger, as the last event told
        self.spending = Spending(self._ledger, self.rates, limit, caps, self.break_off, self.go_on)

    def turn(self, folder: Path) -> asyncio.Lock:
        """Held while a cell makes or reads what lies in a store folder; other processes are kept out by its file."""
        return self._turns[folder]

    def force(self, folder: Path) -> bool:
        """Whether a folder is still to be made anew in this run; true once, so that cells share the new work."""
        first = folder not in self._forced
        self._forced.add(folder)
        return first

    def stop(self) -> None:
        """Begin nothing any more; what is in flight is awaited."""
        self.stopping = True
        several = "requests in flight are" if pulse.waiting != 1 else "request in flight is"
        flight = f"{pulse.waiting:,} {several} awaited" if pulse.waiting else "nothing more is begun"
        self.message(None, f"stopping: {flight}; Ctrl-C again ends at once")

    def go_on(self) -> None:
        """Called before anything is begun.

        Raises:
            Interrupted: A person has asked the run to stop, or its budget is reached.
        """
        if self.stopping:
            raise self.why_stopped()

    def check_budget(self) -> None:
        """Called when everything is made.

        Raises:
            BudgetReached: The last answers used more than was reserved for them, and more than the budget.
        """
        if self._broke is not None:
            raise self.why_stopped()

    def why_stopped(self) -> Interrupted:
        """Why nothing is begun any more."""
        told = "interrupted: what is recorded stays", "run the same command again to continue"
        return Interrupted(*told) if self._broke is None else BudgetReached(self._broke.message, self._broke.hint)

    def raise_failure(self, ticket: Path) -> None:
        """The failure of the same work in another cell.

        Raises:
            StageFailed: It has failed in this run.
        """
        if ticket in self.failures:
            raise self.failures[ticket]

    @asynccontextmanager
    async def writing(self, folder: Path) -> AsyncIterator[None]:
        """Hold a store folder's lock against other processes; where the run was told to wait, wait for it.

        Raises:
            Locked: Another process holds it, and nobody said to wait.
            EnvironmentProblem: The folder can't be locked.
        """
        lock = FolderLock(folder)
        waiting = False
        while True:
            try:
                lock.acquire()
                break
            except Locked as error:
                if not self._wait:
                    raise
                if not waiting:
                    self.message(None, f"{error.message}; waiting for it")
                waiting = True
            await asyncio.sleep(_POLL_SECONDS)
            self.go_on()
        try:
            yield
        finally:
            lock.release()

    def held(self, paths: Sequence[str]) -> Mapping[str, bool]:
        """Which checkpoints the engine still holds, as far as that can be known without starting it."""
        with asking(type(self.engine)):
            held = self.engine.holds(paths, self._request())
        self.lost |= {path for path, there in held.items() if not there}
        return held

    def stored(self) -> Sequence[StoredCheckpoint]:
        """Every checkpoint that the engine keeps.

        Raises:
            EnvironmentProblem: It cannot be asked now.
        """
        with asking(type(self.engine)):
            return self.engine.stored(self._request())

    async def service(self) -> Service:
        """The SDK session, opened on first use.

        Raises:
            EnvironmentProblem: The engine can't be reached or does not serve what the spec names.
        """
        async with self._opening:
            if self._service is None:
                for told in await look_at_all(self.spec.endpoints[name] for name in sorted(self.to_ask)):
                    self.message(None, told)
                self._connection = await self._connect()
                self.exact = self._connection.exact
                note = {"run": self.folder.name, LEDGER_NOTE: self.spending.ledger.process}
                service = Service(self._connection, note)
                await service.open()
                self._service = service
                # Calls that cost nothing, before anything is paid.
                await gather([self._try_adapters(service), self._write_lock(service)])
            return self._service

    async def _write_lock(self, service: Service) -> None:
        self.folder.write(LOCK, await complete_lock(self, service))

    async def _try_adapters(self, service: Service) -> None:
        """Whether a hosted engine trains what is going to be trained: a fresh adapter costs nothing, and tells.

        Raises:
            EnvironmentProblem: It does not.
        """
        if not self.to_train or not self.engine.hosted:
            return
        session = await service.begin({"stage": "preflight"})
        try:
            for (model, rank), stage in self.to_train.items():
                try:
                    await session.new_adapter(model, rank, 0)
                except StageFailed as error:
                    raise EnvironmentProblem(
                        f"{model} can't be trained with LoRA rank {rank}, before anything was paid: {error.message}",
                        f"choose another rank, --set stages.{stage}.with.lora_rank=..., or another model",
                    ) from error
        finally:
            await session.close()

    async def take_adapter(self, folder: Path, model: str, name: str, note: Mapping[str, str]) -> tuple[str, str]:
        """See `Engine.take_adapter`; in a thread, since it reads and writes whole adapters."""
        with asking(type(self.engine)):
            return await asyncio.to_thread(self.engine.take_adapter, folder, model, name, note, self._request())

    async def _connect(self) -> Connection:
        """The engine, reached or started once: cells that wait for one that fails do not each try again."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(asyncio.to_thread(self.reach))
        return await asyncio.shield(self._connecting)

    def reach(self) -> Connection:
        """The engine, for whoever closes the connection again.

        Raises:
            EnvironmentProblem: It can't be reached or does not serve what the spec names.
        """
        with asking(type(self.engine)):
            return self.engine.connect(self._request())

    def look(self) -> None:
        """Whether a hosted engine and endpoints would be reached and serve what the spec names; nothing is paid.

        Raises:
            EnvironmentProblem: One can't be, or does not.
        """
        asyncio.run(look_at_all(self.spec.endpoints[name] for name in sorted(self.to_ask)))
        if self.engine.hosted:
            connection = self.reach()
            self.contexts = connection.contexts
            connection.close()

    async def await_end(self, stage: StageRun) -> None:
        """A stage has ended of which nothing is used.

        Raises:
            CharrunError: It has failed, and with it the cell.
        """
        await stage.ensure()

    def failure(self) -> str | None:
        """Why the engine is gone, or None while it lives or was never needed."""
        return self._connection.failure() if self._connection else None

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what nothing waits for; it is awaited when the run ends."""
        task = asyncio.ensure_future(work)
        self._asides.add(task)
        task.add_done_callback(self._asides.discard)

    async def close(self, status: str) -> None:
        """End the session and stop what the engine started, also where it was still starting."""
        for task in self._asides:
            if self.failure():
                task.cancel()
        await asyncio.gather(*self._asides, return_exceptions=True)
        try:
            if self._service and not self.failure():
                await self._service.close(status)
        finally:
            self.spending.close()
        if self._connecting:
            await asyncio.wait({self._connecting})
            if not self._connecting.exception():
                await asyncio.to_thread(self._connecting.result().close)

    def find_character(self, id: str, folder: Path) -> Character:
        """A character of the spec, or one that a plugin registers, or one by path relative to a folder."""
        known = {character.id: character for character in self.spec.characters}
        if id in known:
            return known[id]
        return load_character(self.registry.characters.get(id, folder / id), id)

    def record(self, event: str, stage: StageRun | None = None, **fields: Any) -> None:
        """Append an event to the run's journal."""
        place = {"cell": stage.cell.name, "stage": stage.item.id} if stage else {}
        if self.spending.lines > self._lines:
            fields[LEDGER_LINES] = self._lines = self.spending.lines
        try:
            self.folder.record(event, **place, **fields)
        except OSError as error:
            raise disk_problem(f"cannot write {self.folder.folder}", error) from error

    def message(self, stage: StageRun | None, text: str) -> None:
        """One line for the person who watches, and for the journal."""
        text = hide_message(text)
        self.record("message", stage, text=text)
        self.observers.tell(events.Message(text, *(stage.place if stage else ())))

    def all_rates(self) -> dict[str, Rates | None]:
        """What the tokens of the spec's models cost; None where nobody knows."""
        names = sorted({ref.name for entry in self.spec.models for ref in entry.roles.values()})
        return {name: self.rates(name) for name in names}

    def break_off(self, error: BudgetReached) -> None:
        """Begin nothing any more for the want of money."""
        self._broke = self._broke or error
        self.stopping = True

    def _ledger(self, heard: Heard) -> Ledger:
        ledger = Ledger(self.folder.folder / LEDGER, heard)
        for line in ledger.totals.damaged:
            self.message(None, f"{ledger.path}:{line} is damaged: it is counted no more")
        lines = ledger.totals.lines
        told, _ = lines_told(read_journal(self.folder.folder / JOURNAL).events)
        if lines < told:
            text = f"{ledger.path} has {lines:,} lines of {told:,}: what the others counted is counted no more"
            self.record("message", text=text, stage=None, **{LEDGER_LINES: lines, LEDGER_LOST: told - lines})
            self.observers.tell(events.Message(text))
        return ledger

    def _rates(self, model: str) -> Rates | None:
        """What a base model's tokens cost here; None where nobody knows."""
        endpoint = self.spec.endpoints.get(model)
        if endpoint is None and not self.engine.hosted:
            return FREE
        if model in self.spec.prices:
            return own_rates(self.spec.prices[model])
        if endpoint is not None:  # the price book is the hosted service's
            return None if endpoint.paid else FREE
        price = price_book().price(model)
        return rates_of(price) if price else None

    def _namespace(self, model: str) -> str:
        if model in self.spec.endpoints:
            return self.spec.endpoints[model].namespace
        folder = local_folder(model)
        identity = self.engine.namespace(model)
        return f"{identity}@{folder_digest(folder)}" if folder else identity

    def _request(self) -> EngineRequest:
        storage, log = self.runs_dir / "engine", self.folder.folder / "engine.log"
        options, sets = self.spec.engine.options, " ".join(self.spec.successors)
        trained = sorted({model for model, _ in self.to_train})
        return EngineRequest(self.spec.engine_models, options, storage, log, sets, trained)
