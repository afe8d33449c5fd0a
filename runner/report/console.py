"""Live progress: bars on a terminal, plain lines elsewhere and for screen readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.table import Column

from charrun import events
from charrun.report.cost import brief_usd
from charrun.report.text import counted, duration, rate, safe

_PLAIN_EVERY_SECONDS = 10.0
_WIDE = 100
"""Columns of a terminal whose bars have room for what is held of a budget."""
Place = tuple[str, str]
Range = tuple[float, float]
Expected = tuple[Range | None, Mapping[Place, Range]]
"""What a run will have cost when it ends, None if not known, and of that what each stage will cost."""


@dataclass
class _Watch:
    """Progress of one stage since it began; what earlier processes used of its tokens was there before."""

    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)
    task: TaskID | None = None
    before: int | None = None
    waits: bool = False

    def pace(self, event: events.StageProgressed, money: str) -> str:
        """Tokens a second, time left, what the run has cost so far and is expected to cost."""
        seconds = time.monotonic() - self.started
        if self.before is None:
            self.before = event.tokens
        going = 0 < event.done < event.total
        left = duration(seconds / event.done * (event.total - event.done)) if going else "-"
        return f"{rate(event.tokens - self.before, seconds)} tokens/s, {left} left{money}"


class _Purse:
    """What a run has cost so far, and will have cost when it ends: so far, and the plan's rest.

    Args:
        expected: What the run will have cost in all, as the plan says.
        stages: What each stage of each cell will cost, as the plan says; the rest of a plan shrinks with each.
    """

    def __init__(self, expected: Range | None, stages: Mapping[Place, Range]) -> None:
        self._left: dict[Place, float] = {}
        self._spent = 0.0
        self.expect(expected, stages)

    def expect(self, expected: Range | None, stages: Mapping[Place, Range]) -> None:
        """Take what it will have cost, which may be known only later than the run's begin."""
        self._expected = expected
        self._stages = dict(stages)

    def heard(self, place: Place, usd: float, left: float, held: float = 0.0) -> str:
        """How it is told once so much is spent and held of the budget, and such a part of a stage is left."""
        self._spent = max(self._spent, usd)
        self._left[place] = min(self._left.get(place, 1.0), left)
        told = f", ${brief_usd(self._spent)}" if self._spent else ""
        if told and self._expected is not None:
            low, high = self._projected(self._expected)
            told += f" of ${brief_usd(low)} to ${brief_usd(high)}"
        return f"{told}, ${brief_usd(held)} held" if held else told

    def _projected(self, expected: Range) -> Range:
        if not self._stages:
            return max(expected[0], self._spent), max(expected[1], self._spent)
        left = {place: self._left.get(place, 1.0) for place in self._stages}
        rest = [(low * left[place], high * left[place]) for place, (low, high) in self._stages.items()]
        return self._spent + sum(low for low, _ in rest), self._spent + sum(high for _, high in rest)


class ConsoleWatcher:
    """Shows a run's events on a console; use as a context manager around the run.

    Args:
        console: Where.
        plain: Lines instead of bars, also on a terminal.
        verbosity: 0 shows what fails, 1 what happens, 2 every optimiser step too.
        expected: US dollars that the run will have cost when it ends, the least and the most; None if not known.
        stages: Of that, by cell and stage item, what each stage that is not done will cost, as far as it is known.
        later: Gives both, where they are reckoned beside the run; None as long as they are not known.
    """

    def __init__(
        self,
        console: Console,
        plain: bool = False,
        verbosity: int = 1,
        expected: Range | None = None,
        stages: Mapping[Place, Range] | None = None,
        later: Callable[[], Expected | None] = lambda: None,
    ) -> None:
        self.console = console
        self._purse = _Purse(expected, stages or {})
        self._later = later
        self.bars = console.is_terminal and not plain and verbosity > 0
        self.verbosity = verbosity
        self._several = False
        self._watches: dict[Place, _Watch] = {}
        self._progress = Progress(
            TextColumn("  {task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}", table_column=Column(no_wrap=True)),
            console=console,
            transient=True,
            disable=not self.bars,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def abandon(self) -> None:
        """Leave the terminal in order: the process ends at once."""
        self._progress.stop()

    def charrun_run_started(self, event: events.RunStarted) -> None:
        """Learn whether stages need their cell's name beside them."""
        self._several = len(event.cells) > 1

    def charrun_message(self, event: events.Message) -> None:
        """One line."""
        place = self._name((event.cell, event.stage)) + ": " if event.stage else ""
        self._print(f"  {place}{safe(event.text)}")

    def charrun_stage_started(self, event: events.StageStarted) -> None:
        """Announce a stage the first time; more rows continue its bar."""
        place = event.cell, event.stage
        if place not in self._watches:
            self._watches[place] = _Watch(task=self._progress.add_task(self._name(place), total=None, pace=""))
            if not self.bars:
                self._print(f"{self._name(place)}: {event.summary}")
        elif self._watches[place].waits:
            self._watches[place] = _Watch(task=self._watches[place].task)

    def charrun_stage_waits(self, event: events.StageWaits) -> None:
        """Say what its bar waits for."""
        watch = self._watches.get((event.cell, event.stage))
        if watch is not None and watch.task is not None:
            watch.waits = True
            self._progress.update(watch.task, pace=f"waits for {', '.join(event.awaited)}")

    def charrun_stage_progressed(self, event: events.StageProgressed) -> None:
        """Move the bar, or print a line every ten seconds."""
        place = event.cell, event.stage
        left = max(0.0, 1 - event.done / event.total) if event.total else 1.0
        if (known := self._later()) is not None:
            self._purse.expect(*known)
        roomy = not self.bars or self.console.width >= _WIDE
        money = self._purse.heard(place, event.usd, left, event.usd_held if roomy else 0.0)
        watch = self._watches.get(place)
        if watch is None or watch.task is None:
            return
        pace = watch.pace(event, money)
        if self.bars:
            self._progress.update(watch.task, completed=event.done, total=event.total or None, pace=pace)
        elif time.monotonic() - watch.shown > _PLAIN_EVERY_SECONDS:
            watch.shown = time.monotonic()
            self._print(f"  {self._name(place)} {event.done:,}/{event.total:,}, {pace}")

    def charrun_step_done(self, event: events.StepDone) -> None:
        """The metrics of a step, where everything is wanted."""
        if self.verbosity > 1:
            told = ", ".join(f"{name} {value:.4g}" for name, value in event.metrics.items())
            self._print(f"  {self._name((event.cell, event.stage))} step {event.step + 1}/{event.steps}: {told}")

    def charrun_stage_finished(self, event: events.StageFinished) -> None:
        """One line of what the stage made."""
        place = event.cell, event.stage
        self._forget(place)
        self._purse.heard(place, 0.0, 0.0)
        how = "already done" if event.cached else duration(event.seconds)
        tokens = sum(count for name, count in event.usage.items() if name.endswith("_tokens"))
        pace = f", {rate(tokens, event.seconds)} tokens/s" if tokens and not event.cached else ""
        self._print(f"  {self._name(place):<12} {counted(dict(event.rows))} ({how}{pace})")

    def charrun_stage_failed(self, event: events.StageFailed) -> None:
        """Take the bar away; where others go on, tell the reason now and not only when the run ends."""
        place = event.cell, event.stage
        self._forget(place)
        ends = event.error == events.STOPPED  # a run that ends takes all with it
        if (self._several or not all(watch.waits for watch in self._watches.values())) and not ends:
            told = safe(event.error).removeprefix("StageFailed: ").removeprefix(f"{event.stage}: ")
            self.console.print(f"  {self._name(place)} failed: {told}", markup=False, highlight=False, soft_wrap=True)

    def _forget(self, place: Place) -> None:
        watch = self._watches.pop(place, None)
        if watch is not None and watch.task is not None:
            self._progress.remove_task(watch.task)

    def _name(self, place: Place) -> str:
        return " ".join(place) if self._several else place[1]

    def _print(self, text: str) -> None:
        if self.verbosity > 0:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
