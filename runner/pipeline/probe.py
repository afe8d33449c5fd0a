"""A few answers of each stage before anything is estimated: how long they are, then, is no guess.

A dry run makes the requests; a few of them are sent. What a base model was asked, after nothing but what is certain,
is kept as the run itself would keep it, which finds it there. Where the dry run could only make up what comes before,
and where a checkpoint will be asked, the base model is asked what the dry run would have, and the lengths are kept.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.errors import CharrunError
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.pipeline.choice import Choice
from charrun.pipeline.dry_run import DryRun, look_at
from charrun.pipeline.dry_service import PromptCache
from charrun.pipeline.lengths import PROBES, EarlierLengths, keep_cache_shares
from charrun.pipeline.meter import Meter, MeteredSampler
from charrun.pipeline.spending import Spending
from charrun.pipeline.together import gather
from charrun.pipeline.waiting import Waiting
from charrun.plugin_manager import Registry
from charrun.service.explained import explained
from charrun.service.service import Service
from charrun.spec.prices import Cost, Rates, cost_of
from charrun.store.canonical import digest, seed_from
from charrun.store.files import make_folder, write_atomic
from charrun.store.items import ANSWERS, ITEMS, ItemStore, Record
from charrun.store.ledger import LEDGER_NOTE, Ledger, Place
from charrun.store.lines import read_lines
from charrun.store.lock import FolderLock
from charrun.usage import Usage, of_samples

if TYPE_CHECKING:
    from tinker import types

    from charrun.pipeline.cell import Cell
    from charrun.pipeline.shared import Shared
    from charrun.pipeline.stage_run import StageRun
    from charrun.service.engine import Connection

STAGE_FILE = "stage.json"


@dataclass(frozen=True)
class Asked:
    """One answer that a stage would ask for.

    Attributes:
        stage: Name of the stage.
        model: Name of the base model.
        record: What the dry run has stored for it.
        folder: Where the run will look for it; empty where it would not use it.
        description: The stage file of that folder; empty where there is none.
        index: Which of the record's sequences it is.
    """

    stage: str
    model: str
    record: Record
    folder: str = ""
    description: str = ""
    index: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a probe asks for.

    Attributes:
        answers: Answers.
        scored: By base model, prompts that are scored, for what of them is in the engine's cache.
    """

    answers: Sequence[Asked]
    scored: Mapping[str, Sequence[list[int]]]

    def __bool__(self) -> bool:
        return bool(self.answers)


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


def to_ask(choice: Choice, registry: Registry, runs_dir: Path, cells: Sequence[Cell], rows: int) -> Wanted:
    """What a probe has to ask for, so that of each stage and base model so many answers are known."""
    found: list[Wanted] = []
    look_at(choice, registry, runs_dir, cells, lambda dry: found.append(_wanted(dry, runs_dir / "store", rows)))
    return found[0]


def _wanted(dry: DryRun, store: Path, rows: int) -> Wanted:
    service = dry.dry_service
    known = {model: prompts for model, prompts in service.scored.items() if model not in service.unknown}
    return Wanted(_asked(dry, store, rows), {model: prompts[:rows] for model, prompts in known.items()})


def _asked(dry: DryRun, store: Path, rows: int) -> list[Asked]:
    certain = _certain(dry.done) - {run.folder.name for run in dry.done if run.forced}
    probed = {base: store / _folder_of(base) / ITEMS for base in dry.dry_service.bases.values()}
    kept = {line.value["key"] for path in probed.values() for line in read_lines(path)}
    by: dict[tuple[str, str], list[Asked]] = {}
    for path in sorted(dry.store.glob(f"*/{ITEMS}")):
        real = store / path.parent.name / ITEMS
        begun = real.stat().st_size if real.is_file() else 0
        description = path.parent / STAGE_FILE
        shared = path.parent.name.startswith(ANSWERS)
        for line in read_lines(path):
            if line.offset < begun:
                continue
            record: Record = line.value  # type: ignore[assignment]
            base = dry.dry_service.bases.get(record["model"], record["model"])
            if base not in {ref.name for entry in dry.spec.models for ref in entry.roles.values()}:
                continue  # of a sampler of the stage's own
            of_base = base == record["model"]
            useful = of_base and (shared or path.parent.name in certain)
            told = description.read_text(encoding="utf-8") if useful and description.exists() else ""
            stage = record["work"].partition("/")[0].rpartition("-")[0]
            asked = Asked(stage, base, record, path.parent.name if useful else "", told)
            if not useful and _stored_as(asked)[1] in kept:
                continue
            by.setdefault((stage, base), []).append(asked)
    earlier, rng = EarlierLengths(store), random.Random(0)
    found = []
    for (stage, model), all_ in by.items():
        known = earlier.of(stage, model, dry.namespace(model))
        lacking = rows - (len(known.seen) if known.same else 0)
        rng.shuffle(all_)
        found += _spread(all_, lacking)
    return found


def _spread(asked: Sequence[Asked], number: int) -> list[Asked]:
    """So many single answers, of as many requests as there are."""
    found: list[Asked] = []
    index = 0
    while len(found) < number:
        having = [each for each in asked if index < len(each.record["sequences"])]
        if not having:
            break
        found += [replace(each, index=index) for each in having[: number - len(found)]]
        index += 1
    return found


def _certain(runs: Sequence[StageRun]) -> set[str]:
    """Folders of stages before which a dry run makes nothing up."""
    made_up: set[StageRun] = set()
    certain = set()
    for run in runs:
        if any(each in made_up for _, each in run.inputs()):
            made_up.add(run)
            continue
        certain.add(run.folder.name)
        is_done = run.result is not None and run.result.cached
        if not is_done and (CHECKPOINT in run.stage.produces or (run.folder / ITEMS).exists()):
            made_up.add(run)
    return certain


def most(wanted: Wanted, rates: Mapping[str, Rates | None]) -> Cost | None:
    """What it can cost, at the most; None where a price is not known."""
    costs = [cost_of(rates, each.model, _most(each)) for each in wanted.answers]
    for model, prompts in wanted.scored.items():
        costs += [cost_of(rates, model, of_samples(len(tokens), 0, 1, 1)) for tokens in prompts]
    known = [each for each in costs if each is not None]
    return sum(known, Cost()) if len(known) == len(costs) else None


def _most(asked: Asked) -> Usage:
    return of_samples(asked.record["prompt_tokens"], 0, 1, int(asked.record["input"]["max_tokens"]))


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
    path = make_folder(shared.runs_dir / PROBES) / f"{choice.spec.name}.jsonl"
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
        keep_cache_shares(self._shared.runs_dir, shares)
        costs = [cost_of(self._shared.all_rates(), model, usage) for model, usage in self._used.items()]
        known = [each for each in costs if each is not None]
        cost = sum(known, Cost()) if len(known) == len(costs) else None
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
        prompts = {chat: chat.prompt(messages) for chat in chats}
        chat = next((each for each, tokens in prompts.items() if len(tokens) == record["prompt_tokens"]), chats[0])
        start = record["start"] + asked.index
        params = types.SamplingParams(
            stop=chat.stop_tokens,
            seed=int(given.get("seed", seed_from(record["key"], start))),
            max_tokens=int(given["max_tokens"]),
            temperature=float(given["temperature"]),
            top_p=float(given["top_p"]),
        )
        rest = {name: value for name, value in given.items() if name not in ("messages", "item", "seed")}
        weights = digest([self._shared.namespace(asked.model), chat.template_text])
        key = {"weights": weights, "prompt": prompts[chat], "item": given["item"], "seed": given.get("seed"), **rest}
        certain = record["key"] in {digest({**key, "run_seed": seed}) for seed in self._shared.spec.seeds}
        if "seed" in given and (start or len(record["sequences"]) > 1):  # one seed for several answers to one request
            certain = False
        response = await self._ask(asked.model, asked.stage, prompts[chat], params, 1)
        (sequence,) = response.sequences
        return certain, {
            **record,
            "start": start,
            "model": asked.model,
            "sequences": [
                {
                    "text": chat.answer(sequence.tokens),
                    "tokens": list(sequence.tokens),
                    "stop_reason": sequence.stop_reason,
                }
            ],
            "prompt_tokens": len(prompts[chat]),
            "sampled_tokens": len(sequence.tokens),
            "cache_hit_tokens": int(response.prompt_cache_hit_tokens or 0),
        }

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


def _folder_of(model: str) -> str:
    """Where answers lie that are there for their lengths alone."""
    return f"{ANSWERS}{digest(['probe', model])[:16]}"


def _stored_as(asked: Asked) -> tuple[str, str]:
    """Folder and key: of one that is there for its length alone, a key that nobody asks for."""
    if asked.folder:
        return asked.folder, asked.record["key"]
    return _folder_of(asked.model), digest(["probe", asked.record["key"]])


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

    def keep(self, asked: Asked, record: Record) -> None:
        """Store an answer."""
        folder, key = _stored_as(asked)
        items = self._items[self._store / folder]
        if items.sequence(key, record["start"]) is None:
            items.append({**record, "key": key})

    def _open(self, asked: Asked) -> None:
        folder = self._store / _stored_as(asked)[0]
        if folder in self._items:
            return
        lock = FolderLock(make_folder(folder))
        lock.acquire()
        self._locks.append(lock)
        if asked.folder and asked.description and not (folder / STAGE_FILE).exists():
            write_atomic(folder / STAGE_FILE, asked.description)
        self._items[folder] = ItemStore(folder)
