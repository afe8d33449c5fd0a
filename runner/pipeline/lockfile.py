"""What a run is made with, for `lock.json` in its folder and `<spec>.lock` beside its spec.

Contract:
1. A lock holds no secret, no time, and no path of a machine: a local model counts by its folder's name and content.
2. The same spec, models and packages give the same text.
3. Of local models it is read off their files; no engine is started for that.
4. A hosted engine is asked for what costs nothing: what it serves, and tokenizers.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.pipeline.defects import asking
from charrun.pipeline.lock_models import local_facts, served_facts
from charrun.plugin_loading import OWN
from charrun.secrets import hide, shown_address
from charrun.service.models import local_folder
from charrun.spec import ModelRef, shipped_schema
from charrun.spec.facts import price_book_date
from charrun.store.canonical import canonical, digest
from charrun.store.files import make_folder, read_json
from charrun.store.run import LOCK

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared
    from charrun.service.service import Service

LOCK_VERSION = 1
PACKAGES = ("charrun", "tinker", "torch", "transformers", "peft", "tokenizers", "numpy")
SCHEMAS = ("spec", "character", "scale")
_IDENTITY = ("name", "identity", "chat")
"""What of a model in its role is known without asking anybody; the rest are facts."""

Lock = dict[str, Any]


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def lock_entries(shared: Shared, earlier: Mapping[str, Any] | None = None, *, strict: bool = False) -> Lock:
    """All that needs no engine. What an earlier lock says of the same hosted model is kept.

    Args:
        shared: The run's surroundings; nothing is opened and nothing written.
        earlier: A lock of the same spec; by default the one in the run's folder.
        strict: Whether a local model whose files are not whole is an error; a run tells of it where it needs the model.

    Raises:
        EnvironmentProblem: A local model's files are not whole, where that is an error.
    """
    spec = shared.spec
    plain = _portable(spec.to_dict())
    local = local_facts(
        {ref.name for entry in spec.models for ref in entry.roles.values() if is_local(shared, ref)}, strict
    )
    lock = {
        "lock_version": LOCK_VERSION,
        "spec": {
            "sha256": digest(_clean(plain)),
            **{part: plain[part] for part in ("name", "budget", "exclude", "stand_ins")},
        },
        "seeds": list(spec.seeds),
        "engine": plain["engine"],
        "stand_ins": {_told(name): _told(model) for name, model in shared.stand_ins.items()},
        "characters": {character["id"]: digest(character) for character in plain["characters"]},
        "scales": {scale.name: asdict(scale) for scale in spec.scales},
        "models": {
            entry.id: {role: {**_known(shared, ref), **local.get(ref.name, {})} for role, ref in entry.roles.items()}
            for entry in spec.models
        },
        "stages": _stages(shared, plain["stages"]),
        **({"arms": plain["arms"]} if "arms" in plain else {}),
        "templates": _templates(shared),
        "plugins": {plugin["file"]: plugin["sha256"] for plugin in plain["plugins"]},
        "schemas": {name: digest(shipped_schema(name)) for name in SCHEMAS},
        "versions": versions() | _distributions(shared),
        "price_book": {"date": price_book_date()},
    }
    if earlier is None:
        earlier = read_json(shared.folder.folder / LOCK) or {}
    return _with_facts(_clean(lock), earlier)


async def complete_lock(shared: Shared, service: Service) -> Lock:
    """The whole lock: hosted models are asked for by a session that is open, in requests that cost nothing.

    Raises:
        EnvironmentProblem: A hosted model's tokenizer cannot be had.
    """
    lock = lock_entries(shared)
    for entry in shared.spec.models:
        for role, ref in entry.roles.items():
            if not is_local(shared, ref):
                lock["models"][entry.id][role] |= await served_facts(service, ref)
    return _clean(lock)


async def whole_lock(shared: Shared) -> Lock:
    """The lock of a spec that is not being run; an engine is opened only where a model is hosted.

    Raises:
        EnvironmentProblem: A model's folder is not whole, or the engine can't be reached or does not serve a model.
    """
    lock = lock_entries(shared, strict=True)
    if not needs_engine(shared):
        return lock
    make_folder(shared.folder.folder)
    status = "errored"
    try:
        lock = await complete_lock(shared, await shared.service())
        status = "success"
        return lock
    finally:
        await shared.close(status)


def needs_engine(shared: Shared) -> bool:
    """Whether something of the lock has to be asked of the engine."""
    return any(not is_local(shared, ref) for entry in shared.spec.models for ref in entry.roles.values())


def is_local(shared: Shared, ref: ModelRef) -> bool:
    """Whether a model's files on this machine, or its address, say all that there is to know about it."""
    return ref.endpoint is not None or (not shared.engine.hosted and local_folder(ref.name) is not None)


def lock_text(lock: Mapping[str, Any]) -> str:
    """The text of a lock file."""
    return json.dumps(lock, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _clean(lock: Lock) -> Lock:
    """As it reads back from a file: plain data, without secrets."""
    cleaned: Lock = json.loads(hide(canonical(lock)))
    return cleaned


def _known(shared: Shared, ref: ModelRef) -> dict[str, Any]:
    identity = shared.namespace(ref.name).replace(ref.name, _told(ref.name))
    known = {"name": _told(ref.name), "identity": identity, "chat": dict(ref.chat)}
    return known if ref.endpoint is None else {**known, "parameters": dict(ref.endpoint.parameters)}


def _with_facts(lock: Lock, earlier: Mapping[str, Any]) -> Lock:
    """What an earlier lock says of the same models, where this one says nothing."""
    models = earlier.get("models")
    for id, roles in lock["models"].items():
        entry = models.get(id) if isinstance(models, Mapping) else None
        for role, known in roles.items():
            old = entry.get(role) if isinstance(entry, Mapping) else None
            if isinstance(old, Mapping) and all(old.get(key) == known[key] for key in _IDENTITY):
                roles[role] = {**old, **known}
    return lock


def _stages(shared: Shared, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each item with its options, and hashes of its stage's schema and of whatever else it says that it depends on."""
    found = []
    further = _further(shared)
    for item in items:
        stage = shared.registry.stages[item["uses"]]
        entry = {
            **item,
            "cache_version": stage.cache_version,
            "options_schema_sha256": digest(stage.options_schema),
        }
        if further[item["id"]]:
            entry["inputs_sha256"] = digest(further[item["id"]])
        found.append(entry)
    return found


def _further(shared: Shared) -> dict[str, list[Any]]:
    """What the stages depend on beside the spec, such as files of prompts: of one cell for each character and arm."""
    from charrun.pipeline.cell import Cell
    from charrun.pipeline.context import StageContext
    from charrun.pipeline.selection import Selection

    found: dict[str, list[Any]] = {item.id: [] for item in shared.spec.stages}
    for spec in {(spec.looked_for.id, spec.arm.name): spec for spec in shared.spec.cells}.values():
        for run in Cell(shared, spec, Selection()).stages:
            with asking(type(run.stage)):
                inputs = run.stage.further_inputs(StageContext(run))
            if inputs is not None:
                found.setdefault(run.item.id, []).append(inputs)
    return found


def _templates(shared: Shared) -> dict[str, str]:
    names = {name for item in shared.spec.stages for name in shared.registry.stages[item.uses].templates}
    return {name: digest(text) for name, text in shared.prompts.sources_of(names | set(shared.spec.templates)).items()}


def _distributions(shared: Shared) -> dict[str, str]:
    """Versions of the installed plugins that the spec uses something of."""
    spec = shared.spec
    used = [
        *(("stage", item.uses) for item in (*spec.stages, *(item for arm in spec.arms for item in arm.stages))),
        ("engine", spec.engine.uses),
        *(("character", character.id) for character in spec.characters),
        *(("scale", scale.name) for scale in spec.scales),
    ]
    owners = {shared.registry.origins.get(key, OWN) for key in used}
    files = {plugin.owner for plugin in shared.registry.plugins if plugin.code}
    named = (owner.partition(" ") for owner in owners - files - {OWN})
    return {name: found or "unknown" for name, _, found in named}


def _portable(plain: dict[str, Any]) -> dict[str, Any]:
    """A resolved spec's plain data: a local model is called by its folder's name, an address carries no key."""
    models = [
        {key: {**ref, "name": _told(ref["name"])} if isinstance(ref, dict) else ref for key, ref in entry.items()}
        for entry in plain["models"]
    ]
    stand_ins = plain["stand_ins"]
    if stand_ins:
        stand_ins = {**stand_ins, "models": {_told(name): _told(to) for name, to in stand_ins["models"].items()}}
    options = {key: _address(value) for key, value in plain["engine"]["with"].items()}
    return {**plain, "engine": {**plain["engine"], "with": options}, "models": models, "stand_ins": stand_ins}


def _address(option: Any) -> Any:
    return shown_address(option) if isinstance(option, str) and "://" in option else option


def _told(model: str) -> str:
    return Path(model).name if Path(model).is_absolute() else model
