"""What a run will ask for, cost and take: dry runs, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.pipeline.choice import Choice
from charrun.pipeline.dry_run import Found, run_dry
from charrun.pipeline.storage import EarlierSizes
from charrun.plugin_manager import Registry
from charrun.spec.prices import Cost, Rates, cost_of, cost_of_all, cost_sum
from charrun.store.ledger import Place
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell

_MOST_ALIKE = 4
"""Cells of the same models and scale that are run; further ones are taken to be as these."""
_FACTOR = 10
"""Long answers are not made: those of a tenth of the way are, and the rest is extrapolated."""


@dataclass(frozen=True)
class Forecast:
    """What one stage of one cell will ask for.

    Attributes:
        low: At the least, by base model: short answers, and all in the engine's cache that can be.
        high: At the most: long answers, and nothing in it.
        bases: What the lengths of its answers rest on.
    """

    low: Mapping[str, Usage]
    high: Mapping[str, Usage]
    bases: tuple[str, ...]

    def cost(self, rates: Mapping[str, Rates | None]) -> Cost | None:
        """The least and the most that it costs; None where a price is not known."""
        low, high = cost_of_all(rates, self.low), cost_of_all(rates, self.high)
        return None if low is None or high is None else Cost(low.low, high.high)


@dataclass
class Foresight:
    """What a run will ask for.

    Attributes:
        stages: By cell and stage item.
        rates: What tokens cost, by base model; None where nobody knows.
        unknown: Models whose tokenizer is not on this machine: counted with charrun's own.
        gaps: Stages that could not be foreseen, each with the reason.
        times: How many seconds each cell takes, at the least and at the most.
        stored: Bytes of the checkpoint that each training leaves at the service; None where nothing tells.
    """

    stages: dict[tuple[str, str], Forecast]
    rates: dict[str, Rates | None]
    unknown: set[str]
    gaps: dict[tuple[str, str], str]
    times: dict[str, tuple[float, float]]
    stored: dict[tuple[str, str], int | None] = field(default_factory=dict)

    def unpriced(self) -> list[str]:
        """Models of whose tokens some have no known price."""
        asked = (each for forecast in self.stages.values() for each in forecast.high.items())
        return sorted({model for model, usage in asked if cost_of(self.rates, model, usage) is None})

    @property
    def trained(self) -> list[str]:
        """Stage items that train."""
        found = (stage for (_, stage), each in self.stages.items() if any(u.trained_tokens for u in each.high.values()))
        return list(dict.fromkeys(found))

    @property
    def storage(self) -> int | None:
        """Bytes of all checkpoints that it will leave at the service; None where that of one is not known."""
        known = [size for size in self.stored.values() if size is not None]
        return sum(known) if len(known) == len(self.stored) else None

    def seconds(self, jobs: int) -> tuple[float, float]:
        """How long all of it takes, with so many cells at once: at the least and at the most."""
        shortest, longest = ([each[end] for each in self.times.values()] for end in (0, 1))
        if not shortest:
            return 0.0, 0.0
        least = max(*shortest, sum(shortest) / jobs)
        return least, min(sum(longest), max(longest) + sum(longest) / jobs)

    def cost(self) -> Cost | None:
        """The least and the most that all of it costs; None where a price is not known."""
        return cost_sum(forecast.cost(self.rates) for forecast in self.stages.values())


def foresee(choice: Choice, registry: Registry, runs_dir: Path, cells: Sequence[Cell]) -> Foresight:
    """What a run of these cells would ask for; reads the store, and writes nothing but a folder that is gone again."""
    groups = _groups(cells)
    chosen = _chosen(cells, groups.values())
    short = run_dry(choice, registry, runs_dir, chosen, warm=True, cuts=True)
    longer = run_dry(choice, registry, runs_dir, chosen, 1 / _FACTOR, cuts=True) if short.guesses else short
    stages: dict[tuple[str, str], Forecast] = {}
    by_stage: dict[tuple[str, str], set[str]] = {}
    for place in short.used:
        by_stage.setdefault((place.cell, place.stage), set()).add(place.model)
    for (name, stage), models in by_stage.items():
        places = {model: Place(name, stage, model) for model in sorted(models)}
        slack, sampled = short.slack_of(stage), short.sampled_slack_of(stage)
        low, high = {}, {}
        for model, place in places.items():
            most, fewest = short.cached(place)
            used, longest = short.used[place], longer.used.get(place, short.used[place])
            low[model] = _scaled(_cached(used, most), 1 - slack, 1 - sampled)
            high[model] = _scaled(_cached(_extrapolated(used, longest, _FACTOR), fewest), 1 + slack, 1 + sampled)
        stages[name, stage] = Forecast(low, high, tuple(sorted(short.bases(stage, places))))
    times = {cell.name: _times(short, longer, cell.name) for cell in chosen}
    for group in groups.values():
        _fill(stages, group)
        run = [times[cell.name] for cell in _spread(group)]
        alike = min(each[0] for each in run), max(each[1] for each in run)
        times = {**{cell.name: alike for cell in group}, **times}
    stored = _stored(cells, stages)
    return Foresight(stages, short.rates, short.unknown, short.gaps, times, stored)


def _stored(cells: Sequence[Cell], stages: Mapping[tuple[str, str], Forecast]) -> dict[tuple[str, str], int | None]:
    """What each training leaves at the service, in bytes."""
    earlier = EarlierSizes(cells[0].shared.store) if cells else None
    return {
        (cell.name, run.item.id): earlier.of(run)
        for cell in cells
        for run in cell.selected
        if earlier and run.stage.trains and (cell.name, run.item.id) in stages
    }


def cells_to_run(cells: Sequence[Cell]) -> list[Cell]:
    """Of cells that have something to do those that a dry run runs: of many that are alike a few."""
    return _chosen(cells, _groups(cells).values())


def _groups(cells: Sequence[Cell]) -> dict[tuple[str, ...], list[Cell]]:
    """Cells that have something to do, by what that is: such cells are alike."""
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        left = [run.item.id for run in cell.selected if run.forced or run.peek() is None]
        if left:
            groups.setdefault((cell.models.id, cell.scale.name, *left), []).append(cell)
    return groups


def _chosen(cells: Sequence[Cell], groups: Iterable[Sequence[Cell]]) -> list[Cell]:
    """Those that are run, in their order: the first of several does what they share."""
    wanted = {id(cell) for group in groups for cell in _spread(group)}
    return [cell for cell in cells if id(cell) in wanted]


def _spread(group: Sequence[Cell]) -> list[Cell]:
    """A few cells of many that are alike, the first one and others from all over."""
    if len(group) <= _MOST_ALIKE:
        return list(group)
    return [group[round(n * (len(group) - 1) / (_MOST_ALIKE - 1))] for n in range(_MOST_ALIKE)]


def _fill(stages: dict[tuple[str, str], Forecast], group: Sequence[Cell]) -> None:
    """Cells that were not run are as those that were, but the first of them: it did what they share."""
    run = [cell.name for cell in _spread(group)]
    rest = [cell.name for cell in group if cell.name not in run]
    later = run[1:]
    for stage in {stage for cell, stage in stages if cell in later} if rest else ():
        known = [stages[cell, stage] for cell in later if (cell, stage) in stages]
        basis = f"like {len(later)} of {len(group)} such cells"
        low, high = (_mean([getattr(each, end) for each in known], len(later)) for end in ("low", "high"))
        for cell in rest:
            stages[cell, stage] = Forecast(low, high, (basis,))


def _mean(usages: Sequence[Mapping[str, Usage]], count: int) -> dict[str, Usage]:
    total: dict[str, Usage] = {}
    for each in usages:
        for model, usage in each.items():
            total.setdefault(model, Usage()).add(usage)
    return {m: Usage.of({n: round(c / count) for n, c in usage.to_dict().items()}) for m, usage in total.items()}


def _times(short: Found, longer: Found, cell: str) -> tuple[float, float]:
    """How long a cell takes: time grows in proportion to the length of answers."""
    one = short.seconds.get(cell, 0.0)
    two = longer.seconds.get(cell, one)
    low, high = short.off
    return one * low, max(two, one + (two - one) * _FACTOR) * high


def _cached(usage: Usage, hits: int) -> Usage:
    """With tokens from the cache."""
    return replace(usage, prefill_tokens=usage.prefill_tokens - hits, cached_tokens=usage.cached_tokens + hits)


def _extrapolated(short: Usage, longer: Usage, factor: float) -> Usage:
    """All that is asked for grows in proportion to the length of answers."""
    one, two = short.to_dict(), longer.to_dict()
    return Usage.of({name: max(two[name], round(one[name] + (two[name] - one[name]) * factor)) for name in one})


def _scaled(usage: Usage, factor: float, sampled: float) -> Usage:
    """With so many times the tokens; `sampled` is the factor of those that are sampled."""
    factors = dict.fromkeys((n for n in usage.to_dict() if n.endswith("_tokens")), max(0.0, factor))
    factors["sampled_tokens"] = max(0.0, sampled)
    return Usage.of({name: round(count * factors.get(name, 1.0)) for name, count in usage.to_dict().items()})
