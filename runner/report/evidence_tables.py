"""The tables of a run's arms and seeds, each over all seeds: what any stage published as `measurements`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from charrun.report.intervals import Difference, Share, difference
from charrun.report.measurements import Labels, Measurement, measurements_of
from charrun.statistics import wilson, worth
from charrun.store.cells import CellView, Coordinates

MODEL = "model"


@dataclass(frozen=True)
class Pooled:
    """A rate of an arm's table over all seeds.

    Attributes:
        arm: The arm.
        labels: What tells it from the table's others.
        share: The rate. Its interval is Wilson's of as many independent answers as the seeds' own intervals have.
        by_seed: The seeds' own rates.
        repeats: The earlier arm that shares this model; empty for an arm's final model, and where there is none.
        to: The arm and labels that it is compared with, `full, sft`; empty where it is compared with none.
        against: Difference to the same rate of the arm that is compared with (final models with final ones), the two
            taken as independent; None for that arm itself, and where it has none.
    """

    arm: str
    labels: Labels
    share: Share
    by_seed: Mapping[str, float]
    repeats: str
    to: str
    against: Difference | None


@dataclass(frozen=True)
class PooledTable:
    """A table over all arms and seeds.

    Attributes:
        name: The stage item that published it, and which of its tables it is, where it published several.
        title: What was measured.
        heading: Names of the labels.
        rates: By arm, in the tables' order.
        untold: Cells whose table has no rates, each with the reason.
    """

    name: str
    title: str
    heading: Labels
    rates: tuple[Pooled, ...]
    untold: Mapping[str, str]


@dataclass
class _Draft:
    title: str
    heading: Labels = ()
    rates: dict[tuple[str, Labels], dict[str, Share]] = field(default_factory=dict)
    untold: dict[str, str] = field(default_factory=dict)


Members = Sequence[tuple[Coordinates, CellView]]
"""Cells that differ in arm and seed alone."""


class Shared:
    """Which arms may share a model: those whose stage of that name has the same folders, or that have no such stage.

    The base model is made by no stage, and neither is a checkpoint that a spec names: whether those are the same, what
    they were measured at must tell.
    """

    def __init__(self, members: Members) -> None:
        self._made: dict[tuple[str, str], list[tuple[str, str]]] = {}
        self._arms = list(dict.fromkeys(place.arm for place, _ in members))
        for place, cell in members:
            for stage in cell.stages:
                folder = stage.folder.name if stage.folder else ""
                self._made.setdefault((place.arm, stage.id), []).append((str(place.seed), folder))

    def first(self, arm: str, model: str) -> str:
        """The first arm that may have the same model as this one."""
        own = self._made.get((arm, model))
        return next(each for each in self._arms if self._made.get((each, model)) == own)


def pooled_tables(members: Members, against: str) -> tuple[PooledTable, ...]:
    """All tables of cells that differ in arm and seed alone.

    Args:
        members: The cells.
        against: The arm that others are compared with.
    """
    drafts: dict[str, _Draft] = {}
    shared = Shared(members)
    for place, cell in members:
        for name, found in measurements_of(cell):
            draft = drafts.setdefault(name, _Draft(found.title))
            if not found.rates:
                draft.untold[cell.name] = _why(found)
                continue
            draft.heading = draft.heading or found.heading
            if found.heading != draft.heading:  # the same item is another stage in this arm
                draft = drafts.setdefault(f"{name} of {place.arm}", _Draft(found.title, found.heading))
            for labels, share in found.rates.items():
                seed = "" if place.seed is None else str(place.seed)
                draft.rates.setdefault((place.arm, labels), {})[seed] = share
    return tuple(
        PooledTable(name, draft.title, draft.heading, tuple(_pooled(draft, against, shared)), draft.untold)
        for name, draft in drafts.items()
    )


def _why(found: Measurement) -> str:
    """Why a table has no rates."""
    if not found.tells:
        return "the scorer cannot tell the character"
    return found.notes[0] if found.notes else "its stage gave none"


def _pooled(draft: _Draft, against: str, shared: Shared) -> Iterator[Pooled]:
    shares = {key: _sum(list(seeds.values())) for key, seeds in draft.rates.items()}
    last = _last_models(draft)
    for (arm, labels), seeds in draft.rates.items():
        model = labels[draft.heading.index(MODEL)] if MODEL in draft.heading else ""
        first = shared.first(arm, model) if model and model != last[arm] else arm
        there = (against, _in_arm(draft.heading, labels, last.get(arm), last.get(against)))
        other = shares.get(there) if arm != against else None
        share = shares[arm, labels]
        by_seed = {seed: each.rate for seed, each in seeds.items()}
        repeats = first if first != arm and draft.rates.get((first, labels)) == seeds else ""
        to = ", ".join((against, *there[1])) if other else ""
        yield Pooled(arm, labels, share, by_seed, repeats, to, difference(other, share) if other else None)


def _sum(shares: Sequence[Share]) -> Share:
    """One rate of several seeds' ones."""
    hits, n = sum(share.hits for share in shares), sum(share.n for share in shares)
    if not n:
        return Share(0.0, *wilson(0, 0), 0, 0)
    rate, answers = hits / n, sum(min(share.n, worth(share.rate, share.low, share.high)) for share in shares)
    low, high = wilson(rate * answers, answers)
    return Share(rate, min(low, rate), max(high, rate), hits, n)


def _last_models(draft: _Draft) -> dict[str, str]:
    """Each arm's final model: the last one in its table."""
    if MODEL not in draft.heading:
        return {}
    at = draft.heading.index(MODEL)
    return {arm: labels[at] for arm, labels in draft.rates}


def _in_arm(heading: Labels, labels: Labels, own: str | None, other: str | None) -> Labels:
    """The labels of the same rate in another arm, whose final model may come from another stage."""
    if own is None or other is None or labels[at := heading.index(MODEL)] != own:
        return labels
    return (*labels[:at], other, *labels[at + 1 :])
