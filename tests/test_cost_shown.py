"""What a run has cost and will cost, as it is shown while it runs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console

from charrun import events
from charrun.report.console import ConsoleWatcher


@contextmanager
def watched(**how: Any) -> Iterator[tuple[ConsoleWatcher, list[str]]]:
    """A watcher without bars that prints each progress, and its lines."""
    console = Console(width=200, record=True, file=io.StringIO())
    with ConsoleWatcher(console, plain=True, **how) as watcher:
        lines: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(watcher, "_print", lines.append)
            yield watcher, lines


def progressed(
    watcher: ConsoleWatcher, lines: list[str], stage: str, done: int, usd: float, tokens: int = 100, ago: float = 60.0
) -> str:
    """What is told of a stage's progress, as if the last line were long ago."""
    watcher.charrun_stage_started(events.StageStarted("c", stage, stage, "works"))
    watcher._watches["c", stage].shown -= ago
    watcher.charrun_stage_progressed(events.StageProgressed("c", stage, done, 10, tokens, usd))
    return lines[-1]


def test_what_a_run_has_cost_never_falls_and_what_it_will_cost_is_never_less() -> None:
    with watched(expected=(0.04, 0.46)) as (watcher, lines):
        assert progressed(watcher, lines, "teacher", 1, 0.02).endswith("left, $0.02 of $0.04 to $0.46")
        assert progressed(watcher, lines, "teacher", 2, 0.09).endswith("$0.09 of $0.09 to $0.46")
        assert progressed(watcher, lines, "teacher", 3, 0.07).endswith("$0.09 of $0.09 to $0.46")
        assert progressed(watcher, lines, "teacher", 4, 0.50).endswith("$0.50 of $0.50 to $0.50")
    with watched() as (watcher, lines):
        assert progressed(watcher, lines, "teacher", 1, 0.0).endswith("left")
        assert progressed(watcher, lines, "teacher", 1, 0.3).endswith("left, $0.30")


def test_sums_of_less_than_a_cent_and_what_is_held_are_shown_while_it_runs() -> None:
    with watched(expected=(0.002, 0.004)) as (watcher, lines):
        assert progressed(watcher, lines, "teacher", 5, 0.0034).endswith("left, $0.0034 of $0.0034 to $0.0040")
        watcher._watches["c", "teacher"].shown -= 60
        watcher.charrun_stage_progressed(events.StageProgressed("c", "teacher", 6, 10, 100, 0.0034, 0.012))
        assert lines[-1].endswith("of $0.0034 to $0.0040, $0.01 held")


def test_what_a_run_will_cost_is_what_it_has_cost_and_the_rest_of_the_plan() -> None:
    stages = {("c", "teacher"): (1.0, 3.0), ("c", "student"): (2.0, 4.0)}
    with watched(expected=(3.0, 7.0), stages=stages) as (watcher, lines):
        assert progressed(watcher, lines, "teacher", 0, 0.0).endswith("left")
        assert progressed(watcher, lines, "teacher", 5, 1.0).endswith("$1.00 of $3.50 to $6.50")
        assert progressed(watcher, lines, "teacher", 4, 1.0).endswith("$1.00 of $3.50 to $6.50")  # it asks for more
        watcher.charrun_stage_finished(events.StageFinished("c", "teacher", {}, 1.0, {}, False))
        assert progressed(watcher, lines, "student", 0, 1.5).endswith("$1.50 of $3.50 to $5.50")
        watcher.charrun_stage_finished(events.StageFinished("c", "student", {}, 1.0, {}, False))
        assert progressed(watcher, lines, "evaluate", 0, 4.2).endswith("$4.20 of $4.20 to $4.20")


def test_the_pace_of_a_stage_counts_what_this_process_used() -> None:
    with watched() as (watcher, lines):
        progressed(watcher, lines, "teacher", 5, 0.0, tokens=1_000_000)
        watcher._watches["c", "teacher"].started -= 10.0
        told = progressed(watcher, lines, "teacher", 6, 0.0, tokens=1_001_000)
        assert 90 <= int(told.split(", ")[1].removesuffix(" tokens/s")) <= 100
