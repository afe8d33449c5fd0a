"""Every optimiser step of a run as a line of `metrics.jsonl`, for plots."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from charrun import EnvironmentProblem, hookimpl

if TYPE_CHECKING:
    from charrun import events


class _File:
    """The open metrics file of the run that goes on."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._requests: Counter[tuple[str, str]] = Counter()

    def open(self, folder: Path) -> None:
        """Begin, or continue, the file of a run."""
        self.close()
        self._requests.clear()
        try:
            self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {folder}: {error.strerror or error}") from error

    def count(self, cell: str, stage: str) -> None:
        """One more response of the engine."""
        self._requests[cell, stage] += 1

    def responses(self, cell: str, stage: str) -> int:
        """Responses of a stage in this run."""
        return self._requests[cell, stage]

    def write(self, values: Mapping[str, object]) -> None:
        """Append one line."""
        if self._file:
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def close(self) -> None:
        """End."""
        if self._file:
            self._file.close()
            self._file = None


_metrics = _File()


@hookimpl
def charrun_run_started(event: events.RunStarted) -> None:
    """Open the run's file."""
    _metrics.open(event.folder)


@hookimpl
def charrun_row_stored(event: events.RowStored) -> None:
    """Count the engine's responses."""
    _metrics.count(event.cell, event.stage)


@hookimpl
def charrun_step_done(event: events.StepDone) -> None:
    """The step's metrics."""
    _metrics.write({**event.metrics, "cell": event.cell, "stage": event.stage, "step": event.step})


@hookimpl
def charrun_stage_finished(event: events.StageFinished) -> None:
    """What the stage took, unless it was done already."""
    if not event.cached:
        place = {"cell": event.cell, "stage": event.stage}
        responses = _metrics.responses(event.cell, event.stage)
        _metrics.write({**event.usage, **place, "seconds": event.seconds, "responses": responses})


@hookimpl
def charrun_run_finished(event: events.RunFinished) -> None:
    """Close the file."""
    _metrics.close()


@hookimpl
def charrun_run_failed(event: events.RunFailed) -> None:
    """Close the file."""
    _metrics.close()
