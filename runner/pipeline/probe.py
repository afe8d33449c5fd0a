"""A few answers of each stage before anything is estimated: how long they are, then, is no guess.

A dry run makes the requests; a few of them are sent. What a base model was asked, after nothing but what is certain,
is kept as the run itself would keep it, which finds it there. Where the dry run could only make up what comes before,
and where a checkpoint will be asked, the base model is asked what the dry run would have, and the lengths are kept.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.errors import CharrunError
from charrun.pipeline.choice import Choice
from charrun.pipeline.meter import Meter, MeteredSampler
from charrun.pipeline.probe_requests import STAGE_FILE, Asked, Wanted, stored_as
from charrun.pipeline.prompt_cache import PromptCache
from charrun.pipeline.requests import answered, request_key, weights_name
from charrun.pipeline.spending import Spending
from charrun.pipeline.together import gather
from charrun.pipeline.waiting import Waiting
from charrun.service.explained import explained
from charrun.service.service import Service
from charrun.spec.prices import Cost, cost_of_all
from charrun.store.canonical import seed_from
from charrun.store.files import make_folder, write_atomic
from charrun.store.items import ItemStore, Record
from charrun.store.ledger import LEDGER_NOTE, Ledger, Place
from charrun.store.lock import FolderLock
from charrun.store.probes import keep_probe, probe_ledger
from charrun.usage import Usage, of_samples

if TYPE_CHECKING:
    from tinker import types

    from charrun.pipeline.shared import Shared
    from charrun.service.engine import Connection


@dataclass(frozen=True)
class Probed:
    """What a probe has done.

    Attributes:
        answers: How many it has asked for.
        kept: Of them those that the run will find.
        tokens: What they used.
        cost: What that cost; None where a price is not known.
    """

    answers: int
    kept: int
    tokens: int
    cost: Cost | None


def probe(choice: Choice, shared: Shared, wanted: Wanted) -> Probed:
    """Ask for them, all at once, and keep what comes; what it costs is in a ledger of its own.

    Args:
        choice: Where it runs.
        shared: The surroundings of the run that it is for.
        wanted: As `to_ask` gives it.

    Raises:
        EnvironmentProblem: The engine can't be reached, or the disk is full.
        StageFailed: The engine refuses.
        Interrupted: Ctrl-C.
    """
    path = probe_ledger(shared.runs_dir, choice.spec.name)
    make_folder(path.parent)
    with _Shelf(shared.store, wanted.answers) as shelf, Waiting() as waiting:
        connection = shared.reach()
        try:
            ledger = Ledger(path, None)
            try:
                work = _Probe(choice, shared, connection, ledger, shelf).all(wanted)
                return waiting.wait(work, connection.failure)
            finally:
                ledger.close()
        finally:
            connection.close()


class _Probe:
    """A session that asks."""

    def __init__(self, choice: Choice, shared: Shared, connection: Connection, ledger: Ledger, shelf: _Shelf) -> None:
        self._shared = shared
        self._shelf = shelf
        self._spending = Spending(lambda heard: ledger, shared.rates, None, {}, lambda error: None)
        self._service = Service(connection, {"probe": choice.spec.name, LEDGER_NOTE: ledger.process})
        self._refs = [ref for entry in choice.spec.models for ref in entry.roles.values()]
        self._used: dict[str, Usage] = {}
        self._failures: list[CharrunError] = []
        self._kept = 0
        self._caches: dict[str, PromptCache] = {}
        self._hits: dict[tuple[str, bool], list[int]] = {}

    async def all(self, wanted: Wanted) -> Probed:
        """Everything, at once: first answers, then scores."""
        try:
            await self._service.open()
            await gather([self._keep(each) for each in wanted.answers])
            await gather([self._score(model, each) for model, prompts in wanted.scored.items() for each in prompts])
            if self._failures:
                raise self._failures[0]
        finally:
            await self._service.close()
        models = {model for model, _ in self._hits}
        shares = {
            self._shared.namespace(model): {scores: self._share(model, scores) for scores in (False, True)}
            for model in models
        }
        keep_probe(self._shared.runs_dir, shares, self._shelf.folders)
        cost = cost_of_all(self._shared.all_rates(), self._used)
        return Probed(len(wanted.answers), self._kept, sum(each.tokens for each in self._used.values()), cost)

    def _share(self, model: str, scores: bool) -> float:
        """How much of what could be in the cache was in it; of what was not asked for as of the other."""
        for kind in (scores, not scores):
            possible, found = self._hits.get((model, kind), (0, 0))
            if possible:
                return min(1.0, found / possible)
        return 0.0

    async def _keep(self, asked: Asked) -> None:
        try:
            certain, record = await self._answer(asked)
        except CharrunError as error:  # what others were answered is kept nevertheless
            self._failures.append(error)
            return
        self._shelf.keep(asked if certain else replace(asked, folder=""), record)
        self._kept += bool(certain and asked.folder)

    async def _score(self, model: str, tokens: list[int]) -> None:
        await self._ask(model, "", tokens, None, 1)

    async def _answer(self, asked: Asked) -> tuple[bool, Record]:
        """One answer as the record that the stage would make of it, and whether it is what the stage would ask for."""
        from tinker import types

        record, given = asked.record, asked.record["input"]
        messages = json.loads(given["messages"])
        chats = [await self._service.chat(ref.name, ref.chat) for ref in self._refs if ref.name == asked.model]
        prefill = str(given.get("prefill", ""))
        prompts = {chat: chat.prompt(messages, prefill) for chat in chats}
        chat = next((each for each, tokens in prompts.items() if len(tokens) == record["prompt_tokens"]), chats[0])
        start = record["start"] + asked.index
        params = types.SamplingParams(
            stop=chat.stop_tokens,
            seed=int(given.get("seed", seed_from(record["key"], start))),
            max_tokens=int(given["max_tokens"]),
            temperature=float(given["temperature"]),
            top_p=float(given["top_p"]),
        )
        asks = {name: value for name, value in given.items() if name not in ("messages", "item", "seed", "prefill")}
        weights = weights_name(self._shared.namespace(asked.model), chat)
        certain = record["key"] in {
            request_key(weights, prompts[chat], given["item"], asks, given.get("seed"), seed)
            for seed in self._shared.spec.seeds
        }
        if "seed" in given and (start or len(record["sequences"]) > 1):  # one seed for several answers to one request
            certain = False
        response = await self._ask(asked.model, asked.stage, prompts[chat], params, 1)
        part = answered(response, chat, len(prompts[chat]), prefill)
        return certain, {**record, **part, "start": start, "model": asked.model}

    async def _ask(
        self, model: str, stage: str, prompt: list[int], params: types.SamplingParams | None, last_n: int
    ) -> types.SampleResponse:
        """Send a request; without parameters it scores its prompt."""
        from tinker import types

        context = self._service.context_length(model)
        meter = Meter(self._spending, Place("", stage, model), lambda usage: None)
        sampler = MeteredSampler(await self._service.sampler(model), meter, context)
        possible = self._caches.setdefault(model, PromptCache()).hits(prompt)
        whole, since = types.ModelInput.from_ints(prompt), time.monotonic()
        with explained():
            if params is None:
                response = await sampler.scored(whole, last_n, since)
            else:
                if context is not None and params.max_tokens is not None:
                    room = max(1, context - len(prompt))
                    params = params.model_copy(update={"max_tokens": min(params.max_tokens, room)})
                response = await sampler.asked(whole, 1, params, since)
        hits = int(response.prompt_cache_hit_tokens or 0)
        counts = self._hits.setdefault((model, params is None), [0, 0])
        counts[0] += possible
        counts[1] += hits
        sampled = 1 if params is None else len(response.sequences[0].tokens)
        self._used.setdefault(model, Usage()).add(of_samples(len(prompt), hits, 1, sampled))
        return response


class _Shelf:
    """The store folders of some answers, locked and open before any of them is paid for."""

    def __init__(self, store: Path, asked: Sequence[Asked]) -> None:
        self._store = store
        self._asked = asked
        self._locks: list[FolderLock] = []
        self._items: dict[Path, ItemStore] = {}

    def __enter__(self) -> _Shelf:
        try:
            for each in self._asked:
                self._open(each)
                self._open(replace(each, folder=""))  # where it proves not to be what the run asks for
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for items in self._items.values():
            items.close()
        for lock in self._locks:
            lock.release()

    @property
    def folders(self) -> list[str]:
        """Their names."""
        return [folder.name for folder in self._items]

    def keep(self, asked: Asked, record: Record) -> None:
        """Store an answer."""
        folder, key = stored_as(asked)
        items = self._items[self._store / folder]
        if items.sequence(key, record["start"]) is None:
            items.append({**record, "key": key})

    def _open(self, asked: Asked) -> None:
        folder = self._store / stored_as(asked)[0]
        if folder in self._items:
            return
        lock = FolderLock(make_folder(folder))
        lock.acquire()
        self._locks.append(lock)
        if asked.folder and asked.description and not (folder / STAGE_FILE).exists():
            write_atomic(folder / STAGE_FILE, asked.description)
        self._items[folder] = ItemStore(folder)
