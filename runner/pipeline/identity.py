"""What a stage's outputs depend on, and nothing else: what its fingerprint is made of.

`INCLUDED` and `EXCLUDED` name every field of a spec, of the command line and of the surroundings, with the reason; a
test holds them to the dataclasses, and docs/fingerprints.md is written from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from charrun import __version__
from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import asking
from charrun.plugin_loading import OWN
from charrun.spec import Character, Scale
from charrun.stage import IDENTITY
from charrun.store.canonical import canonical

if TYPE_CHECKING:
    from charrun.pipeline.stage_run import StageRun
    from charrun.stage import Row

FINGERPRINT_VERSION = 3

INCLUDED: Mapping[str, str] = {
    "Stage.name": "which stage it is, as `stage`",
    "Stage.cache_version": "raised when the same inputs would give other outputs",
    "Stage.options_schema": "its defaults, with the options",
    "Stage.roles": "the models of these roles",
    "Stage.measures": "roles and templates that it names are left out: the stage only measures by them",
    "Stage.character_fields": "these parts of the character",
    "Stage.templates": "the texts of these templates, and of those that they include",
    "Stage.identity": "how consumed rows enter",
    "Stage.consumes": "rows of these kinds",
    "Stage.optional": "rows of these kinds, where there are any",
    "Stage.further_inputs": "what else the stage says that it depends on, such as the content of files",
    "StageItem.uses": "the stage's name",
    "StageItem.options": "all of them with their defaults, but for those that are marked",
    "CellSpec.seed": "seeds samples, orders and adapters",
    "CellSpec.character": "the parts that the stage names",
    "Character.name": "where the stage names it",
    "Character.traits": "where the stage names them",
    "Trait.trait": "with the traits",
    "Trait.questions": "where the stage names them, as `questions`",
    "CellSpec.models": "the models of the stage's roles",
    "ModelEntry.roles": "those that the stage names",
    "ModelRef.name": "after the engine's name; of a local folder its path, with a digest of its files",
    "ModelRef.chat": "arguments of the chat template",
    "ModelRef.endpoint": "its address, model and parameters",
    "Endpoint.base_url": "before the model's name, in the engine's place",
    "Endpoint.model": "after the address",
    "Endpoint.parameters": "further fields of each request",
    "EngineChoice.uses": "before the name of each model: the same name elsewhere is another model",
    "Spec.templates": "their texts, where the stage uses them",
    "LocalPlugin.sha256": "the code of a stage that comes from a file beside the spec",
    "consumed rows": "by content, by the fingerprints of their producers, or not at all, as `Stage.identity` says",
}
"""What fingerprints hold, and how."""

EXCLUDED: Mapping[str, str] = {
    "options with x-charrun-identity: false": "they change how a stage works and not what it makes",
    "Spec.name": "two specs that ask for the same work share it",
    "Spec.path": "where a file lies changes nothing",
    "Spec.seeds": "each cell has one of them",
    "Spec.engine": "as its parts",
    "EngineChoice.options": "device and address: a model's name says which model answers, wherever it is served; for a "
    "server that has other models under these names take another `--runs-dir`",
    "Spec.characters": "each cell has one of them",
    "Spec.models": "each cell has one entry",
    "Spec.scales": "each cell has one of them",
    "CellSpec.scale": "rows are keyed by their own requests: a larger scale pays for the difference",
    "Scale.name": "a name changes nothing",
    "Scale.pairs": "in the ticket, which says for how many rows the work is done",
    "Scale.samples_per_prompt": "in the ticket",
    "Scale.reflections": "in the ticket",
    "Scale.interactions": "in the ticket",
    "Scale.turns": "in the ticket",
    "Stage.optional_variables": "for checks before a run; the templates count themselves",
    "Stage.runs_dry": "how a run is planned changes nothing",
    "Spec.budget_usd": "what may be spent does not change what is made",
    "Spec.stage_budgets": "what may be spent does not change what is made",
    "Spec.prices": "what something costs does not change what is made",
    "Spec.stages": "each stage has its own item",
    "StageItem.id": "a name changes nothing",
    "StageItem.needs": "resolved to the rows that are consumed",
    "StageItem.node": "where it is written changes nothing",
    "StageItem.folders": "where files lie changes nothing",
    "Spec.stand_ins": "put in for models and options before anything is described",
    "Spec.arms": "each cell has one of them",
    "CellSpec.arm": "its stages have their own items",
    "CellSpec.looked_for": "a stage that looks for it names it under `further_inputs`",
    "Arm.name": "a name changes nothing",
    "Arm.stages": "each stage has its own item",
    "Arm.character": "the cell has it",
    "Arm.description": "told, and nothing else",
    "Spec.exclude": "which cells there are does not change a cell",
    "Spec.plugins": "each stage has the digest of its own file",
    "LocalPlugin.path": "where a file lies changes nothing",
    "Spec.warnings": "told, and nothing else",
    "Spec.successors": "told, and nothing else",
    "CellSpec.name": "a name changes nothing",
    "ModelEntry.id": "a name changes nothing",
    "Character.id": "a name changes nothing; a stage that tells it, as `export` does, names it under `further_inputs`",
    "Character.licence": "no model sees it; a stage that tells it names it under `further_inputs`",
    "Character.source": "no model sees it; a stage that tells it names it under `further_inputs`",
    "Character.description": "no model sees it; a stage that tells it names it under `further_inputs`",
    "Stage.summary": "for lists",
    "Stage.produces": "its outputs",
    "Stage.instead": "for checks before a run; the option is in it, and so is what the stage says of further inputs",
    "Stage.trains": "for checks before a run",
    "Stage.scores": "for checks before a run",
    "Endpoint.api_key_env": "who pays changes nothing; the key itself is kept nowhere",
    "Endpoint.samples_per_request": "how a model is asked, not what",
    "Endpoint.concurrency": "how a model is asked, not what",
    "Endpoint.max_retries": "how a model is asked, not what",
    "Endpoint.timeout": "how a model is asked, not what",
    "Endpoint.continues": "what the server can do changes nothing",
    "Stage.awaits_all": "when it runs, not what it makes",
    "Stage.begins_early": "when it runs, not what it makes",
    "Stage.one_checkpoint": "when later stages run, not what they make",
    "code of charrun and of installed plugins": "an update must not pay for everything again: `cache_version` is "
    "raised where it makes something else; the ticket says who made the work, and `charrun plan` tells it",
    "versions of Python, torch, the SDK and other packages": "an update must not pay for everything again; the run's "
    "lock.json names them, and `--locked` refuses others",
    "tokenizer and chat template of a hosted model": "only the service could tell, and a finished run needs none; they "
    "are in the key of each response, and the lock names them",
    "number of rows": "more rows of the same work belong to the same folder",
    "checkpoint paths": "a checkpoint counts by what it was trained from, not by where it lies",
    "paths of templates": "their texts count",
    "--set": "one more layer of the spec, which counts as the rest does",
    "--character, --model, --scale, --arm, --after, --from, --until, --only": "what is left out changes nothing of "
    "the rest",
    "--force": "the same work once more",
    "--runs-dir": "another store, where nothing is found",
    "--jobs, --wait, --patience, --budget, --partial, --yes": "how a run is done, not what it makes",
    "--json, --plain, --verbose, --quiet": "how it is told",
    "--locked, --no-plugins, --trust": "whether it may run",
    "environment variables": "credentials, an address, and how charrun shows things",
}
"""What fingerprints leave out, each with the reason."""


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
        "options": identifying(run.options, stage.options_schema),
        "seed": cell.seed,
        "templates": shared.prompts.sources_of(name for name in stage.templates if name not in stage.measures),
        "character": {field: parts[field] for field in stage.character_fields},
        "models": {role: _model(run, role) for role in stage.roles if role not in stage.measures},
        "further": further,
    }
    code = shared.registry.code.get(run.item.uses)
    return {**described, "code": code} if code else described


def identifying(options: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change what a stage makes; 1 and 1.0 are one number."""
    return {name: _plain(value) for name, value in options.items() if is_identifying(name, schema)}


def is_identifying(option: str, schema: Mapping[str, Any]) -> bool:
    """Whether an option changes what a stage makes: all do that do not say otherwise."""
    said = schema.get("properties", {}).get(option)
    return not (isinstance(said, Mapping) and said.get(IDENTITY) is False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def with_inputs(run: StageRun, described: Mapping[str, Any], rows: Mapping[str, str]) -> dict[str, Any]:
    """The whole description.

    Args:
        run: The stage.
        described: What `describe` gave.
        rows: Digest of the rows of each input, by its name in `numbered`.
    """
    if run.stage.identity == "content":
        return {**described, "inputs": dict(rows)}
    if run.stage.identity == "lineage":
        return {**described, "inputs": {name: r.fingerprint for name, _, r in numbered(run)}}
    return dict(described)


def how_made(run: StageRun) -> dict[str, Any]:
    """What a ticket says of its work beside the outputs, for `charrun plan`; its fingerprint does not hold it."""
    return {"scale": numbers(run.cell.scale), "inputs": dict(run.consumed), "by": maker(run)}


def maker(run: StageRun) -> dict[str, str]:
    """Versions of charrun and, of an installed plugin's stage, of its distribution."""
    registry = run.cell.shared.registry
    owner = registry.origins.get(("stage", run.item.uses), OWN)
    installed = owner != OWN and run.item.uses not in registry.code
    return {"charrun": __version__, **({"plugin": owner} if installed else {})}


def numbered(run: StageRun) -> list[tuple[str, str, StageRun]]:
    """A stage's inputs: a name that holds no item's id, the kind, and the producer."""
    found = run.inputs()
    kinds = [kind for kind, _ in found]
    return [
        (kind if kinds.count(kind) == 1 else f"{kind} {kinds[:at].count(kind) + 1}", kind, producer)
        for at, (kind, producer) in enumerate(found)
    ]


@cache
def numbers(scale: Scale) -> dict[str, Any]:
    """What of a scale rows depend on: its numbers, not its name."""
    return {field: value for field, value in asdict(scale).items() if field != "name"}


def content(row: Row) -> Any:
    """What of a row counts as its content: a checkpoint's fingerprint, not the path that the engine gave it."""
    return row.get("fingerprint", row)


def _model(run: StageRun, role: str) -> dict[str, Any]:
    ref = run.cell.model(role)
    described = {"model": run.cell.shared.namespace(ref.name), "chat": dict(ref.chat)}
    return described if ref.endpoint is None else {**described, "parameters": dict(ref.endpoint.parameters)}


@cache
def _parts(character: Character) -> dict[str, Any]:
    return {
        "name": character.name,
        "traits": [trait.trait for trait in character.traits],
        "questions": [list(trait.questions) for trait in character.traits],
    }
