"""What a run's arms and seeds show, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable

from charrun.report.columns import table
from charrun.report.evidence import Evidence, Group, Rate
from charrun.report.text import safe
from charrun.statistics import PairedDifference

_HEADING = ("arm", "model", "in character", "95% interval", "by seed", "difference", "95% interval", "n")


def evidence_lines(found: Evidence, width: int) -> list[str]:
    """Tables of rates with intervals and differences, and how to read them."""
    lines: list[str] = []
    for group in found.groups:
        lines += [*_group(group, width), ""]
    if not any(group.rates for group in found.groups):
        return [*lines, f"{safe(found.run)} has no evaluation yet."]
    seeds = (
        "A rate is over all seeds; its Wilson interval takes answers as independent, so look at the seeds' own rates."
    )
    return [*lines, seeds, f"Differences: {found.method}."]


def _group(group: Group, width: int) -> Iterable[str]:
    yield f"{safe(group.character)}, {safe(group.models)}, {safe(group.scale)}: differences to {safe(group.against)}"
    if group.rates:
        yield from table([_HEADING, *map(_row, group.rates)], "<<>>>>>>", width)
    yield from (f"note: {safe(note)}" for note in group.notes)


def _row(rate: Rate) -> tuple[str, ...]:
    share = rate.share
    seeds = " ".join(f"{100 * each:.0f}" for each in rate.by_seed.values()) if len(rate.by_seed) > 1 else "-"
    return (
        safe(rate.arm) or "-",
        safe(rate.model),
        f"{share.hits}/{share.n} {100 * share.rate:.1f}%",
        f"{100 * share.low:.1f} to {100 * share.high:.1f}",
        seeds,
        *_difference(rate.against),
    )


def _difference(found: PairedDifference | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    return f"{100 * found.value:+.1f}", f"{100 * found.low:+.1f} to {100 * found.high:+.1f}", str(found.n)
