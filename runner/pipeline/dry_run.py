"""What a run will ask for: its stages themselves, run in a folder that is thrown away, with nobody to answer them.

So an estimate needs nothing of a stage's author, and counts what the stage really sends: prompts that grow over the
turns of a conversation, forward passes of a reference, what an evaluation scores. What is in the store already is
found there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import faults
from charrun.errors import CharrunError, StageFailed
from charrun.pipeline.choice import Choice
from charrun.pipeline.dry_service import DryService, NothingToFetch
from charrun.pipeline.lengths import PROBES, CacheShares, EarlierLengths, Lengths, cache_shares
from charrun.pipeline.observers import nobody
from charrun.pipeline.shared import Shared
from charrun.pipeline.together import gather
from charrun.pipeline.virtual_time import VirtualLoop, pace_of
from charrun.plugin_manager import Registry
from charrun.service.service import Service
from charrun.spec.prices import Cost, Rates, cost_of, price_book
from charrun.store.ledger import Place
from charrun.store.lock import HOLDER, LOCK
from charrun.store.run import RunFolder
from charrun.store.tickets import PUBLISHED
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell
    from charrun.pipeline.stage_run import StageRun

_TEXTS = "prompts/general.txt"
_MOST_ALIKE = 4
"""Cells of the same models and scale that are run; further ones are taken to be as these."""
_FACTOR = 10
"""Long answers are not made: those of a tenth of the way are, and the rest is extrapolated."""
_CACHE_SURE = 0.02
"""How far what a probe found in the engine's cache may be off."""
_stages: ContextVar[tuple[StageRun, ...]] = ContextVar("stages", default=())


@dataclass(frozen=True)
class Forecast:
    """What one stage of one cell will ask for.

    Attributes:
        low: At the least, by base model: short answers, and all in the engine's cache that can be.
        high: At the most: long answers, and nothing in it.
        bases: What the lengths of its answers rest on.
    """

    low: Mapping[str, Usage]
    high: Mapping[str, Usage]
    bases: tuple[str, ...]

    def cost(self, rates: Mapping[str, Rates | None]) -> Cost | None:
        """The least and the most that it costs; None where a price is not known."""
        low, high = _sum(rates, self.low), _sum(rates, self.high)
        return None if low is None or high is None else Cost(low.low, high.high)


@dataclass
class Foresight:
    """What a run will ask for.

    Attributes:
        stages: By cell and stage item.
        rates: What tokens cost, by base model; None where nobody knows.
        unknown: Models whose tokenizer is not on this machine: counted with charrun's own.
        gaps: Stages that could not be foreseen, each with the reason.
        times: How many seconds each cell takes, at the least and at the most.
    """

    stages: dict[tuple[str, str], Forecast]
    rates: dict[str, Rates | None]
    unknown: set[str]
    gaps: dict[tuple[str, str], str]
    times: dict[str, tuple[float, float]]

    def unpriced(self) -> list[str]:
        """Models of whose tokens some have no known price."""
        asked = (each for forecast in self.stages.values() for each in forecast.high.items())
        return sorted({model for model, usage in asked if cost_of(self.rates, model, usage) is None})

    @property
    def trained(self) -> list[str]:
        """Stage items that train."""
        found = (stage for (_, stage), each in self.stages.items() if any(u.trained_tokens for u in each.high.values()))
        return list(dict.fromkeys(found))

    def seconds(self, jobs: int) -> tuple[float, float]:
        """How long all of it takes, with so many cells at once: at the least and at the most."""
        ends = []
        for end in (0, 1):
            found = [each[end] for each in self.times.values()]
            whole, longest = sum(found), max(found, default=0.0)
            ends.append(max(longest, whole / jobs) if not end else min(whole, longest + whole / jobs))
        return ends[0], ends[1]

    def cost(self) -> Cost | None:
        """The least and the most that all of it costs; None where a price is not known."""
        found = [forecast.cost(self.rates) for forecast in self.stages.values()]
        known = [each for each in found if each is not None]
        return sum(known, Cost()) if len(known) == len(found) else None


def foresee(choice: Choice, registry: Registry, runs_dir: Path, cells: Sequence[Cell]) -> Foresight:
    """What a run of these cells would ask for; reads the store, and writes nothing but a folder that is gone again."""
    groups = _groups(cells)
    chosen = _chosen(cells, groups.values())
    short = _dry_run(choice, registry, runs_dir, chosen, 0.0)
    longer = _dry_run(choice, registry, runs_dir, chosen, 1 / _FACTOR) if short.guesses else short
    stages: dict[tuple[str, str], Forecast] = {}
    by_stage: dict[tuple[str, str], set[str]] = {}
    for place in short.used:
        by_stage.setdefault((place.cell, place.stage), set()).add(place.model)
    for (name, stage), models in by_stage.items():
        places = {model: Place(name, stage, model) for model in sorted(models)}
        slack = short.slack_of(stage)
        low, high = {}, {}
        for model, place in places.items():
            most, fewest = short.cached(place)
            used, longest = short.used[place], longer.used.get(place, short.used[place])
            low[model] = _scaled(_cached(used, most), 1 - slack)
            high[model] = _scaled(_cached(_extrapolated(used, longest, _FACTOR), fewest), 1 + slack)
        stages[name, stage] = Forecast(low, high, tuple(sorted(short.bases(stage, places))))
    times = {cell.name: _times(short, longer, cell.name) for cell in chosen}
    for group in groups.values():
        _fill(stages, group)
        run = [times[cell.name] for cell in _spread(group)]
        alike = min(each[0] for each in run), max(each[1] for each in run)
        times = {**{cell.name: alike for cell in group}, **times}
    return Foresight(stages, short.rates, short.unknown, short.gaps, times)


def look_at(
    choice: Choice, registry: Registry, runs_dir: Path, cells: Sequence[Cell], look: Callable[[DryRun], None]
) -> None:
    """Run these cells dry, and look at what that leaves before it is thrown away."""
    _dry_run(choice, registry, runs_dir, _chosen(cells, _groups(cells).values()), 0.0, look)


def _groups(cells: Sequence[Cell]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells that have something to do, by what that is: such cells are alike."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        left = [run.item.id for run in cell.selected if run.forced or run.peek() is None]
        if left:
            groups.setdefault((cell.models.id, cell.scale.name, *left), []).append(cell)
    return groups


def _chosen(cells: Sequence[Cell], groups: Iterable[Sequence[Cell]]) -> list[Cell]:
    """Those that are run, in their order: the first of several does what they share."""
    wanted = {id(cell) for group in groups for cell in _spread(group)}
    return [cell for cell in cells if id(cell) in wanted]


def _spread(group: Sequence[Cell]) -> list[Cell]:
    """A few cells of many that are alike, the first one and others from all over."""
    if len(group) <= _MOST_ALIKE:
        return list(group)
    return [group[round(n * (len(group) - 1) / (_MOST_ALIKE - 1))] for n in range(_MOST_ALIKE)]


def _fill(stages: dict[tuple[str, str], Forecast], group: Sequence[Cell]) -> None:
    """Cells that were not run are as those that were, but the first of them: it did what they share."""
    run = [cell.name for cell in _spread(group)]
    rest = [cell.name for cell in group if cell.name not in run]
    later = run[1:]
    for stage in {stage for cell, stage in stages if cell in later} if rest else ():
        known = [stages[cell, stage] for cell in later if (cell, stage) in stages]
        basis = f"like {len(later)} of {len(group)} such cells"
        low, high = (_mean([getattr(each, end) for each in known], len(later)) for end in ("low", "high"))
        for cell in rest:
            stages[cell, stage] = Forecast(low, high, (basis,))


def _mean(usages: Sequence[Mapping[str, Usage]], count: int) -> dict[str, Usage]:
    total: dict[str, Usage] = {}
    for each in usages:
        for model, usage in each.items():
            total.setdefault(model, Usage()).add(usage)
    return {m: Usage.of({n: round(c / count) for n, c in usage.to_dict().items()}) for m, usage in total.items()}


@dataclass
class _Found:
    """What a dry run asked for."""

    used: dict[Place, Usage]
    hits: dict[Place, Counter[bool]]
    cache: dict[str, CacheShares]
    seconds: dict[str, float]
    off: tuple[float, float]
    lengths: dict[str, set[Lengths]]
    rates: dict[str, Rates | None]
    unknown: set[str]
    gaps: dict[tuple[str, str], str]

    @property
    def guesses(self) -> bool:
        """Whether the length of some answers is guessed."""
        return any(each.guessed for found in self.lengths.values() for each in found)

    def bases(self, stage: str, models: Iterable[str]) -> set[str]:
        """What is said of a stage rests on."""
        found = {each.basis for each in self.lengths.get(stage, ())}
        return found | (
            {"what a probe found in the engine's cache"} if found and set(models) <= set(self.cache) else set()
        )

    def cached(self, place: Place) -> tuple[int, int]:
        """Tokens that will be in the engine's cache: the most and the fewest."""
        possible = self.hits.get(place, Counter())
        shares = self.cache.get(place.model)
        if shares is None:
            return possible.total(), 0
        likely = sum(shares[scores] * tokens for scores, tokens in possible.items())
        return min(possible.total(), round(likely * (1 + _CACHE_SURE))), round(likely * (1 - _CACHE_SURE))

    def slack_of(self, stage: str) -> float:
        """How far its tokens may be off; a stage that asks for no answers takes in those of others."""
        found = self.lengths.get(stage) or {each for lengths in self.lengths.values() for each in lengths}
        return max((each.slack for each in found), default=0.0)


def _dry_run(
    choice: Choice,
    registry: Registry,
    runs_dir: Path,
    cells: Sequence[Cell],
    share: float,
    look: Callable[[DryRun], None] = lambda dry: None,
) -> _Found:
    with tempfile.TemporaryDirectory(prefix="charrun-dry-run-") as scratch, faults.suspended():
        dry = DryRun(choice, registry, runs_dir, Path(scratch), share)
        try:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                runner.run(dry.all(cells))
            look(dry)
            used = dict(dry.spending.ledger.totals.used)
        finally:
            dry.spending.close()
        return _Found(
            used=used,
            hits=dry.hits,
            cache={name: shares for name in dry.all_rates() if (shares := cache_shares(runs_dir, dry.namespace(name)))},
            lengths=dry.lengths,
            rates=dry.all_rates(),
            unknown=dry.dry_service.unknown,
            gaps=dry.gaps,
            seconds=dry.seconds,
            off=dry.pace.off,
        )


def _times(short: _Found, longer: _Found, cell: str) -> tuple[float, float]:
    """How long a cell takes: time grows in proportion to the length of answers."""
    one = short.seconds.get(cell, 0.0)
    two = longer.seconds.get(cell, one)
    low, high = short.off
    return one * low, max(two, one + (two - one) * _FACTOR) * high


def _cached(usage: Usage, hits: int) -> Usage:
    """With tokens from the cache."""
    return replace(usage, prefill_tokens=usage.prefill_tokens - hits, cached_tokens=usage.cached_tokens + hits)


def _extrapolated(short: Usage, longer: Usage, factor: float) -> Usage:
    """All that is asked for grows in proportion to the length of answers."""
    one, two = short.to_dict(), longer.to_dict()
    return Usage.of({name: max(two[name], round(one[name] + (two[name] - one[name]) * factor)) for name in one})


def _scaled(usage: Usage, factor: float) -> Usage:
    counts = usage.to_dict()
    return Usage.of({n: round(c * factor) if n.endswith("_tokens") else c for n, c in counts.items()})


class DryRun(Shared):
    """A run's surroundings, with nobody at the other end, and with a store that lies over the real one.

    Attributes:
        done: The stages that were run or found.
        lengths: By stage item, what the lengths of its answers rest on.
        hits: Tokens that may be in the engine's cache, of prompts that are answered and of such that are scored.
        gaps: Stages that could not be foreseen, each with the reason.
        seconds: How long each cell takes.
        pace: How long requests take.
    """

    def __init__(self, choice: Choice, registry: Registry, runs_dir: Path, scratch: Path, share: float) -> None:
        free = replace(choice, spec=replace(choice.spec, budget_usd=None, stage_budgets={}))
        folder = RunFolder(scratch / "dry-run" / "1")
        folder.folder.mkdir(parents=True)
        super().__init__(free, registry, scratch, folder, nobody())
        self._real = runs_dir / "store"
        self._share = share
        self._earlier = EarlierLengths(self._real)
        self._rng = random.Random(0)
        self._laid: set[str] = set()
        self.done: list[StageRun] = []
        self.lengths: dict[str, set[Lengths]] = {}
        self.hits: dict[Place, Counter[bool]] = {}
        self.gaps: dict[tuple[str, str], str] = {}
        contexts = {name: each.context for name, each in price_book().models.items() if each.context}
        texts = (files("charrun.specs") / _TEXTS).read_text(encoding="utf-8")
        self.pace = pace_of(runs_dir, choice.spec.name, runs_dir / PROBES / f"{choice.spec.name}.jsonl")
        self.seconds: dict[str, float] = {}
        self.dry_service = DryService(self._draw, self._note, texts, contexts, self._seconds)

    async def all(self, cells: Sequence[Cell]) -> None:
        """All stages of these cells, as far as they can be foreseen."""
        from charrun.pipeline.cell import Cell
        from charrun.pipeline.selection import Selection

        for cell in cells:
            dry = Cell(self, cell.spec, Selection())
            for run, real in zip(dry.stages, cell.stages, strict=True):
                run.forced, run.left_out = real.forced, real.left_out
            wanted = [run for run, real in zip(dry.stages, cell.stages, strict=True) if real in cell.selected]
            dry.selected = wanted
            begun = asyncio.get_running_loop().time()
            await gather([self._one(run) for run in wanted])
            self.seconds[cell.name] = asyncio.get_running_loop().time() - begun
            self.done += [run for run in wanted if run.result is not None]

    async def await_end(self, stage: StageRun) -> None:
        """As a run's; what cannot be foreseen hides nothing but what needs it."""
        with contextlib.suppress(CharrunError):
            await stage.ensure()

    async def _one(self, run: StageRun) -> None:
        with contextlib.suppress(NothingToFetch):  # what it asked for before is counted
            try:
                await run.ensure()
            except NothingToFetch:
                raise
            except CharrunError as error:  # those that need nothing of it are foreseen nevertheless
                self.gaps[run.place] = error.message

    async def service(self) -> Service:
        """Nobody's."""
        return self.dry_service

    def turn(self, folder: Path) -> asyncio.Lock:
        """As a run's; what the real store has of the folder is there first."""
        self._lay_over(folder)
        return super().turn(folder)

    @contextlib.asynccontextmanager
    async def writing(self, folder: Path) -> AsyncIterator[None]:
        """Nobody else writes here."""
        self._lay_over(folder)
        yield

    def record(self, event: str, stage: StageRun | None = None, **fields: Any) -> None:
        """Nothing is told; which stage asks is noted.

        Raises:
            StageFailed: The stage must not be run for an estimate.
        """
        if stage is not None and event == "stage_started":
            if not stage.stage.runs_dry:
                raise StageFailed(f"{stage.item.id} does not run dry")
            _stages.set((*_stages.get(), stage))
        elif event in ("stage_finished", "stage_failed") and stage in _stages.get()[-1:]:
            _stages.set(_stages.get()[:-1])

    def message(self, stage: StageRun | None, text: str) -> None:
        """Nothing is told."""

    def _draw(self, model: str, longest: int) -> int:
        running = _stages.get()
        if not running:
            return longest
        run = running[-1]
        lengths = self._earlier.of(run.item.uses, model, self.namespace(model))
        if longest > 1:
            self.lengths.setdefault(run.item.id, set()).add(lengths)
        return lengths.draw(self._rng, longest, self._share)

    def _seconds(self, model: str, tokens: int) -> float:
        running = _stages.get()
        return self.pace.seconds(running[-1].item.id if running else "", model, tokens)

    def _note(self, model: str, hits: int, scores: bool) -> None:
        for run in _stages.get()[-1:]:
            self.hits.setdefault(Place(*run.place, model), Counter())[scores] += hits

    def _lay_over(self, folder: Path) -> None:
        real = self._real / folder.name
        if folder.name in self._laid or not real.is_dir():
            return
        self._laid.add(folder.name)
        for path in real.rglob("*"):
            target = folder / path.relative_to(real)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            if path.name in (LOCK, HOLDER):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            # What the store publishes is only ever replaced; a stage may write into other files of its folder.
            if PUBLISHED.fullmatch(path.name):
                target.symlink_to(path)
            else:
                shutil.copyfile(path, target)


def _sum(rates: Mapping[str, Rates | None], usages: Mapping[str, Usage]) -> Cost | None:
    found = [cost_of(rates, model, usage) for model, usage in usages.items()]
    known = [each for each in found if each is not None]
    return sum(known, Cost()) if len(known) == len(found) else None
