"""What a run's arms and seeds show, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from charrun.report.columns import table
from charrun.report.evidence import Evidence, Group, Rate
from charrun.report.evidence_tables import Pooled
from charrun.report.intervals import METHOD, Difference, Share
from charrun.report.text import safe
from charrun.statistics import PairedDifference

_RATE = ("95% interval", "by seed", "difference", "95% interval")
_HEADING = ("arm", "model", "in character", *_RATE, "n")
_SHARED = "Models that several arms share are shown with the first one."


def evidence_lines(found: Evidence, width: int, measured: Sequence[str] = ()) -> list[str]:
    """Tables of rates with intervals and differences, and how to read them.

    Args:
        found: What is shown.
        width: Columns of the screen.
        measured: Names of other measurements to show in place of the in-character rates.
    """
    if measured:
        return [*_tables(found, width, measured), _SHARED, f"Differences between arms: {METHOD}."]
    lines: list[str] = []
    for group in found.groups:
        lines += [*_group(group, width), ""]
    if not any(group.rates for group in found.groups):
        return [*lines, f"{safe(found.run)} has no evaluation yet."]
    lines += [
        "A rate is over all seeds; its Wilson interval takes answers as independent, so look at the seeds' own rates.",
        *([_SHARED] if any(rate.repeats for group in found.groups for rate in group.rates) else []),
        f"Differences: {found.method}.",
    ]
    names = dict.fromkeys(each.name for group in found.groups for each in group.measurements)
    if names:
        lines.append(f"Also measured, shown by --measurement NAME: {', '.join(map(safe, names))}.")
    return lines


def _group(group: Group, width: int) -> Iterable[str]:
    yield _title(group)
    if group.rates:
        yield from table([_HEADING, *(_row(rate) for rate in group.rates if not rate.repeats)], "<<>>>>>>", width)
    yield from (f"note: {safe(note)}" for note in group.notes)


def _tables(found: Evidence, width: int, names: Sequence[str]) -> Iterable[str]:
    for group in found.groups:
        for each in (each for each in group.measurements if each.name in names):
            to = f": differences to the same rate of {safe(group.reference)}" if group.reference else ""
            yield f"{safe(each.title)}; {_place(group)}{to}"
            rows = [_pooled(rate) for rate in each.rates if not rate.repeats]
            if rows:
                heading = ("arm", *map(safe, each.heading), "rate", *_RATE)
                yield from table([heading, *rows], "<" * (1 + len(each.heading)) + ">>>>>", width)
            yield from (f"note: the scorer cannot tell the character in {safe(cell)}" for cell in each.untold)
            yield ""


def _title(group: Group) -> str:
    return f"{_place(group)}: differences to {safe(group.against)}"


def _place(group: Group) -> str:
    return f"{safe(group.character)}, {safe(group.models)}, {safe(group.scale)}"


def _row(rate: Rate) -> tuple[str, ...]:
    n = str(rate.against.n) if rate.against else "-"
    told = (*_share(rate.share, rate.by_seed), *_difference(rate.against), n)
    return (safe(rate.arm) or "-", safe(rate.model), *told)


def _pooled(rate: Pooled) -> tuple[str, ...]:
    told = (*_share(rate.share, rate.by_seed), *_difference(rate.against))
    return (safe(rate.arm) or "-", *map(safe, rate.labels), *told)


def _share(share: Share, by_seed: Mapping[str, float]) -> tuple[str, str, str]:
    return (
        f"{share.hits}/{share.n} {100 * share.rate:.1f}%",
        f"{100 * share.low:.1f} to {100 * share.high:.1f}",
        " ".join(f"{100 * each:.0f}" for each in by_seed.values()) if len(by_seed) > 1 else "-",
    )


def _difference(found: PairedDifference | Difference | None) -> tuple[str, str]:
    if found is None:
        return "-", "-"
    return f"{100 * found.value:+.1f}", f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
