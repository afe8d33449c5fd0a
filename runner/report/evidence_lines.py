"""What a run's arms and seeds show, as a person reads it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from charrun.report.columns import figures
from charrun.report.evidence import Evidence, Group, Rate
from charrun.report.evidence_tables import Pooled
from charrun.report.intervals import METHOD
from charrun.report.text import safe
from charrun.statistics import PairedDifference

_RATE = ("95% interval", "by seed", "points", "95% interval")
_SHARED = "Models that several arms share are shown with the first one."


def evidence_lines(found: Evidence, width: int, measured: Sequence[str] = ()) -> list[str]:
    """Tables of rates with intervals and differences, and how to read them.

    Args:
        found: What is shown.
        width: Columns of the screen.
        measured: Names of other measurements to show in place of the in-character rates.
    """
    if measured:
        return [*_tables(found, width, measured), _SHARED, *_wrap(f"Points between arms: {METHOD}.", width)]
    lines: list[str] = []
    for group in found.groups:
        lines += [*_group(group, width), ""]
    if not any(group.rates for group in found.groups):
        return [*lines, f"{safe(found.run)} has no evaluation yet."]
    told = [
        "A rate is over all seeds; its Wilson interval takes answers as independent, so look at the seeds' own rates."
    ]
    if any(rate.repeats for group in found.groups for rate in group.rates):
        told.append(_SHARED)
    told.append(f"Points and their interval, p and n: differences over the same prompts, by {found.method}.")
    if names := dict.fromkeys(each.name for group in found.groups for each in group.measurements):
        told.append(f"Also measured, shown by --measurement NAME: {', '.join(names)}.")
    return [*lines, *(part for line in told for part in _wrap(line, width))]


def _group(group: Group, width: int) -> Iterable[str]:
    yield from _wrap(_title(group), width)
    if group.rates:
        heading = ("arm, model", "in character", *_RATE, "p", "n")
        rows = [
            (*_row(rate.arm, (rate.model,), rate), *_tested(rate.against)) for rate in group.rates if not rate.repeats
        ]
        yield from figures([heading, *rows], width)
    for note in group.notes:
        yield from _wrap(f"note: {note}", width)


def _tables(found: Evidence, width: int, names: Sequence[str]) -> Iterable[str]:
    for group in found.groups:
        for each in (each for each in group.measurements if each.name in names):
            to = (
                f": differences to the same rate of {group.reference}, final models to final ones"
                if group.reference
                else ""
            )
            yield from _wrap(f"{each.title}; {_place(group)}{to}", width)
            rows = [_row(rate.arm, rate.labels, rate) for rate in each.rates if not rate.repeats]
            if rows:
                yield from figures([(", ".join(("arm", *each.heading)), "rate", *_RATE), *rows], width)
            for cell, why in each.untold.items():
                yield from _wrap(f"note: no rates of {cell}: {why}", width)
            yield ""


def _title(group: Group) -> str:
    brackets = ", which is in brackets" if group.reference else ""
    return f"{_place(group)}: differences to {group.against}{brackets}"


def _place(group: Group) -> str:
    return f"{group.character}, {group.models}, {group.scale}"


def _row(arm: str, labels: Sequence[str], rate: Rate | Pooled) -> tuple[str, ...]:
    """What a rate is of and compared to, the rate, its interval, the seeds' own rates, the difference, its interval.

    Without arms all are compared with one model, which the title says.
    """
    share, against = rate.share, rate.against
    to = f" (to {rate.to})" if arm and rate.to else ""
    return (
        ", ".join((arm, *labels) if arm else labels) + to,
        f"{share.hits}/{share.n} {100 * share.rate:.1f}%",
        f"{100 * share.low:.1f} to {100 * share.high:.1f}",
        " ".join(f"{100 * each:.0f}" for each in rate.by_seed.values()) if len(rate.by_seed) > 1 else "-",
        f"{100 * against.value:+.1f}" if against else "-",
        f"{100 * against.low:+.1f} to {100 * against.high:+.1f}" if against else "-",
    )


def _tested(found: PairedDifference | None) -> tuple[str, str]:
    """McNemar's exact p, and the pairs."""
    return ("<0.001" if found.p < 0.001 else f"{found.p:.2g}", str(found.n)) if found else ("-", "-")


def _wrap(line: str, width: int) -> list[str]:
    return textwrap.wrap(safe(line), width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
