"""How fast a run's requests were: requests at once, how long they took, how long they waited to be sent."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.report.text import rate, safe
from charrun.store.items import USAGE
from charrun.store.journal import Event, read_journal
from charrun.store.ledger import Totals
from charrun.store.lines import read_lines
from charrun.store.replay import RUNNING, number_of, text_of
from charrun.store.runs import JOURNAL
from charrun.store.tickets import DONE
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.store.cells import CellView, StageView
    from charrun.store.runs import Run

_SLOWEST = 0.99
_ENDS = ("stage_finished", "stage_failed", "stage_waits")
HEADING = ("stage", "requests", "tokens/s", "in flight", "median, s", "slowest 1%, s", "waited before, s")


@dataclass(frozen=True)
class Throughput:
    """Of one stage, in all cells.

    Attributes:
        stage: The stage item.
        requests: Those that were answered: samples, scores, and passes of trainings.
        tokens: What they used.
        seconds: Wall time of the stage, in all processes that worked at it; once where several cells did so at a time.
        in_flight: Requests at once, in the mean; None where the wall time is not known.
        median: Seconds from when a request was sent, last where the engine had turned it away (429), to its answer;
            half took less.
        slowest: The same; 99% took less.
        waited: Seconds that a request waited before, in the mean.
    """

    stage: str
    requests: int
    tokens: int
    seconds: float
    in_flight: float | None
    median: float
    slowest: float
    waited: float

    def row(self) -> tuple[str, ...]:
        """As `HEADING` names it."""
        return (
            safe(self.stage),
            f"{self.requests:,}",
            rate(self.tokens, self.seconds),
            f"{self.in_flight:.1f}" if self.in_flight is not None else "-",
            f"{self.median:.2f}",
            f"{self.slowest:.2f}",
            f"{self.waited:.2f}",
        )


def throughput(totals: Totals, seconds: Mapping[str, float], cells: Iterable[str] | None = None) -> list[Throughput]:
    """By stage item, in the order in which they first asked.

    Args:
        totals: The ledger.
        seconds: Wall time of each stage item, over those cells.
        cells: Names of the cells that count; all by default.
    """
    wanted = None if cells is None else set(cells)
    times: dict[str, list[tuple[float, float]]] = {}
    used: dict[str, Usage] = {}
    for place, found in totals.times.items():
        if wanted is None or place.cell in wanted:
            times.setdefault(place.stage, []).extend(found)
            used.setdefault(place.stage, Usage()).add(totals.used.get(place, Usage()))
    rows = []
    for stage, found in times.items():
        took = sorted(each for each, _ in found)
        wall = seconds.get(stage, 0.0)
        rows.append(
            Throughput(
                stage=stage,
                requests=len(found),
                tokens=used[stage].tokens,
                seconds=wall,
                in_flight=sum(took) / wall if wall else None,
                median=took[len(took) // 2],
                slowest=took[min(len(took) - 1, int(_SLOWEST * len(took)))],
                waited=sum(waited for _, waited in found) / len(found),
            )
        )
    return rows


def seconds_of(run: Run, cells: Sequence[CellView]) -> dict[str, float]:
    """Wall time of each stage item of a run, over some cells, in all processes that have asked for it.

    What cells did side by side counts once: of the sum over cells as much as the journal's spans cover of their own.
    """
    events = read_journal(run.folder / JOURNAL).events
    made = _made(events)
    found: dict[str, float] = {}
    for cell in cells:
        for stage in cell.stages:
            seconds = made.get((cell.name, stage.id), 0.0) + _unfinished(stage)
            found[stage.id] = found.get(stage.id, 0.0) + seconds
    spans = _spans(events, {cell.name for cell in cells}, time.time() if run.status == RUNNING else 0.0)
    return {stage: seconds * _covered(spans.get(stage, [])) for stage, seconds in found.items()}


def _spans(events: Iterable[Event], cells: Collection[str], now: float) -> dict[str, list[tuple[float, float]]]:
    """By stage item, from when to when each cell worked at it; of what has no end up to the last event, or now."""
    found: dict[str, list[tuple[float, float]]] = {}
    begun: dict[tuple[str, str], float] = {}
    last = 0.0

    def end(place: tuple[str, str], at: float) -> None:
        if place in begun:
            found.setdefault(place[1], []).append((begun.pop(place), at))

    for event in events:
        place, at = (text_of(event, "cell"), text_of(event, "stage")), number_of(event, "time")
        if event["event"] == "run_started":  # what the process before has begun, it was killed in
            for each in list(begun):
                end(each, last)
        elif event["event"] == "stage_started" and place[0] in cells:
            begun.setdefault(place, at)
        elif event["event"] in _ENDS:
            end(place, at)
        last = at
    for each in list(begun):
        end(each, max(last, now))
    return found


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """Which part of their sum spans cover: 1 where there is never more than one at a time."""
    total = covered = reach = 0.0
    for start, end in sorted(spans):
        total += end - start
        covered += max(0.0, end - max(start, reach))
        reach = max(reach, end)
    return covered / total if total else 1.0


def _made(events: Iterable[Event]) -> dict[tuple[str, str], float]:
    """Wall time behind all rows that a run has made, by cell and stage item; more rows continue what was made."""
    before: dict[tuple[str, str], float] = {}
    last: dict[tuple[str, str], float] = {}
    begun: set[tuple[str, str]] = set()
    for event in events:
        place = text_of(event, "cell"), text_of(event, "stage")
        if event["event"] == "stage_started":
            if place not in begun and not event.get("extra"):  # it is made anew
                before[place] = before.get(place, 0.0) + last.pop(place, 0.0)
            begun.add(place)
        elif event["event"] == "stage_finished" and (place in begun or event.get("cached") is not True):
            last[place] = number_of(event, "seconds")
            begun.discard(place)
    return {place: before.get(place, 0.0) + last.get(place, 0.0) for place in {*before, *last}}


def _unfinished(stage: StageView) -> float:
    """Wall time of work that is not done, as far as it was stored."""
    if stage.is_done or stage.folder is None:
        return 0.0
    stored = 0.0
    for line in read_lines(stage.folder / USAGE):
        name = Path(text_of(line.value, "work")).name
        if not (stage.folder / DONE / f"{name}.json").exists():
            stored += number_of(line.value, "seconds")
    if stage.state == RUNNING and stage.since is not None:
        return max(stored, time.time() - stage.since)
    return stored
