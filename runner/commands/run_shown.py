"""Who is told what a run does: a person at a terminal or not, or a program that reads events."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from functools import partial
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from rich.console import Console

    from charrun.pipeline.cell import Cell
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.plan import PlannedCell
    from charrun.pipeline.results import RunResult
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
        self._expected: tuple[float, float] | None = None
        self._stages: dict[tuple[str, str], tuple[float, float]] = {}
        self.plain = plain or os.environ.get("TERM") == "dumb"
        self.verbosity = verbosity
        self.console = terminal("nobody reads this any more; the run goes on: charrun status tells how far it is")

    def begin(self, choice: Choice, cells: Sequence[Cell], planned: Sequence[PlannedCell], money: Money | None) -> None:
        from charrun.pipeline.plan import priced
        from charrun.report.plan import print_plan
        from charrun.report.summary import print_start
        from charrun.spec.prices import dollars

        if money is not None and (cost := money.foresight.cost()) is not None:
            self._expected = dollars(money.spent + cost.low), dollars(money.spent + cost.high)
            for place, forecast in money.foresight.stages.items():
                if (each := forecast.cost(money.foresight.rates)) is not None:
                    self._stages[place] = dollars(each.low), dollars(each.high)
        if self.verbosity:
            print_start(self.console, choice, [cell.spec for cell in cells])
        if choice.paid:
            print_plan(self.console, choice, priced(planned, money.foresight) if money else planned, self.plain, money)

    def watching(self) -> AbstractContextManager[object]:
        from charrun.report.console import ConsoleWatcher

        return ConsoleWatcher(self.console, self.plain, self.verbosity, self._expected, self._stages)

    def end(self, result: RunResult) -> None:
        from charrun.report.summary import print_summary

        print_summary(self.console, result, self.plain)


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
