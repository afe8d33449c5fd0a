"""The single verdicts of a cell's evaluation, prompt by prompt, as its stage left them beside its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.store.cells import CellView

ANSWERS = "answers.jsonl"
_FIELDS = {"model", "prompt", "in_character"}


@dataclass(frozen=True)
class Verdict:
    """What a model answered to a prompt, and whether that was in character; no text where the row has none."""

    in_character: bool
    answer: str


Verdicts = Mapping[str, Mapping[str, Verdict]]
"""By model, in the evaluation's order, and by prompt."""


def verdicts_of(cell: CellView) -> Verdicts:
    """The verdicts of the cell's first evaluation that has one for each prompt; none where there is no such one."""
    for stage in cell.stages:
        if stage.folder is None or "evaluation" not in stage.outputs:
            continue
        if rows := [row for row in _rows(stage.folder / ANSWERS) if row.keys() >= _FIELDS]:
            found: dict[str, dict[str, Verdict]] = {}
            for row in rows:
                if not row.get("condition"):
                    verdict = Verdict(bool(row["in_character"]), str(row.get("answer", "")))
                    found.setdefault(str(row["model"]), {})[str(row["prompt"])] = verdict
            return found
    return {}


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, none where it is not there or not whole."""
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return [row for row in rows if isinstance(row, dict)]
