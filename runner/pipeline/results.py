"""What a run has made, for summaries and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrun.errors import StageFailed
from charrun.spec.prices import Cost
from charrun.usage import Usage

MEASUREMENTS = "measurements"
"""The kind of rows that are tables of rates: `name`, `title`, `labels`, `rows` with these labels and `k`, `n`, `low`,
`high`; and as far as there are such `differences`, `contamination`, `notes` and what is known of the scorer."""


@dataclass(frozen=True)
class StageResult:
    """One finished stage of one cell.

    Attributes:
        id: The stage item's id.
        seconds: Wall time of the work, of the run that did it.
        rows: Rows by published kind.
        usage: Tokens and requests of the work.
        cached: Whether this run found it done.
    """

    id: str
    seconds: float
    rows: Mapping[str, int]
    usage: Usage
    cached: bool


@dataclass(frozen=True)
class CellResult:
    """One finished cell: its stages, and the rows of the kinds that a summary shows.

    Attributes:
        name: Slug of character, models and scale.
        stages: In order of execution.
        rows: Rows of the last producer of each kind that no more than 16 rows were published of.
        every: The rows of all producers of each such kind, in their order.
    """

    name: str
    stages: tuple[StageResult, ...]
    rows: Mapping[str, list[dict[str, Any]]]
    every: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def measurements(self) -> Sequence[dict[str, Any]]:
        """Rows of the kind `measurements` of all producers."""
        return self.every.get(MEASUREMENTS, [])


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: Its folder.
        cells: Its cells, as far as they are finished.
        engine: Name of the engine.
        stand_ins: Named model to the model that stands in for it.
        cost: What it has cost, whichever process paid.
    """

    folder: Path
    cells: tuple[CellResult, ...]
    engine: str
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)


class CellsFailed(StageFailed):
    """Some of several cells failed; `result` has those that are finished."""

    def __init__(self, message: str, hint: str, result: RunResult) -> None:
        super().__init__(message, hint)
        self.result = result
