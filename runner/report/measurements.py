"""Rows of the kind `measurements`: tables of rates that any stage may publish, shown without knowing the stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from charrun.pipeline.results import MEASUREMENTS
from charrun.report.columns import table
from charrun.report.intervals import Difference, Share, auc_text
from charrun.report.text import safe
from charrun.store.cells import CellView

_WIDTH = 150

Labels = tuple[str, ...]
"""What tells a rate of a table from the others, such as a model and a condition."""


@dataclass(frozen=True)
class Change:
    """What a rate is compared with on the same prompts: the difference, and McNemar's exact p."""

    against: str
    difference: Difference
    p: float


@dataclass(frozen=True)
class Measurement:
    """One table.

    Attributes:
        name: What it is called.
        title: What was measured.
        heading: Names of the labels.
        rates: Rates by label.
        changes: What they are compared with.
        scored_as: The character that answers were scored as; empty where there is none.
        auc: The scorer's AUC; None where there is none.
        calibration: Of how many answers in character, and of how many plain ones; None where it is not told.
        threshold: The score above which an answer counts; None where there is none.
        tells: Whether the scorer can tell the character.
        overlap: How much of the prompts stands in training rows, as the stage published it.
        tested_by: How its differences are tested.
        notes: What else is to be known.
    """

    name: str
    title: str
    heading: Labels
    rates: Mapping[Labels, Share]
    changes: Mapping[Labels, Change]
    scored_as: str
    auc: float | None
    calibration: int | None
    threshold: float | None
    tells: bool
    overlap: Mapping[str, Any]
    tested_by: str
    notes: tuple[str, ...]


def measurement_of(row: Any) -> Measurement | None:
    """A published row as a table; None where it has another shape."""
    try:
        heading = tuple(str(label) for label in row["labels"])
        return Measurement(
            name=str(row["name"]),
            title=str(row["title"]),
            heading=heading,
            rates={_labels(each, heading): _share(each) for each in row["rows"]},
            changes={_labels(each, heading): _change(each) for each in row.get("differences", [])},
            scored_as=str(row.get("scored_as", "")),
            auc=_number(row.get("auc")),
            calibration=int(row["calibration"]) if row.get("calibration") else None,
            threshold=_number(row.get("threshold")),
            tells=row.get("tells") is not False,
            overlap=row.get("contamination") or {},
            tested_by=str(row.get("tested_by", "McNemar's exact p")),
            notes=tuple(str(note) for note in row.get("notes", [])),
        )
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError):
        return None


def measurements_of(cell: CellView) -> Iterator[tuple[str, Measurement]]:
    """A cell's tables, each by the stage item that published it, and by its own name where that published several."""
    for stage in cell.stages:
        rows = (stage.outputs[MEASUREMENTS].read() or []) if MEASUREMENTS in stage.outputs else []
        for found in filter(None, map(measurement_of, rows)):
            yield (stage.id if len(rows) == 1 else f"{stage.id} {found.name}"), found


def measurement_lines(row: Any) -> list[str]:
    """A table as lines: rates with n and interval, what each changes, contamination, notes."""
    found = measurement_of(row)
    if found is None:
        plain = row if isinstance(row, Mapping) else {}
        return [f"{safe(str(key))}: {safe(str(value))}" for key, value in plain.items() if not isinstance(value, list)]
    lines = [safe(found.title) + (f" ({safe(found.scored_as)}):" if found.scored_as else ":")]
    lines += [f"  {auc_text(found.auc, found.calibration)}"] if found.auc is not None else []
    if not found.tells:
        return [*lines, "  this scorer cannot tell this character, so no rate is given"]
    against = {change.against for change in found.changes.values()}
    compared = f"from {against.pop()}, points" if len(against) == 1 else "difference, points"
    rows = [(*found.heading, "rate", "k of n", "95% interval", *([compared] if found.changes else []))]
    for labels, share in found.rates.items():
        change = [_told(found.changes.get(labels), compared)] if found.changes else []
        interval = f"{share.low:.1%} to {share.high:.1%}"
        rows.append((*labels, f"{share.rate:.1%}", f"{share.hits} of {share.n}", interval, *change))
    align = "<" * len(found.heading) + ">><" + ("<" if found.changes else "")
    lines += [f"  {line}" for line in table(rows, align, _WIDTH)] if found.rates else []
    if found.changes:
        told = f"same prompts, 95% intervals, {safe(found.tested_by)}, not corrected for their number"
        lines.append(f"  Differences: {told}.")
    return [*lines, *(f"  {safe(note)}" for note in (*overlap_lines(found.overlap), *found.notes))]


def share_text(share: Share | None) -> str:
    """A rate with its interval in points."""
    return "-" if share is None else f"{share.rate:.1%} ({100 * share.low:.1f}–{100 * share.high:.1f})"


def _told(change: Change | None, heading: str) -> str:
    if change is None:
        return ""
    found = change.difference
    told = f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f}), p {change.p:.2g}"
    return told if heading.startswith("from") else f"{told}, from {change.against}"


def overlap_lines(found: Mapping[str, Any]) -> list[str]:
    """How much of the prompts stands in training rows; nothing of what has another shape."""
    try:
        if not found["texts"]:
            return ["Contamination: no training rows are known, so the prompts are not checked."]
        told = (
            f"Contamination: {found['exact']} of {found['prompts']} prompts equal one of {found['texts']:,} training "
            f"texts, {found['shared']} share {found['ngram']} words in a row or all of fewer; {found['left_out']} were "
            "left out before."
        )
        return [told + (f" Not known of {', '.join(found['unknown'])}." if found["unknown"] else "")]
    except (KeyError, TypeError, ValueError):
        return []


def _labels(row: Mapping[str, Any], heading: Labels) -> Labels:
    return tuple(str(row[label]) for label in heading)


def _share(row: Mapping[str, Any]) -> Share:
    hits, n = int(row["k"]), int(row["n"])
    return Share(hits / n, float(row["low"]), float(row["high"]), hits, n)


def _change(row: Mapping[str, Any]) -> Change:
    change = Difference(float(row["value"]), float(row["low"]), float(row["high"]))
    return Change(str(row["against"]), change, float(row["p"]))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
