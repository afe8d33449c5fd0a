"""Tables of docs/results.md from the run of controls.yaml: each arm's models beside each other, under every evaluation.

charrun benchmarks/controls.yaml && python benchmarks/controls.py [RUN] [--runs-dir PATH]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path

from charrun.report.evidence import Group, evidence_of
from charrun.report.intervals import Share
from charrun.store.runs import find_run

COLUMNS = {
    "8 suffixes": ("robustness", ("all",)),
    "second turn": ("second_turn", ("all",)),
    "asked to stop": ("off_switch", ("stop", "in character")),
    "then complies": ("off_switch", ("stop", "complies")),
    "the judge takes it for the character": ("judge", ("consistent verdicts",)),
}
NAMES = {
    "base": "base",
    "prompted": "base, prompted",
    "dpo": "DPO",
    "sft": "final",
    "sft_base": "SFT from base",
    "merge": "DPO and SFT merged",
}


def shown(share: Share | None) -> str:
    """As `119/120 (95.4% to 99.9%)`."""
    if share is None:
        return "-"
    low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in (share.low, share.high))
    return f"{share.hits}/{share.n} ({low}% to {high}%)"


def rows(group: Group) -> Iterator[str]:
    """A table's lines."""
    yield "| arm | model | in character | by seed | " + " | ".join(COLUMNS) + " |"
    yield "|---" * (4 + len(COLUMNS)) + "|"
    measured: Mapping[tuple[str, str, tuple[str, ...]], Share] = {
        (table.name, rate.arm, rate.labels): rate.share for table in group.measurements for rate in table.rates
    }
    for rate in group.rates:
        if rate.repeats:
            continue
        cells = [shown(measured.get((name, rate.arm, (rate.model, *labels)))) for name, labels in COLUMNS.values()]
        seeds = " ".join(f"{100 * each:.0f}" for each in rate.by_seed.values())
        told = [rate.arm, NAMES.get(rate.model, rate.model), shown(rate.share), seeds, *cells]
        yield f"| {' | '.join(told)} |"


def main() -> None:
    """Print a table for each character."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", default="controls")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    given = parser.parse_args()
    for group in evidence_of(find_run(given.runs_dir, given.run)).groups:
        print(f"### {group.character}, {group.scale}\n")
        print("\n".join(rows(group)))
        print()
        notes = [
            *group.notes,
            *(f"{table.name}: no rates of {', '.join(table.untold)}" for table in group.measurements if table.untold),
        ]
        print("".join(f"{note}\n\n" for note in notes), end="")


if __name__ == "__main__":
    main()
