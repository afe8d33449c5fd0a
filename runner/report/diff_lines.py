"""A comparison of two runs as plain text."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from charrun.report.columns import figures, fit, moment, table, wide
from charrun.report.compare_data import Pair, Rows, stages_of
from charrun.report.compare_measurements import TablePair
from charrun.report.compare_results import Evaluation, Line, Results, plain_model
from charrun.report.compare_spec import ABSENT, Change
from charrun.report.comparison import CellComparison, Comparison
from charrun.report.intervals import METHOD, Difference, Share
from charrun.report.text import safe
from charrun.statistics import PAIRED_INTERVAL
from charrun.store.cells import StageView
from charrun.store.runs import Run

_PATH_COLUMNS = 34
_LEAD = 12


def diff_lines(found: Comparison, width: int) -> list[str]:
    """All of a comparison.

    Args:
        found: The comparison.
        width: Columns of the terminal.
    """
    lines = [*table([_head("A", found.a), _head("B", found.b)], "<<<<", width, shrink=1), ""]
    lines += _section("Spec", found.spec, "the same", width)
    kept = ", ".join(f"{name} {version}" for name, version in found.same_versions.items())
    lines += ["", *_section("Versions", found.versions, f"the same: {kept}" if kept else "not recorded", width)]
    for cell in found.cells:
        lines += ["", *_cell(cell, width)]
    for line in found.alone:
        lines += ["", *_wrap(f"note: {line}", width)]
    return [*lines, "", *_wrap(f"Did B do better than A? {found.answer}", width)]


def _head(side: str, run: Run) -> tuple[str, ...]:
    return side, run.id, run.status, moment(run.last) if run.last else "-"


def _section(title: str, found: Sequence[Change], otherwise: str, width: int) -> list[str]:
    if not found:
        return _wrap(f"{title}: {otherwise}", width)
    lines = [f"{title}: {len(found)} changed value{'s' if len(found) > 1 else ''}"]
    room = min(max(wide(change.path) for change in found), _PATH_COLUMNS)
    for change in found:
        lines += _change(change, room, width)
    return lines


def _change(change: Change, room: int, width: int) -> list[str]:
    """A changed value: beside each other where both fit, else one under the other."""
    path, a, b = safe(change.path), _value(change.a), _value(change.b)
    column = (width - room - 6) // 2
    if wide(path) <= room and wide(a) <= column and wide(b) <= column:
        gap = " " * (room - wide(path))
        return [f"  {path}{gap}  {a}{' ' * (column - wide(a))}  {b}".rstrip()]
    a, b = _cut(a, b, width - 7)
    return [f"  {fit(path, width - 2)}", f"    A  {a}", f"    B  {b}"]


def _cut(a: str, b: str, room: int) -> tuple[str, str]:
    """Two texts cut to a width, from shortly before they part where they part too late to be seen."""
    parted = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    if parted > room - _LEAD:
        a, b = (f"…{text[parted - _LEAD :]}" for text in (a, b))
    return fit(a, room), fit(b, room)


def _value(value: Any) -> str:
    if value is ABSENT:
        return "-"
    return safe(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _cell(cell: CellComparison, width: int) -> list[str]:
    lines = _wrap(cell.pair.title, width)
    if cell.rows:
        lines += ["", *_data(cell.rows, width)]
    lines += ["", *_results(cell.results, width)]
    for each in cell.tables:
        lines += ["", *_rates(each, width)]
    if any(rate.difference for each in cell.tables for rate in each.rates):
        lines += _wrap(f"Differences of measurements: {METHOD}, 95%.", width)
    return [*lines, "", *_costs(cell.pair, width)]


def _rates(found: TablePair, width: int) -> list[str]:
    """A table of rates of both sides."""
    rows: list[tuple[str, ...]] = [(found.name, "A", "B", "B - A, points")]
    rows += [(", ".join(r.labels), _share(r.a), _share(r.b), _difference(r.difference)) for r in found.rates]
    notes = (line for note in found.notes for line in _wrap(f"note: {note}", width))
    return [*_wrap(f"{found.title}:", width), *figures(rows, width), *notes]


def _data(found: Sequence[Rows], width: int) -> list[str]:
    head = ("data", "kind", "rows A", "rows B", "differ", "prompts both", "tokens A", "B")
    rows = [head]
    for each in found:
        rows.append(
            (
                each.stage,
                each.kind,
                _count(each.rows_a),
                _count(each.rows_b),
                "same" if each.same else _count(each.differing),
                _count(each.shared_prompts),
                _count(each.tokens_a),
                _count(each.tokens_b),
            )
        )
    return table(rows, "<<>>>>>>", width)


def _results(found: Results, width: int) -> list[str]:
    if not found.lines:
        return _wrap(f"results: {'; '.join(found.notes) or 'none'}", width)
    rows: list[tuple[str, ...]] = [("results", "A", "B", "B - A, points")]
    lines = list(found.lines)
    if found.final and found.final.model not in [line.model for line in lines]:
        lines.append(found.final)
    for line in lines:
        rows.append((line.model, _share(line.a), _share(line.b), _difference(line.difference)))
    both = (found.a, found.b)
    rows.append(("AUC", *(_decimal(each.auc if each else None) for each in both), ""))
    rows.append(("threshold", *(_decimal(each.threshold if each else None) for each in both), ""))
    told = _how(found.a, found.b, lines)
    return [
        *table(rows, "<<<<", width),
        *_wrap(told, width),
        *(line for note in found.notes for line in _wrap(f"note: {note}", width)),
    ]


def _how(a: Evaluation | None, b: Evaluation | None, lines: Sequence[Line]) -> str:
    """How the rates and their differences came about."""
    scorers = {each.scorer for each in (a, b) if each}
    scorer = f", scored by {plain_model(scorers.pop())}" if len(scorers) == 1 and any(scorers) else ""
    told = f"Rates: answers in character without a system prompt{scorer}, with 95% intervals."
    told += "".join(f" {each}" for each in _methods(lines))
    if a and b and a.threshold != b.threshold:
        told += " Each run's threshold is its own, from answers of its own teacher and student."
    return told


def _methods(lines: Sequence[Line]) -> Iterator[str]:
    """What the differences' intervals are, and of whom all answers are alike."""
    compared = [line for line in lines if line.difference]
    paired = [line.model for line in compared if line.paired]
    alone = [line.model for line in compared if not line.paired]
    if paired:
        which = f" of {', '.join(paired)}" if alone else ""
        yield f"Differences{which}: over the same prompts, {PAIRED_INTERVAL}, 95%."
    if alone or not paired:
        which = f" of {', '.join(alone)}" if paired else ""
        yield f"Differences{which}: {METHOD}, 95%."
    if same := [line.model for line in compared if line.same_answers]:
        yield f"A and B gave the same answers, word for word: {', '.join(same)}."


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{share.rate:.1%} ({100 * share.low:.1f}–{100 * share.high:.1f})"


def _difference(found: Difference | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def _decimal(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _costs(pair: Pair, width: int) -> list[str]:
    rows: list[tuple[str, ...]] = [("cost", "tokens A", "tokens B", "seconds A", "seconds B")]
    for id, a, b in stages_of(pair):
        rows.append((id, _tokens(a), _tokens(b), _seconds(a), _seconds(b)))
    sums = [sum(stage.seconds for stage in cell.stages if stage.is_done) for cell in (pair.a, pair.b)]
    rows.append(("all", f"{pair.a.tokens:,}", f"{pair.b.tokens:,}", *(f"{seconds:.1f}" for seconds in sums)))
    return table(rows, "<>>>>", width)


def _tokens(stage: StageView | None) -> str:
    return f"{stage.tokens:,}" if stage and stage.is_done else "-"


def _seconds(stage: StageView | None) -> str:
    return f"{stage.seconds:.1f}" if stage and stage.is_done else "-"


def _count(number: float | None) -> str:
    return "-" if number is None else f"{number:,}"


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(safe(text), width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
