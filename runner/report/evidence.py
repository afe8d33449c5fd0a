"""What a run's arms and seeds show: rates of each arm, and differences between arms over the same prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from charrun.report.evidence_tables import PooledTable, Shared, pooled_tables
from charrun.report.intervals import Share
from charrun.statistics import PAIRED_METHOD, PairedDifference, paired_difference, wilson
from charrun.store.cells import CellView, Coordinates, coordinates
from charrun.store.runs import Run

ANSWERS = "answers.jsonl"
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
        against: Difference to the same model of the arm that is compared with; to the base model within an arm where
            there is no other arm; None for what is compared with itself.
    """

    arm: str
    model: str
    share: Share
    by_seed: Mapping[str, float]
    repeats: str
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
        found = list(_answers(cell))
        if not found:
            empty.append(cell.name)
        for row in found:
            hits.setdefault((place.arm, str(row["model"])), {})[place.seed, str(row["prompt"])] = bool(
                row["in_character"]
            )
            last[place.arm] = str(row["model"])
    if empty:
        notes.append(f"no rates of {len(empty)} of {len(members)} cells: {', '.join(empty)}")
    first = against or next((place.arm for place, _ in members), "")
    rates, shared = [], Shared(members)
    for (arm, model), found_hits in hits.items():
        # Final checkpoints are compared with final ones, whatever stage they come from.
        other = (first, last.get(first, "") if model == last[arm] else model) if arm != first else (arm, BASE)
        rates.append(
            Rate(
                arm,
                model,
                _share(found_hits),
                _by_seed(found_hits),
                _repeats(shared, hits, arm, model) if model != last[arm] else "",
                None if model == BASE else _difference(hits.get(other), found_hits),
            )
        )
    told = f"the same model of {first}, and of {first} itself the base model" if first else "the base model"
    return Group(*key, tuple(rates), told, first, pooled_tables(members, first), tuple(notes))


def _repeats(shared: Shared, hits: Mapping[tuple[str, str], Any], arm: str, model: str) -> str:
    first = shared.first(arm, model)
    return first if first != arm and hits.get((first, model)) == hits[arm, model] else ""


def _answers(cell: CellView) -> Iterator[dict[str, Any]]:
    """The rows of the cell's evaluation that have a verdict for each prompt."""
    for stage in cell.stages:
        if stage.folder is None or "evaluation" not in stage.outputs:
            continue
        rows = [row for row in _rows(stage.folder / ANSWERS) if {"model", "prompt", "in_character"} <= row.keys()]
        if rows:
            yield from (row for row in rows if not row.get("condition"))
            return


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where it is not there or not whole."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict)]


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
