"""What a run's arms and seeds show: rates of each arm, and differences between arms over the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from charrun.report.evidence_answers import verdicts_of
from charrun.report.evidence_tables import PooledTable, Shared, pooled_tables
from charrun.report.intervals import Share
from charrun.statistics import PAIRED_METHOD, PairedDifference, paired_difference, wilson
from charrun.store.cells import CellView, Coordinates, coordinates
from charrun.store.runs import Run

BASE = "base"

_Key = tuple[Any, str]
"""Seed and prompt."""


@dataclass(frozen=True)
class Rate:
    """How often a model of an arm answered in character, over all seeds.

    Attributes:
        arm: The arm.
        model: The model, as the evaluation names it.
        share: The rate with its 95% Wilson interval.
        by_seed: Rate of each seed.
        repeats: The earlier arm that shares this model; empty for an arm's final model, and where there is none.
        to: The arm and model that it is compared with, `full, sft`; empty where it is compared with none.
        against: Difference to the same model of the arm that is compared with, of a final model to that arm's final
            one; to the base model within that arm itself, and where there are no arms; None for what is compared with
            none.
    """

    arm: str
    model: str
    share: Share
    by_seed: Mapping[str, float]
    repeats: str
    to: str
    against: PairedDifference | None


@dataclass(frozen=True)
class Group:
    """Cells that differ in arm and seed alone.

    Attributes:
        character: Whom evaluations look for.
        models: The entry of models.
        scale: The scale.
        rates: By arm and model, in their order.
        against: What the differences are to.
        reference: The arm that others are compared with; empty where there are no arms.
        measurements: What other evaluations measured.
        notes: What stands in the way of reading them.
    """

    character: str
    models: str
    scale: str
    rates: tuple[Rate, ...]
    against: str
    reference: str
    measurements: tuple[PooledTable, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """All groups of a run, and how sure the intervals are."""

    run: str
    groups: tuple[Group, ...]
    method: str = PAIRED_METHOD

    def to_dict(self) -> dict[str, Any]:
        """As JSON; keys are stable."""
        return asdict(self)


def evidence_of(run: Run, against: str = "") -> Evidence:
    """Rates and differences of a run.

    Args:
        run: The run.
        against: The arm that others are compared with; the first one if empty.
    """
    cells = {cell.name: cell for cell in run.cells}
    groups: dict[tuple[str, str, str], list[tuple[Coordinates, CellView]]] = {}
    for place in coordinates(run.spec):
        if place.name in cells:
            groups.setdefault((place.character, place.models, place.scale), []).append((place, cells[place.name]))
    return Evidence(run.id, tuple(_group(key, members, against) for key, members in groups.items()))


def _group(key: tuple[str, str, str], members: Sequence[tuple[Coordinates, CellView]], against: str) -> Group:
    hits: dict[tuple[str, str], dict[_Key, bool]] = {}
    last: dict[str, str] = {}
    notes, empty = [], []
    for place, cell in members:
        found = verdicts_of(cell)
        if not found:
            empty.append(cell.name)
        for model, verdicts in found.items():
            own = hits.setdefault((place.arm, model), {})
            own.update({(place.seed, prompt): verdict.in_character for prompt, verdict in verdicts.items()})
            last[place.arm] = model
    if empty:
        notes.append(f"no rates of {len(empty)} of {len(members)} cells: {', '.join(empty)}")
    first = against or next((place.arm for place, _ in members), "")
    rates, shared = [], Shared(members)
    for (arm, model), found_hits in hits.items():
        # Final checkpoints are compared with final ones, whatever stage they come from.
        other = (first, last.get(first, "") if model == last[arm] else model) if arm != first else (arm, BASE)
        change = None if model == BASE else _difference(hits.get(other), found_hits)
        rates.append(
            Rate(
                arm,
                model,
                _share(found_hits),
                _by_seed(found_hits),
                _repeats(shared, hits, arm, model) if model != last[arm] else "",
                ", ".join(filter(None, other)) if change else "",
                change,
            )
        )
    told = "the base model"
    if first:
        final = f" ({last[first]})" if first in last else ""
        told = (
            f"the same model of {first}, of an arm's final model to {first}'s final one{final}, and of {first} itself "
            "to its base model"
        )
    return Group(*key, tuple(rates), told, first, pooled_tables(members, first), tuple(notes))


def _repeats(shared: Shared, hits: Mapping[tuple[str, str], Any], arm: str, model: str) -> str:
    first = shared.first(arm, model)
    return first if first != arm and hits.get((first, model)) == hits[arm, model] else ""


def _share(hits: Mapping[_Key, bool]) -> Share:
    k, n = sum(hits.values()), len(hits)
    return Share(k / n, *wilson(k, n), k, n)


def _by_seed(hits: Mapping[_Key, bool]) -> dict[str, float]:
    found: dict[str, list[bool]] = {}
    for (seed, _), hit in hits.items():
        found.setdefault("" if seed is None else str(seed), []).append(hit)
    return {seed: sum(each) / len(each) for seed, each in found.items()}


def _difference(a: Mapping[_Key, bool] | None, b: Mapping[_Key, bool]) -> PairedDifference | None:
    """b - a over the prompts that both answered under the same seed."""
    pairs = [(a[key], b[key]) for key in b if key in a] if a else []
    return paired_difference(pairs) if pairs else None
