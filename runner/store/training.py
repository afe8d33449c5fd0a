"""The progress of a stage's trainings: `training.jsonl` for steps and checkpoints, `reference.jsonl` for log-probs.

Contract:
1. A step's metrics are stored before the checkpoint that holds it.
2. A checkpoint's record names the next step.
3. A training goes on from the newest checkpoint whose steps are all stored.
4. Reference log-probs are on the disk before any step is submitted.
5. A step that was done twice counts once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.faults import reached
from charrun.store.lines import AppendFile, Line, read_lines

TRAINING, REFERENCE = "training.jsonl", "reference.jsonl"


@dataclass(frozen=True)
class Saved:
    """A checkpoint of a training.

    Attributes:
        next_step: The step that comes next, from 0.
        state: Its path at the engine, with optimizer state.
        expires: When it is gone, in seconds since 1970; None of a final one.
        sampler: Path of the weights to sample from; of a final one alone.
        base_model: Name of the model that the adapter belongs to.
    """

    next_step: int
    state: str
    expires: float | None
    sampler: str = ""
    base_model: str = ""

    @property
    def is_final(self) -> bool:
        """Whether it ends the training."""
        return bool(self.sampler)


class TrainingLog:
    """What is recorded of the trainings of one stage, by the training's name; its folder is locked.

    Attributes:
        damaged: Lines that can't be used, such as `training.jsonl:7`.
    """

    def __init__(self, folder: Path) -> None:
        self.damaged: list[str] = []
        self._steps: dict[str, dict[int, dict[str, float]]] = {}
        self._saved: dict[str, list[Saved]] = {}
        self._file = AppendFile(folder / TRAINING)
        numbers: list[int] = []
        for line in read_lines(folder / TRAINING, numbers):
            self._keep(line.value)
        self.damaged += [f"{TRAINING}:{number}" for number in numbers]

    def step(self, name: str, step: int, metrics: Mapping[str, float]) -> None:
        """Store that a step is done, with what its loss reports."""
        self._add({"training": name, "step": step, "metrics": dict(metrics), "saved": None})

    def saved(self, name: str, saved: Saved) -> None:
        """Store that the engine holds a checkpoint; durable when this returns."""
        self._add({"training": name, "step": None, "metrics": None, "saved": {**vars(saved)}}, durable=True)
        reached("save.recorded")

    def curve(self, name: str) -> list[dict[str, float]]:
        """The metrics of all steps from the first on, in order, up to the first that is missing."""
        steps = self._steps.get(name, {})
        return [steps[step] for step in range(next(n for n in range(len(steps) + 1) if n not in steps))]

    def resumable(self, name: str) -> list[Saved]:
        """Checkpoints from which the training can go on, the best first."""
        complete = len(self.curve(name))
        newest_first = self._saved.get(name, [])[::-1]
        found = [each for each in newest_first if each.next_step <= complete]
        return sorted(found, key=lambda each: (-each.next_step, not each.is_final))

    def intermediates(self) -> list[Saved]:
        """Every checkpoint that only served to go on from, oldest first."""
        return [each for found in self._saved.values() for each in found if not each.is_final]

    def close(self) -> None:
        """Make it durable."""
        self._file.close()

    def _add(self, value: dict[str, Any], *, durable: bool = False) -> None:
        self._file.append(value, durable=durable)
        self._keep(value)

    def _keep(self, value: dict[str, Any]) -> None:
        name = value["training"]
        if value["saved"] is not None:
            self._saved.setdefault(name, []).append(Saved(**value["saved"]))
        else:
            self._steps.setdefault(name, {})[value["step"]] = value["metrics"]


def recorded(path: Path) -> list[tuple[str, Saved]]:
    """Every checkpoint that a file of trainings records, with the training's name, oldest first."""
    values = (line.value for line in read_lines(path))
    return [(value["training"], Saved(**value["saved"])) for value in values if value.get("saved")]


class ReferenceLog:
    """Log-probs of trained rows under fresh weights, by the row's key; they stay on the disk, and their sums in memory.

    Attributes:
        damaged: Lines that can't be used.
    """

    def __init__(self, folder: Path) -> None:
        self._sums: dict[str, float] = {}
        self._lines: dict[str, tuple[int, int]] = {}
        self._file = AppendFile(folder / REFERENCE)
        numbers: list[int] = []
        for line in read_lines(folder / REFERENCE, numbers):
            self._keep(line)
        self.damaged = [f"{REFERENCE}:{number}" for number in numbers]

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def add(self, values: Iterable[tuple[str, Sequence[float]]]) -> None:
        """Store log-probs by key."""
        for key, logprobs in values:
            self._keep(self._file.append({"row": key, "logprobs": list(logprobs)}))

    def sync(self) -> None:
        """Make it durable now."""
        self._file.sync()

    def sum(self, key: str) -> float:
        """Sum of a row's log-probs, in nats, rounded once."""
        return self._sums[key]

    def values(self, key: str) -> Sequence[float]:
        """A row's log-probs in nats, one a trained token."""
        return array("d", self._file.read(*self._lines[key])["logprobs"])

    def close(self) -> None:
        """Make it durable and close it."""
        self._file.close()

    def _keep(self, line: Line) -> None:
        key = line.value["row"]
        self._lines[key] = line.offset, line.length
        self._sums[key] = math.fsum(line.value["logprobs"])
