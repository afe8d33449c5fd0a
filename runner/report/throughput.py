"""How fast a run's requests were: requests at once, how long they took, how long they waited to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from charrun.report.text import rate, safe
from charrun.store.ledger import Totals
from charrun.usage import Usage

_SLOWEST = 0.99
HEADING = ("stage", "requests", "tokens/s", "in flight", "median, s", "slowest 1%, s", "waited before, s")


@dataclass(frozen=True)
class Throughput:
    """Of one stage, in all cells.

    Attributes:
        stage: The stage item.
        requests: Those that were answered.
        tokens: What they used.
        seconds: Wall time of the stage.
        in_flight: Requests at once, in the mean; None where the wall time is not known.
        median: Seconds from when a request was sent to its answer; half took less.
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
