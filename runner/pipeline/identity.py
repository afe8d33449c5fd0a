"""What a stage's outputs depend on, and nothing else: what its fingerprint is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import asking
from charrun.spec import Character, Scale
from charrun.store.canonical import canonical

if TYPE_CHECKING:
    from charrun.pipeline.stage_run import StageRun
    from charrun.stage import Row

FINGERPRINT_VERSION = 2


def describe(run: StageRun) -> dict[str, Any]:
    """All that a stage depends on but its consumed rows."""
    shared, cell, stage = run.cell.shared, run.cell, run.stage
    parts = _parts(cell.character)
    with asking(type(stage)):
        further = stage.further_inputs(StageContext(run))
        canonical(further)
    described: dict[str, Any] = {
        "fingerprint_version": FINGERPRINT_VERSION,
        "stage": run.item.uses,
        "cache_version": stage.cache_version,
        "options": dict(run.options),
        "seed": cell.seed,
        "templates": shared.prompts.sources_of(stage.templates),
        "character": {field: parts[field] for field in stage.character_fields},
        "models": {role: _model(run, role) for role in stage.roles},
        "further": further,
    }
    code = shared.registry.code.get(run.item.uses)
    return {**described, "code": code} if code else described


def with_inputs(run: StageRun, described: Mapping[str, Any], rows: Mapping[str, str]) -> dict[str, Any]:
    """The whole description.

    Args:
        run: The stage.
        described: What `describe` gave.
        rows: Digest of the rows of each kind by producer.
    """
    if run.stage.identity == "content":
        return {**described, "inputs": dict(rows)}
    if run.stage.identity == "lineage":
        return {**described, "inputs": {f"{kind} of {r.item.id}": r.fingerprint for kind, r in run.inputs()}}
    return dict(described)


@cache
def numbers(scale: Scale) -> dict[str, Any]:
    """What of a scale rows depend on: its numbers, not its name."""
    return {field: value for field, value in asdict(scale).items() if field != "name"}


def content(row: Row) -> Any:
    """What of a row counts as its content: a checkpoint's fingerprint, not the path that the engine gave it."""
    return row.get("fingerprint", row)


def _model(run: StageRun, role: str) -> dict[str, Any]:
    ref = run.cell.model(role)
    return {"model": run.cell.shared.namespace(ref.name), "chat": dict(ref.chat)}


@cache
def _parts(character: Character) -> dict[str, Any]:
    return {
        "name": character.name,
        "traits": [trait.trait for trait in character.traits],
        "questions": [list(trait.questions) for trait in character.traits],
    }
