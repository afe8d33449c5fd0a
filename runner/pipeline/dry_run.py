"""A run's stages themselves, run in a folder that is thrown away, with nobody to answer them.

So an estimate needs nothing of a stage's author, and counts what the stage really sends: prompts that grow over the
turns of a conversation, forward passes of a reference, what an evaluation scores. What is in the store already is
found there.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from charrun import faults
from charrun.errors import CharrunError, DoesNotFit, Interrupted, StageFailed
from charrun.pipeline.choice import Choice
from charrun.pipeline.dry_service import DryService
from charrun.pipeline.lengths import EarlierLengths, Lengths
from charrun.pipeline.named import NamedCheckpoints
from charrun.pipeline.observers import nobody
from charrun.pipeline.prompt_cache import SentBefore
from charrun.pipeline.shared import Shared
from charrun.pipeline.virtual_time import VirtualLoop, pace_of
from charrun.plugin_manager import Registry
from charrun.service.service import Service
from charrun.spec import Scale
from charrun.spec.prices import Rates, price_book
from charrun.store.ledger import Place
from charrun.store.lock import HOLDER, LOCK
from charrun.store.probes import CacheShares, cache_shares, probe_ledger
from charrun.store.run import RunFolder
from charrun.store.tickets import PUBLISHED
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell
    from charrun.pipeline.stage_run import StageRun

_TEXTS = "prompts/general.txt"
_CACHE_SURE = 0.02
"""How far what a probe found in the engine's cache may be off."""
_STUCK = "it waits for something that no dry run brings"
_FEW = 8
"""Rows of each stage where as little as can be is made: what measures something needs some."""
_stages: ContextVar[tuple[StageRun, ...]] = ContextVar("stages", default=())


@dataclass
class Found:
    """What a dry run asked for.

    Attributes:
        used: Tokens, none of them from the engine's cache.
        hits: Tokens that may be in the engine's cache, of prompts that are answered and of such that are scored (True).
        warm: The same of all prompts, where that still has what was sent before.
        cache: By base model, how much of what may be in the cache a probe found there.
        seconds: How long each cell takes.
        off: How far that may be off, as factors.
        lengths: By stage item, what the lengths of its answers rest on.
        drawn: By stage item, how many answers it asks for.
        rates: What tokens cost, by base model; None where nobody knows.
        unknown: Models whose tokenizer is not on this machine.
        gaps: Stages that could not be foreseen, each with the reason.
        failed: Those of them that would fail in a run as well, whatever is answered.
    """

    used: dict[Place, Usage]
    hits: dict[Place, Counter[bool]]
    warm: Counter[Place]
    cache: dict[str, CacheShares]
    seconds: dict[str, float]
    off: tuple[float, float]
    lengths: dict[str, set[Lengths]]
    drawn: Counter[str]
    rates: dict[str, Rates | None]
    unknown: set[str]
    gaps: dict[tuple[str, str], str]
    failed: dict[tuple[str, str], CharrunError]

    @property
    def guesses(self) -> bool:
        """Whether the length of some answers is guessed."""
        return any(each.guessed for found in self.lengths.values() for each in found)

    def bases(self, stage: str, models: Iterable[str]) -> set[str]:
        """What is said of a stage rests on."""
        found = {each.basis for each in self.lengths.get(stage, ())}
        if found and set(models) <= set(self.cache):
            found.add("what a probe found in the engine's cache")
        return found

    def cached(self, place: Place) -> tuple[int, int]:
        """Tokens that will be in the engine's cache: the most and the fewest."""
        possible = self.hits.get(place, Counter())
        shares = self.cache.get(place.model)
        likely = 0.0 if shares is None else sum(shares[scores] * tokens for scores, tokens in possible.items())
        return self.warm[place], round(likely * (1 - _CACHE_SURE))

    def slack_of(self, stage: str) -> float:
        """How far its tokens may be off; a stage that asks for no answers takes in those of others."""
        found = self.lengths.get(stage) or {each for lengths in self.lengths.values() for each in lengths}
        return max((each.slack() for each in found), default=0.0) + self._spread

    def sampled_slack_of(self, stage: str) -> float:
        """How far the tokens of its answers may be off: the fewer they are, the further."""
        own = self.lengths.get(stage, ())
        return max((each.slack(self.drawn[stage]) for each in own), default=0.0) + self._spread

    @property
    def _spread(self) -> float:
        """How far the numbers of answers may be off: a pair is made up for where either of its two is cut."""
        return math.hypot(*(each.spread() for found in self.lengths.values() for each in found))


def run_dry(
    choice: Choice,
    registry: Registry,
    runs_dir: Path,
    cells: Sequence[Cell],
    share: float = 0.0,
    look: Callable[[DryRun], None] = lambda dry: None,
    *,
    warm: bool = False,
    tiny: bool = False,
    cuts: bool = False,
) -> Found:
    """What these cells ask for; reads the store, and writes nothing but a folder that is gone again.

    Args:
        choice: Where they run.
        registry: The plugins.
        runs_dir: Where their rows are kept.
        cells: What is run.
        share: Where the length of answers is guessed, how far between the least (0) and the most (1) that is expected.
        look: Called with what the run leaves, before that is thrown away.
        warm: Whether the engine's cache may still have what was sent before.
        tiny: Whether each stage makes a few rows only: enough to see what fails, not what it costs.
        cuts: Whether as many answers are cut by length as earlier ones of the same stage were.
    """
    with tempfile.TemporaryDirectory(prefix="charrun-dry-run-") as scratch, faults.suspended():
        dry = DryRun(choice, registry, runs_dir, Path(scratch), share, warm=warm, tiny=tiny, cuts=cuts)
        try:
            with asyncio.Runner(loop_factory=VirtualLoop) as runner:
                runner.run(dry.all(cells))
            look(dry)
            used = dry.used()
        finally:
            dry.spending.close()
        return Found(
            used=used,
            hits=dry.hits,
            warm=dry.warm,
            cache={name: shares for name in dry.all_rates() if (shares := cache_shares(runs_dir, dry.namespace(name)))},
            lengths=dry.lengths,
            drawn=dry.drawn,
            rates=dry.all_rates(),
            unknown=dry.dry_service.unknown,
            gaps=dry.gaps,
            failed=dry.failed,
            seconds=dry.seconds,
            off=dry.pace.off,
        )


class DryRun(Shared):
    """A run's surroundings, with nobody at the other end, and with a store that lies over the real one.

    Attributes:
        done: The stages that were run or found.
        lengths: By stage item, what the lengths of its answers rest on.
        drawn: By stage item, how many answers it asks for.
        hits: Tokens that may be in the engine's cache, of prompts that are answered and of such that are scored.
        warm: The same of all prompts, where that still has what was sent before.
        gaps: Stages that could not be foreseen, each with the reason.
        failed: Those of them that would fail in a run as well, whatever is answered.
        seconds: How long each cell takes.
        pace: How long requests take.
    """

    dry = True
    goes_ahead = False

    def __init__(
        self,
        choice: Choice,
        registry: Registry,
        runs_dir: Path,
        scratch: Path,
        share: float,
        *,
        warm: bool,
        tiny: bool,
        cuts: bool,
    ) -> None:
        free = replace(choice, spec=replace(choice.spec, budget_usd=None, stage_budgets={}))
        folder = RunFolder(scratch / "dry-run" / "1")
        folder.folder.mkdir(parents=True)
        super().__init__(free, registry, scratch, folder, nobody())
        self._real = runs_dir / "store"
        self.named = NamedCheckpoints(runs_dir, lambda paths: {})  # what is gone was told before
        self._share = share
        self._tiny, self._cuts = tiny, cuts
        self._earlier = EarlierLengths(self._real)
        self._rng = random.Random(0)
        self._laid: set[str] = set()
        self._left: set[tuple[str, str]] = set()
        self.done: list[StageRun] = []
        self.lengths: dict[str, set[Lengths]] = {}
        self.drawn: Counter[str] = Counter()
        self.hits: dict[Place, Counter[bool]] = {}
        self.warm: Counter[Place] = Counter()
        self.gaps: dict[tuple[str, str], str] = {}
        self.failed: dict[tuple[str, str], CharrunError] = {}
        contexts = {name: each.context for name, each in price_book().models.items() if each.context}
        texts = (files("charrun.specs") / _TEXTS).read_text(encoding="utf-8")
        self.pace = pace_of(runs_dir, choice.spec.name, probe_ledger(runs_dir, choice.spec.name))
        self.seconds: dict[str, float] = {}
        before = SentBefore(runs_dir, choice.spec.name)
        self._steps: Counter[tuple[str, str]] = Counter()
        self.dry_service = DryService(self._draw, self._note, texts, contexts, self._seconds, before, warm=warm)
        self.dry_service.stepped = self._stepped

    async def all(self, cells: Sequence[Cell]) -> None:
        """All stages of these cells, as far as they can be foreseen."""
        from charrun.pipeline.cell import Cell
        from charrun.pipeline.selection import Selection

        for cell in cells:
            self.dry_service.lost = cell.shared.lost
            self.dry_service.contexts |= cell.shared.contexts
            spec = replace(cell.spec, scale=_tiny(cell.spec.scale)) if self._tiny else cell.spec
            dry = Cell(self, spec, Selection())
            for run, real in zip(dry.stages, cell.stages, strict=True):
                run.forced, run.left_out = real.forced, real.left_out and not self._tiny
            wanted = [run for run, real in zip(dry.stages, cell.stages, strict=True) if real in cell.selected]
            dry.selected = wanted
            begun = self._loop.time()
            await self._unless_stuck(wanted)
            self.seconds[cell.name] = self._loop.time() - begun
            self.done += [run for run in wanted if run.result is not None]

    async def _unless_stuck(self, wanted: Sequence[StageRun]) -> None:
        """Run them; one that looks out for what never comes is left, and the others go on without it."""
        tasks = {run: asyncio.ensure_future(self._one(run)) for run in wanted}

        def leave_one() -> None:
            running = [run for run in tasks if run.current is not None and run.place not in self._left]
            left = running[:1] or list(tasks)
            self._left |= {run.place for run in left}
            for run in left:
                tasks[run].cancel()
            self._loop.when_stuck(leave_one)

        self._loop.when_stuck(leave_one)
        try:
            await asyncio.gather(*tasks.values())
        finally:
            self._loop.when_stuck(None)

    async def await_end(self, stage: StageRun) -> None:
        """As a run's; what cannot be foreseen hides nothing but what needs it."""
        with contextlib.suppress(CharrunError):
            await stage.ensure()

    async def _one(self, run: StageRun) -> None:
        try:
            await run.ensure()
        except asyncio.CancelledError:
            if run.place not in self._left:
                raise
            self.gaps[run.place] = _STUCK
        except CharrunError as error:  # those that need nothing of it are foreseen nevertheless
            self.gaps[run.place] = error.message
            # Other failures of stages may be what made-up answers made them say.
            if isinstance(error, DoesNotFit) or not isinstance(error, StageFailed | Interrupted):
                self.failed[run.place] = error

    async def service(self) -> Service:
        """Nobody's."""
        return self.dry_service

    async def take_adapter(self, folder: Path, model: str, name: str, note: Mapping[str, str]) -> tuple[str, str]:
        """Nothing is taken."""
        return f"tinker://dry-run/weights/{name}", f"tinker://dry-run/sampler_weights/{name}"

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
            if stage.place in self._left:
                raise StageFailed(_STUCK)
            _stages.set((*_stages.get(), stage))
        elif event in ("stage_finished", "stage_failed") and stage in _stages.get()[-1:]:
            _stages.set(_stages.get()[:-1])

    def message(self, stage: StageRun | None, text: str) -> None:
        """Nothing is told."""

    def _draw(self, model: str, longest: int) -> tuple[int, bool]:
        running = _stages.get()
        if not running:
            return longest, False
        run = running[-1]
        lengths = self._earlier.of(run.item.uses, model, self.namespace(model))
        if longest > 1:
            self.lengths.setdefault(run.item.id, set()).add(lengths)
            self.drawn[run.item.id] += 1
        length, cut = lengths.draw(self._rng, longest, self._share)
        return length, cut and self._cuts

    @property
    def _loop(self) -> VirtualLoop:
        return cast("VirtualLoop", asyncio.get_running_loop())

    def _seconds(self, model: str, tokens: int) -> float:
        running = _stages.get()
        return self.pace.seconds(running[-1].item.id if running else "", model, tokens)

    def _note(self, model: str, hits: int, warm: int, scores: bool) -> None:
        self._loop.asked()
        for run in _stages.get()[-1:]:
            place = Place(*run.place, model)
            self.hits.setdefault(place, Counter())[scores] += hits
            self.warm[place] += warm

    def used(self) -> dict[Place, Usage]:
        """The ledger's tokens, with the optimizer's steps, which cost nothing, at the model that a stage trains."""
        used = dict(self.spending.ledger.totals.used)
        for place, usage in used.items():
            if usage.trained_tokens:
                used[place] = replace(usage, steps=self._steps.pop((place.cell, place.stage), 0))
        return used

    def _stepped(self) -> None:
        self._loop.asked()
        for run in _stages.get()[-1:]:
            self._steps[run.place] += 1

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


def _tiny(scale: Scale) -> Scale:
    """A little of everything; conversations stay as long as they are, since their prompts grow with them."""
    few = {name: min(getattr(scale, name), _FEW) for name in ("pairs", "reflections", "interactions")}
    return replace(scale, samples_per_prompt=1, **few)
