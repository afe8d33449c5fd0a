"""Checkpoints that a spec names: the path of sampler weights, or what a stage of another run has published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import CharrunError, StageFailed
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.store.canonical import digest
from charrun.store.runs import find_run

if TYPE_CHECKING:
    from charrun.stage import Row
    from charrun.store.cells import CellView, StageView

PATH = "tinker://"
_STATE, _SAMPLER = "/weights/", "/sampler_weights/"
_FORMS = "write tinker://.../sampler_weights/..., or RUN/CELL/STAGE as `charrun status` names them"


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint that is not the cell's own.

    Attributes:
        row: As a training publishes it; of a path that nobody knows more about, `base_model` is empty.
        before: The stages of its cell up to the one that published it; none for a path.
    """

    row: Row
    before: tuple[StageView, ...] = ()

    def rows(self, kind: str) -> list[list[Row]]:
        """Rows of a kind from each of those stages, as far as they can be read."""
        return [stage.outputs[kind].read() or [] for stage in self.before if kind in stage.outputs]


class NamedCheckpoints:
    """Finds them once for a run; no engine is started for that.

    Args:
        runs_dir: Where runs are kept.
        held: Which paths the engine still holds, as far as it can tell.
    """

    def __init__(self, runs_dir: Path, held: Callable[[Sequence[str]], Mapping[str, bool]]) -> None:
        self._runs_dir = runs_dir
        self._held = held
        self._found: dict[str, NamedCheckpoint] = {}

    def find(self, written: str) -> NamedCheckpoint:
        """The checkpoint.

        Raises:
            StageFailed: There is none, or the engine is known not to hold it any more.
        """
        if written not in self._found:
            found = _at_path(written) if written.startswith(PATH) else self._of_run(written)
            path = str(found.row["sampler"])
            if self._held([path]).get(path) is False:
                raise StageFailed(
                    f"the engine does not hold the checkpoint {written}"
                    + ("" if written == path else f", which was {path}"),
                    "it has expired, was deleted, or belongs to another engine: name one that is there",
                )
            self._found[written] = found
        return self._found[written]

    def _of_run(self, written: str) -> NamedCheckpoint:
        parts = written.rsplit("/", 2)
        if len(parts) < 3 or not all(parts):
            raise StageFailed(f"'{written}' names no checkpoint", _FORMS)
        text, cell_name, stage_id = parts
        try:
            run = find_run(self._runs_dir, text)
        except CharrunError as error:
            raise StageFailed(f"checkpoint {written}: {error.message}", error.hint) from error
        cell = next((each for each in run.cells if each.name == cell_name), None)
        if cell is None:
            names = ", ".join(each.name for each in run.cells)
            raise StageFailed(f"checkpoint {written}: {run.id} has no cell '{cell_name}'", f"its cells are {names}")
        return _of_stage(cell, stage_id, written)


def _at_path(path: str) -> NamedCheckpoint:
    if _SAMPLER not in path:
        advice = f"name {path.replace(_STATE, _SAMPLER)}" if _STATE in path else _FORMS
        raise StageFailed(f"{path} is no path of sampler weights", advice)
    row: dict[str, Any] = {"stage": "", "base_model": "", "sampler": path, "fingerprint": digest({CHECKPOINT: path})}
    return NamedCheckpoint(row)


def _of_stage(cell: CellView, id: str, written: str) -> NamedCheckpoint:
    ids = [stage.id for stage in cell.stages]
    training = [stage.id for stage in cell.stages if CHECKPOINT in stage.outputs]
    if id not in training:
        what = "has made no checkpoint" if id in ids else "is no stage of it"
        raise StageFailed(
            f"checkpoint {written}: '{id}' {what}", f"checkpoints of this cell: {', '.join(training) or 'none yet'}"
        )
    stage = cell.stages[ids.index(id)]
    rows = stage.outputs[CHECKPOINT].read()
    if not rows or not {"sampler", "base_model", "fingerprint"} <= set(rows[-1]):
        file = stage.outputs[CHECKPOINT].file
        raise StageFailed(f"checkpoint {written}: {file} is missing or damaged", "run its spec again: it is made again")
    return NamedCheckpoint(dict(rows[-1]), cell.stages[: ids.index(id) + 1])
