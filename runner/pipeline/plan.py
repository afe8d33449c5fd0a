"""What a run would do, without doing it: each stage of each cell, why, and how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from charrun.pipeline.cell import Cell
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import asking
from charrun.pipeline.foresight import Foresight
from charrun.pipeline.history import History
from charrun.pipeline.identity import maker, numbers, with_inputs
from charrun.pipeline.stage_run import StageRun
from charrun.spec.prices import dollars
from charrun.store.canonical import digest
from charrun.usage import Usage

State = Literal["done", "shared", "to do", "missing"]
LOST = "the engine no longer holds its checkpoint"
BETWEEN = "; "
"""What is between the parts of a basis."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage of one cell.

    Attributes:
        id: Id of the stage item.
        state: `done` before, `shared` with a cell that comes earlier, `to do`, or `missing`: to be done, yet left out.
        reason: Why, in a few words.
        rows: Rows that it makes; 0 where it is done or shared.
        requests: Requests that it sends.
        changes: What of it differs from the nearest earlier work, each in a few words.
        low: The least that it will use of each base model's tokens; empty where nothing is paid for.
        high: The most.
        usd: What that costs in US dollars, the least and the most; None where a price is not known.
        basis: What its tokens are known from.
        sources: Ids of the stages whose rows it consumes.
    """

    id: str
    state: State
    reason: str
    rows: int = 0
    requests: int = 0
    changes: tuple[str, ...] = ()
    low: Mapping[str, Usage] = field(default_factory=dict)
    high: Mapping[str, Usage] = field(default_factory=dict)
    usd: tuple[float, float] | None = None
    basis: str = ""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedCell:
    """One cell with its stages in order."""

    name: str
    stages: tuple[PlannedStage, ...]


def plan(cells: Sequence[Cell]) -> list[PlannedCell]:
    """What a run of these cells would do, in their order; reads the store and writes nothing."""
    planner = _Planner(History(cells[0].shared)) if cells else None
    return [PlannedCell(cell.name, planner.cell(cell)) for cell in cells if planner]


def priced(planned: Sequence[PlannedCell], foresight: Foresight) -> list[PlannedCell]:
    """A plan with what each stage will use and cost."""
    return [replace(cell, stages=tuple(_priced(stage, cell, foresight) for stage in cell.stages)) for cell in planned]


def _priced(stage: PlannedStage, cell: PlannedCell, foresight: Foresight) -> PlannedStage:
    place = cell.name, stage.id
    found = foresight.stages.get(place)
    if found is None or place in foresight.gaps:
        return replace(stage, usd=None if place in foresight.gaps else (0.0, 0.0))
    cost = found.cost(foresight.rates)
    usd = None if cost is None else (dollars(cost.low), dollars(cost.high))
    bases = found.bases or _of_rows(stage, cell, foresight)
    return replace(stage, low=found.low, high=found.high, usd=usd, basis=BETWEEN.join(bases))


def _of_rows(stage: PlannedStage, cell: PlannedCell, foresight: Foresight) -> list[str]:
    """What the tokens of a stage are known from that asks for no answers: the rows that it consumes."""
    stages = {each.id: each for each in cell.stages}
    asked = {place: forecast.bases for place, forecast in foresight.stages.items() if forecast.bases}
    known = {id: bases for (_, id), bases in asked.items()}  # what is shared is another cell's
    known |= {id: bases for (name, id), bases in asked.items() if name == cell.name}
    left, seen, found = list(stage.sources), set[str](), dict[str, list[str]]()
    while left:
        source = stages.get(left.pop(0))
        if source is None or source.id in seen:
            continue
        seen.add(source.id)
        bases = ("counted",) if source.state == "done" else known.get(source.id, ())
        for basis in bases:
            found.setdefault(basis, []).append(source.id)
        if not bases:  # its rows are made of others' alone
            left += source.sources
    return [f"rows of {', '.join(ids)}: {basis}" for basis, ids in found.items()] or ["counted"]


class _Planner:
    """Goes through the cells and keeps which work is planned already."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._work: dict[StageRun, str] = {}
        self._planned: dict[str, str] = {}

    def cell(self, cell: Cell) -> tuple[PlannedStage, ...]:
        """All stages of a cell."""
        wanted = cell.stages[: cell.stages.index(cell.selected[-1]) + 1]  # --until leaves out the rest
        found = {run: self.stage(run) for run in wanted}
        for run in reversed(wanted):  # what trains again may want a checkpoint itself
            if found[run].state == "to do":
                for other, nearest in _checkpoints(run):
                    found[other] = self._wanted(other, found[other], nearest, run)
        return tuple(found.values())

    def stage(self, run: StageRun) -> PlannedStage:
        """What becomes of one stage; the ones before it come first."""
        id = run.item.id
        if run.peek() is not None:
            return PlannedStage(id, "done", ", ".join(["in the store", *_makers(run)]))
        if run.left_out:
            return PlannedStage(id, "missing", "not made yet, and --from leaves it out")
        first = self._first(run)
        if first != run.cell.name:
            return PlannedStage(id, "shared", f"with {first}", sources=_sources(run))
        reason, changes = self._reason(run)
        return PlannedStage(id, "to do", reason, *_estimate(run), changes, sources=_sources(run))

    def _wanted(self, run: StageRun, found: PlannedStage, nearest: bool, by: StageRun) -> PlannedStage:
        """A stage that is done and whose checkpoint a stage that is to do consumes."""
        if found.state != "done" or not run.checkpoint_is_lost():
            return found
        if not nearest:  # which of several checkpoints a stage asks for is its own affair
            told = f"{found.reason}; {LOST}, which {by.item.id} may ask for"
            return found if LOST in found.reason else replace(found, reason=told)
        first = self._first(run)
        if first != run.cell.name:
            return replace(found, state="shared", reason=f"with {first}", sources=_sources(run))
        rows, requests = _estimate(run)
        return replace(found, state="to do", reason=LOST, rows=rows, requests=requests, sources=_sources(run))

    def _first(self, run: StageRun) -> str:
        """The first cell that does this work, which is the run's own where none did."""
        return self._planned.setdefault(self._key(run), run.cell.name)

    def _key(self, run: StageRun) -> str:
        """Equal for equal work, although the rows that it will consume are not there yet."""
        if run not in self._work:
            inputs = [(kind, self._key(other)) for kind, other in run.inputs()]
            self._work[run] = digest([run.described_digest, numbers(run.cell.scale), inputs])
        return self._work[run]

    def _reason(self, run: StageRun) -> tuple[str, tuple[str, ...]]:
        if run.forced:
            return "forced", ()
        waits = list(dict.fromkeys(other.item.id for _, other in run.inputs() if other.peek() is None))
        if not waits:
            told, changes = self._history.unfinished(run)
            if told:
                return told, changes
        described = run.described if waits else with_inputs(run, run.described, run.consumed)
        changes = tuple(self._history.changes(run, described))
        parts = [*changes, *([f"after {', '.join(waits)}"] if waits else [])]
        return "; ".join(parts) or "never made", changes


def _checkpoints(run: StageRun) -> list[tuple[StageRun, bool]]:
    """The producers of checkpoints that a stage consumes, and whether each is the one that it gets unless it asks."""
    found = [producer for kind, producer in run.inputs() if kind == CHECKPOINT]
    return [(producer, producer is found[-1]) for producer in found]


def _sources(run: StageRun) -> tuple[str, ...]:
    """Whose rows a stage consumes; checkpoints are none."""
    return tuple(dict.fromkeys(other.item.id for kind, other in run.inputs() if kind != CHECKPOINT))


def _makers(run: StageRun) -> list[str]:
    """Which other version of charrun, or of the stage's plugin, made what is done."""
    by, now = run.made.get("by", {}), maker(run)
    others = [f"charrun {found}" for found in [by.get("charrun")] if found and found != now["charrun"]]
    others += [found for found in [by.get("plugin")] if found and found != now.get("plugin")]
    return [f"made by {' and '.join(others)}"] if others else []


def _estimate(run: StageRun) -> tuple[int, int]:
    with asking(type(run.stage)):
        estimate = run.stage.estimate(StageContext(run))
        return int(estimate.rows), int(estimate.requests)
