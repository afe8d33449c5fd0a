"""An event loop whose clock jumps to the next thing that is due, and how long a service takes for what is asked.

A dry run on it tells how long the run will take: what waits for what, how many requests are in flight at once and the
clock cycles of trainings come from the stages themselves.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from charrun.store.ledger import LEDGER, Place, read_ledger

CYCLE_SECONDS = 10.0
"""Of a clock cycle, in which a training takes one optimizer step at the most; as Tinker documents it."""
_FIRST_SECONDS, _TOKEN_SECONDS = 1.0, 1 / 80
"""Until the first token of an answer, and for each token, where nothing is known."""
_MEASURED, _GUESSED = (0.7, 1.5), (0.4, 2.5)
"""How far times may be off."""
_MOST_TURNS = 50_000
_LATEST = 4
_FEWEST = 8


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeps take no time, and its clock says that they did. While a thread works the clock goes with the world's."""

    def __init__(self) -> None:
        super().__init__(_Jumping(self))
        self._now = 0.0
        self.threads = 0
        self._turns = 0
        self._give_up: Callable[[], object] | None = None

    def asked(self) -> None:
        """Something was asked for: what waits may be about to go on."""
        self._turns = 0

    def when_stuck(self, give_up: Callable[[], object] | None) -> None:
        """Call this once the loop has turned very often and nothing was asked for: somebody looks out for what never
        comes."""
        self._turns, self._give_up = 0, give_up

    def turned(self) -> None:
        """Count a turn."""
        self._turns += 1
        if self._turns > _MOST_TURNS and self._give_up is not None and not self.threads:
            give_up, self._give_up = self._give_up, None
            give_up()

    def time(self) -> float:
        """Seconds that have been slept."""
        return self._now

    def pass_by(self, seconds: float) -> None:
        """Let time go by."""
        self._now += seconds

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """As any loop does."""
        work: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self.threads += 1
        work.add_done_callback(self._thread_ended)
        return work

    def _thread_ended(self, work: asyncio.Future[Any]) -> None:
        self.threads -= 1


class _Jumping(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        """What is ready; the time to wait is jumped over, unless a thread works."""
        self._loop.turned()
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        begun = time.monotonic()
        found = super().select(timeout if self._loop.threads else 0)
        if found or self._loop.threads:
            self._loop.pass_by(time.monotonic() - begun if self._loop.threads else 0.0)
        else:
            self._loop.pass_by(timeout)
        return found


class Pace:
    """How long requests take: as in earlier runs of a spec, else as stated.

    Args:
        ledgers: Those of earlier runs, the latest ones last.
    """

    def __init__(self, ledgers: Iterable[Path]) -> None:
        self._ledgers = list(ledgers)[-_LATEST:]
        self._guessed = False
        self._known = cache(self._read)

    @property
    def off(self) -> tuple[float, float]:
        """How far what was asked until now may be off, as factors."""
        return _GUESSED if self._guessed else _MEASURED

    def seconds(self, stage: str, model: str, tokens: int) -> float:
        """Of a request.

        Args:
            stage: The stage item that asks.
            model: The base model.
            tokens: Of its longest answer.
        """
        by_stage, by_model = self._known()
        for found in (by_stage.get((stage, model)), by_model.get(model)):
            if found is not None:
                return found
        self._guessed = True
        return _FIRST_SECONDS + tokens * _TOKEN_SECONDS

    def _read(self) -> tuple[Mapping[tuple[str, str], float], Mapping[str, float]]:
        times: dict[Place, list[float]] = {}
        for path in self._ledgers:
            for place, found in read_ledger(path).times.items():
                times.setdefault(place, []).extend(seconds for seconds, _ in found)
        by_stage: dict[tuple[str, str], list[float]] = {}
        by_model: dict[str, list[float]] = {}
        for place, each in times.items():
            by_stage.setdefault((place.stage, place.model), []).extend(each)
            by_model.setdefault(place.model, []).extend(each)
        enough = {key: mean(each) for key, each in by_stage.items() if len(each) >= _FEWEST}
        return enough, {key: mean(each) for key, each in by_model.items() if len(each) >= _FEWEST}


def pace_of(runs_dir: Path, name: str, *more: Path) -> Pace:
    """As the runs of a spec's name were, and other ledgers."""
    runs = [path for path in (runs_dir / name).glob(f"*/{LEDGER}") if path.parent.name.isdecimal()]
    runs.sort(key=lambda path: int(path.parent.name))
    return Pace([*(path for path in more if path.exists()), *runs])


@dataclass
class Clock:
    """When a training's operations are done.

    Attributes:
        slot: The cycle of the last one, in seconds, and
        stepped: whether an optimizer step was taken in it.
    """

    slot: float = 0.0
    stepped: bool = False

    def next(self, now: float, *, step: bool = False, answers: int = 1) -> float:
        """When an operation that comes now is done.

        Args:
            now: The time.
            step: Whether it is an optimizer step.
            answers: Cycles that it takes, where a later part of it needs the answer of an earlier one.
        """
        slot = max(self.slot, (math.floor(now / CYCLE_SECONDS) + 1) * CYCLE_SECONDS)
        if self.stepped and slot == self.slot:
            slot += CYCLE_SECONDS
        self.slot, self.stepped = slot + (answers - 1) * CYCLE_SECONDS, step
        return self.slot
