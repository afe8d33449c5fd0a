"""What a run would do, without doing it: each stage of each cell, why, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from charrun.pipeline.cell import Cell
from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import asking
from charrun.pipeline.identity import numbers
from charrun.pipeline.stage_run import StageRun
from charrun.store.canonical import digest

State = Literal["done", "shared", "to do", "missing"]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of one cell.

    Attributes:
        id: Id of the stage item.
        state: `done` before, `shared` with a cell that comes earlier, `to do`, or `missing`: to be done, yet left out.
        reason: Why, in a few words.
        rows: Rows that it makes; 0 where it is done or shared.
        requests: Requests that it sends.
    """

    id: str
    state: State
    reason: str
    rows: int = 0
    requests: int = 0


@dataclass(frozen=True)
class PlannedCell:
    """One cell with its stages in order."""

    name: str
    stages: tuple[PlannedStage, ...]


def plan(cells: Sequence[Cell]) -> list[PlannedCell]:
    """What a run of these cells would do, in their order; reads the store and writes nothing."""
    planner = _Planner()
    return [PlannedCell(cell.name, tuple(map(planner.stage, cell.stages))) for cell in cells]


class _Planner:
    """Goes through the cells and keeps which work is planned already."""

    def __init__(self) -> None:
        self._work: dict[StageRun, str] = {}
        self._planned: dict[str, str] = {}

    def stage(self, run: StageRun) -> PlannedStage:
        """What becomes of one stage; the ones before it come first."""
        work, id = self._key(run), run.item.id
        if run.peek() is not None:
            return PlannedStage(id, "done", "in the store")
        if run.left_out:
            return PlannedStage(id, "missing", "not made yet, and --from leaves it out")
        first = self._planned.setdefault(work, run.cell.name)
        if first != run.cell.name:
            return PlannedStage(id, "shared", f"with {first}")
        with asking(type(run.stage)):
            estimate = run.stage.estimate(StageContext(run))
            rows, requests = int(estimate.rows), int(estimate.requests)
        return PlannedStage(id, "to do", _reason(run), rows, requests)

    def _key(self, run: StageRun) -> str:
        """Equal for equal work, although the rows that it will consume are not there yet."""
        if run not in self._work:
            inputs = [(kind, self._work.get(other) or self._key(other)) for kind, other in run.inputs()]
            self._work[run] = digest([run.described_digest, numbers(run.cell.scale), inputs])
        return self._work[run]


def _reason(run: StageRun) -> str:
    if run.forced:
        return "forced"
    waits = list(dict.fromkeys(other.item.id for _, other in run.inputs() if other.peek() is None))
    return f"after {', '.join(waits)}" if waits else "not made yet"
