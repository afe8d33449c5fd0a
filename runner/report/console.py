"""Live progress: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from charrun.pipeline.reporter import StageResult
from charrun.report.text import counted, duration, rate, safe
from charrun.service.ledger import Usage

_PLAIN_EVERY_SECONDS = 10.0


@dataclass
class _Watch:
    """Progress of one stage since it began."""

    started: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)
    task: TaskID | None = None

    def line(self, done: int, total: int, usage: Usage) -> str:
        """Tokens a second and time left."""
        seconds = time.monotonic() - self.started
        left = duration(seconds / done * (total - done)) if done and total > done else "-"
        return f"{rate(usage.tokens, seconds)} tokens/s, {left} left"


class ConsoleReporter:
    """Shows a run's events on a console; use as a context manager around the run."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._progress = Progress(
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        """One line."""
        self._print(f"  {safe(text)}")

    def stage_started(self, cell: str, id: str, summary: str) -> None:
        """Announce a stage the first time; more rows continue its bar."""
        watch = self._watches.get((cell, id))
        if watch is None:
            self._watches[cell, id] = _Watch(task=self._progress.add_task(id, total=None, pace=""))
            if not self.console.is_terminal:
                self._print(f"{id}: {summary}")

    def progress(self, cell: str, id: str, done: int, total: int, usage: Usage) -> None:
        """Move the bar, or print a line every ten seconds."""
        watch = self._watches.get((cell, id))
        if watch is None or watch.task is None:
            return
        pace = watch.line(done, total, usage)
        if self.console.is_terminal:
            self._progress.update(watch.task, completed=done, total=total or None, pace=pace)
        elif time.monotonic() - watch.shown > _PLAIN_EVERY_SECONDS:
            watch.shown = time.monotonic()
            self._print(f"  {id} {done:,}/{total:,}, {pace}")

    def stage_finished(self, cell: str, result: StageResult) -> None:
        """One line of what the stage made."""
        watch = self._watches.pop((cell, result.id), None)
        if watch is not None and watch.task is not None:
            self._progress.remove_task(watch.task)
        how = "already done" if result.cached else duration(result.seconds)
        pace = "" if result.cached else f", {rate(result.usage.tokens, result.seconds)} tokens/s"
        self._print(f"  {result.id:<12} {counted(dict(result.rows))} ({how}{pace if result.usage.tokens else ''})")

    def _print(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)
