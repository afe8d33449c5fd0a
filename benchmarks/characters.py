"""Tables of docs/characters.md from the run of characters.yaml: gates, trainings and null control of each character.

charrun benchmarks/characters.yaml && python benchmarks/characters.py [RUN] [--runs-dir PATH]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from controls import shown

from charrun.plugins._audit import INTERACTIONS_AUDIT, PAIRS_AUDIT, REFLECTIONS_AUDIT
from charrun.report.evidence import Group, evidence_of
from charrun.store.cells import CellView, coordinates
from charrun.store.runs import find_run

AUDITS = {"pairs": PAIRS_AUDIT, "reflection": REFLECTIONS_AUDIT, "interaction": INTERACTIONS_AUDIT}
JUDGED = {"pairs": "pairs", "reflection": "reflections", "interaction": "turns"}


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def trained(groups: Sequence[Group], cells: dict[str, CellView], controls: dict[str, CellView]) -> Iterator[list[str]]:
    """By character: what the gate before training says, rates, the null control's rate, and a judge's verdicts."""
    for group in groups:
        (gate,) = cells[group.character].rows("measurability")
        told = f"{len(gate['traits']) - gate['unmeasurable']} of {len(gate['traits'])}"
        rates = {(rate.arm, rate.model): rate.share for rate in group.rates}
        places = (("full", "base"), ("full", "dpo"), ("full", "sft"), ("neutral", "sft"))
        judge = [verdicts(each[group.character]) for each in (cells, controls)]
        yield [group.character, f"{gate['auc']:.3f}", told, *(shown(rates.get(place)) for place in places), *judge]


def verdicts(cell: CellView) -> str:
    """What the judge says of the final model's answers against the base model's."""
    (table,) = (row for row in cell.rows("measurements") if row["name"] == "judge")
    counts = next(each for each in table["comparisons"] if each["model"] == "sft")
    told = ("won", "lost", "inconsistent", "unparsed", "equal")
    return ", ".join(f"{counts[name]} {name}" for name in told if counts[name])


def judged(cells: dict[str, CellView]) -> Iterator[list[str]]:
    """By character: what the gates dropped of everything that was generated, and what the audits warn of."""
    for character, cell in cells.items():
        told = [character]
        warned = []
        for stage in cell.stages:
            if stage.uses not in JUDGED or stage.folder is None:
                continue
            gates = _read(stage.folder / "gates.json")
            dropped = Counter(gates["dropped"])
            dropped.update(
                {f"{why} conversation": n for why, n in gates.get("conversations", {}).get("dropped", {}).items()}
            )
            reasons = ", ".join(f"{n} {why}" for why, n in dropped.most_common()) or "none"
            told.append(f"{gates['judged']:,}: {reasons}")
            audit = _read(stage.folder / "audit.json")
            over = [f"{name} {audit[name]:.2f}" for name, limit in limits_of(stage.uses) if (audit[name] or 0) > limit]
            warned += [f"{stage.uses}: {', '.join(over)}"] if over else []
        yield [*told, "; ".join(warned) or "-"]


def limits_of(stage: str) -> Iterator[tuple[str, float]]:
    """Where a stage's audit warns, by measure."""
    for name, schema in AUDITS[stage]["properties"].items():
        if name.endswith("_warn"):
            yield name.removesuffix("_warn"), schema["default"]


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", nargs="?", default="characters")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    given = parser.parse_args()
    run = find_run(given.runs_dir, given.run)
    views = {cell.name: cell for cell in run.cells}
    cells, controls = (
        {place.character: views[place.name] for place in coordinates(run.spec) if place.arm == arm}
        for arm in ("full", "neutral")
    )
    head = ["character", "AUC before training", "traits told alone", "base", "DPO", "final", "null control, final"]
    head += ["judge: final over base", "judge: null control over base"]
    print(table(head, trained(evidence_of(run).groups, cells, controls)), end="\n\n")
    print(table(["character", *JUDGED.values(), "audit: above its limit"], judged(cells)))


if __name__ == "__main__":
    main()
