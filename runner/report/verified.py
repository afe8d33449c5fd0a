"""What `charrun verify` has found: for a terminal and for programs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from charrun.report.text import safe
from charrun.store.checked import Checked
from charrun.store.runs import Run

_MOST_LINES = 5


def verified_lines(run: Run, found: Checked, unseen: str) -> list[str]:
    """What is damaged, one thing a line, and how many files are sound."""
    lines = []
    counts = Counter(each.file for each in found.damage)
    told = Counter[Path]()
    for each in found.damage:
        told[each.file] += 1
        place = f"{_place(each.file, run)}:{each.line}" if each.line else _place(each.file, run)
        if told[each.file] <= _MOST_LINES:
            lines.append(f"{safe(place)} {each.what}\n  {each.then}")
        elif told[each.file] == counts[each.file]:
            lines.append(f"  and {counts[each.file] - _MOST_LINES:,} more lines of it")
    if unseen:
        lines.append(f"note: checkpoints were not looked at: {safe(unseen)}")
    files = {each.file for each in found.damage}
    several = "file" if len(found.covered) == 1 else "files"
    sound = f"{len(files):,} of them damaged" if files else "all sound"
    return [*lines, f"{run.id}: {len(set(found.covered) | files):,} {several} in {safe(str(run.runs_dir))}, {sound}"]


def verified_document(run: Run, found: Checked, unseen: str) -> dict[str, Any]:
    """What `charrun verify --json` prints."""
    return {
        "run": run.id,
        "runs_dir": str(run.runs_dir),
        "sound": not found.damage,
        "damaged": [
            {"file": str(each.file), "line": each.line, "what": each.what, "then": each.then} for each in found.damage
        ],
        "covered": sorted(map(str, found.covered)),
        "not_covered": sorted(map(str, found.uncovered)),
        "checkpoints_not_looked_at": unseen,
    }


def _place(path: Path, run: Run) -> str:
    return str(path.relative_to(run.runs_dir)) if path.is_relative_to(run.runs_dir) else str(path)
