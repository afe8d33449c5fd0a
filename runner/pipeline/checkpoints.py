"""The checkpoints of a run, as its folders tell of them: no engine and no spec file is needed to find them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.service.engine import Engine
from charrun.store.files import read_json
from charrun.store.replay import mapping_of, text_of
from charrun.store.runs import Run

CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class RunCheckpoint:
    """One published checkpoint.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item that published it.
        base_model: Name of the model that the adapter belongs to.
        sampler: Path of the weights to sample from.
        models: The stage's models by role, as its fingerprint holds them: `model` (identity) and `chat`.
    """

    cell: str
    stage: str
    base_model: str
    sampler: str
    models: Mapping[str, Any]


def checkpoints_of(run: Run) -> list[RunCheckpoint]:
    """Every checkpoint that the stages of a run have published, cell by cell in stage order.

    Raises:
        EnvironmentProblem: A published file is gone or damaged.
    """
    found = []
    for cell in run.cells:
        for stage in cell.stages:
            if CHECKPOINT not in stage.outputs or stage.folder is None:
                continue
            described = read_json(stage.folder / "stage.json")
            models = mapping_of(described, "models") if isinstance(described, dict) else {}
            for row in stage.outputs[CHECKPOINT].read() or [None]:
                try:
                    base_model, sampler = str(row["base_model"]), str(row["sampler"])
                except (TypeError, KeyError) as error:
                    raise EnvironmentProblem(
                        f"{stage.outputs[CHECKPOINT].file} is missing or damaged",
                        "run the spec again: it is made again",
                    ) from error
                found.append(RunCheckpoint(cell.name, stage.id, base_model, sampler, models))
    return found


def engine_options(run: Run) -> dict[str, Any]:
    """The options of the engine that made a run, as its frozen spec has them."""
    return dict(mapping_of(mapping_of(run.spec, "engine"), "with"))


def chat_options(checkpoint: RunCheckpoint, run: Run, engine: Engine) -> dict[str, Any]:
    """The chat template's options that a checkpoint was trained under.

    Raises:
        EnvironmentProblem: Neither the stage's folder nor the frozen spec says.
    """
    identity = engine.namespace(checkpoint.base_model)
    for role in checkpoint.models.values():
        if text_of(role, "model") == identity or text_of(role, "model").startswith(f"{identity}@"):
            return dict(mapping_of(role, "chat"))
    for ref in _models(run):
        if ref.get("name") == checkpoint.base_model:
            return dict(mapping_of(ref, "chat"))
    raise EnvironmentProblem(
        f"{run.id} does not say how conversations of '{checkpoint.base_model}' are rendered",
        "its folders are damaged: run the spec again",
    )


def _models(run: Run) -> Iterator[Mapping[str, Any]]:
    """The models that the frozen spec names, whichever their roles."""
    entries = run.spec.get("models")
    for entry in entries if isinstance(entries, list) else ():
        for roles in (entry, entry.get("roles", {})) if isinstance(entry, dict) else ():
            yield from (ref for ref in roles.values() if isinstance(ref, dict) and "name" in ref)
