"""Who is told what a run does: a person at a terminal or not, or a program that reads events."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from functools import partial
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from charrun.commands.reckoned import Reckoned
    from charrun.pipeline.cell import Cell
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.plan import PlannedCell
    from charrun.pipeline.results import RunResult
    from charrun.report.console import Expected
    from charrun.report.plan import Money


def _write(stdout: TextIO, line: str) -> None:
    """One line, until nobody reads them: a run does not end for that."""
    if stdout.closed:
        return
    try:
        click.echo(line, file=stdout)
    except OSError as error:
        reason = error.strerror or str(error)
        click.echo(f"warning: no more events can be written ({reason}); the run goes on", err=True)
        with suppress(OSError):
            stdout.close()


class Events:
    """Events on stdout, one a line; nothing else is printed there."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def begin(
        self, choice: Choice, cells: Sequence[Cell], planned: Sequence[PlannedCell], money: Money | None
    ) -> None: ...

    def reckon(self, money: Callable[[], Money | None]) -> None: ...

    @contextmanager
    def watching(self) -> Iterator[object]:
        from charrun.report.event_lines import EventLines

        stdout = sys.stdout
        with redirect_stdout(sys.stderr):  # what stages and observers print
            yield EventLines(partial(_write, stdout), self._verbose)

    def end(self, result: RunResult) -> None: ...


class Person:
    """What a person reads, on a terminal or not."""

    def __init__(self, plain: bool, verbosity: int) -> None:
        self._expected: Expected = None, {}
        self._reckoned: Reckoned[Expected] | None = None
        self.plain = plain or os.environ.get("TERM") == "dumb"
        self.verbosity = verbosity
        self.console = terminal("nobody reads this any more; the run goes on: charrun status tells how far it is")

    def begin(self, choice: Choice, cells: Sequence[Cell], planned: Sequence[PlannedCell], money: Money | None) -> None:
        from charrun.pipeline.plan import priced
        from charrun.report.plan import print_plan
        from charrun.report.summary import print_start

        self._expected = _expected(money)
        if self.verbosity:
            print_start(self.console, choice, [cell.spec for cell in cells])
        if choice.paid:
            print_plan(self.console, choice, priced(planned, money.foresight) if money else planned, self.plain, money)

    def reckon(self, money: Callable[[], Money | None]) -> None:
        if self.verbosity and self.console.is_terminal and sys.platform == "linux":  # elsewhere a fork is not safe
            from charrun.commands.reckoned import Reckoned

            self._reckoned = Reckoned(lambda: _expected(money()))

    @contextmanager
    def watching(self) -> Iterator[object]:
        from charrun.report.console import ConsoleWatcher

        reckoned = self._reckoned
        later = reckoned.found if reckoned else lambda: None
        try:
            with ConsoleWatcher(self.console, self.plain, self.verbosity, *self._expected, later) as watcher:
                yield watcher
        finally:
            if reckoned:
                reckoned.close()

    def end(self, result: RunResult) -> None:
        from charrun.report.summary import print_summary

        print_summary(self.console, result, self.plain)


def _expected(money: Money | None) -> Expected:
    """What a run will have cost, and of that each stage."""
    from charrun.spec.prices import dollars

    cost = None if money is None else money.foresight.cost()
    if money is None or cost is None:
        return None, {}
    each = {place: forecast.cost(money.foresight.rates) for place, forecast in money.foresight.stages.items()}
    stages = {place: (dollars(of.low), dollars(of.high)) for place, of in each.items() if of is not None}
    return (dollars(money.spent + cost.low), dollars(money.spent + cost.high)), stages


def terminal(left: str = "") -> Console:
    """Where a person reads.

    Args:
        left: What to say on stderr where the reader has left, such as `head`; nothing more is written then.
    """
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:  # rich's own would end the process, and with it a run
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if left:
                click.echo(left, err=True)

    return Terminal(highlight=False)
