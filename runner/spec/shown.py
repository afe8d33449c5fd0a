"""A resolved spec as a person would write it in one file, and where each of its values comes from."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from charrun.spec.document import Document, KeyPath, Node, Part
from charrun.spec.layers import SpecDocument
from charrun.spec.library import is_path
from charrun.spec.model import Arm, Spec
from charrun.spec.parts import StageItem
from charrun.spec.places import relative
from charrun.spec.presets import named_preset
from charrun.spec.roles import is_folder_name

DEFAULT = "default"
_ORDER = (
    "version", "name", "seed", "engine", "plugins", "characters", "models", "scales", "arms", "exclude", "budget",
    "stages", "stand_ins", "templates",
)  # fmt: skip
_SHORT = ("uses", "name")


def as_written(spec: Spec, read: SpecDocument) -> dict[str, Any]:
    """The spec without layers and variables, with defaults filled in; read from the same folder, it is the same spec.

    Characters and scales stay names where they are names; paths are relative to the spec's folder.
    """
    written = read.document.data
    data = {**written, "seed": written.get("seed", 0), "engine": written.get("engine", "auto")}
    for key in ("characters", "scales"):
        data[key] = [
            _file(read, (key, i), item) if isinstance(item, str) and is_path(item) else item
            for i, item in enumerate(written[key])
        ]
    data["models"] = [_entry(read, ("models", i), entry.id) for i, entry in enumerate(spec.models)]
    data["stages"] = [_stage(item) for item in spec.stages]
    if "arms" in written:
        data["arms"] = [_arm(arm) for arm in spec.arms]
    if "stand_ins" in written:
        data["stand_ins"] = {**written["stand_ins"], "models": _stand_ins(read)}
    if "templates" in written:
        data["templates"] = {
            name: _file(read, ("templates", name), file) for name, file in written["templates"].items()
        }
    if "plugins" in written:
        data["plugins"] = [_file(read, ("plugins", i), file) for i, file in enumerate(written["plugins"])]
    return {key: data[key] for key in _ORDER if key in data}


def origins(spec: Spec, read: SpecDocument) -> Callable[[KeyPath], str]:
    """Tells where values of `as_written` come from: `base.yaml:12`, `--set #1`, `preset paper`, `default`."""
    preset, name = named_preset(read), read.document.data.get("preset")

    def told(path: KeyPath) -> str:
        found = _written(read.document, path)
        if found != DEFAULT or path[0] != "stages" or len(path) < 4:
            return found
        value: Any = preset.get(spec.stages[int(path[1])].uses, {})
        for step in path[3:]:
            if isinstance(value, list):
                break
            if step not in value:
                return found
            value = value[step]
        return f"preset {name}"

    return told


def _written(document: Document, path: KeyPath) -> str:
    """Where a value that the spec itself has is written; `default` where it has none."""
    node = document.root
    for step in path:
        value = node.value
        if isinstance(value, dict) and step in value:
            node = value[step][1]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            node = value[step]
        elif not (isinstance(value, str) and step in _SHORT):
            return DEFAULT
    if node.via:
        name, declared = node.via
        return f"vars.{name} ({_place(declared)})"
    return _place(node)


def _place(node: Node) -> str:
    return f"{node.source.name}:{node.mark.line}" if node.source.path else node.source.name


def _stage(item: StageItem) -> str | dict[str, Any]:
    parts: dict[str, Any] = {"uses": item.uses}
    if item.id != item.uses:
        parts["id"] = item.id
    if item.options:
        parts["with"] = dict(item.options)
    if item.needs:
        parts["needs"] = list(item.needs)
    return parts if len(parts) > 1 else item.uses


def _arm(arm: Arm) -> dict[str, Any]:
    parts: dict[str, Any] = {"name": arm.name}
    if arm.description:
        parts["description"] = arm.description
    if arm.character:
        parts["character"] = arm.character.to_dict()
    return {**parts, "stages": [_stage(item) for item in arm.stages]}


def _entry(read: SpecDocument, path: KeyPath, id: str) -> dict[str, Any]:
    roles: dict[str, Any] = {"id": id}
    for role, value in read.document.at(path).items():
        at = (*path, role)
        if isinstance(value, dict):
            roles[role] = {**value, "name": _model(read, (*at, "name"), value["name"])}
        elif role != "id":
            roles[role] = _model(read, at, value)
    return roles


def _stand_ins(read: SpecDocument) -> dict[str, str]:
    written = read.document.at(("stand_ins", "models"))
    found = {}
    for name, model in written.items():
        path = ("stand_ins", "models", name)
        key = _file(read, path, name, "key") if is_folder_name(name) else name
        found[key] = _model(read, path, model)
    return found


def _model(read: SpecDocument, path: KeyPath, name: str) -> str:
    return _file(read, path, name) if is_folder_name(name) else name


def _file(read: SpecDocument, path: KeyPath, written: str, on: Part = "value") -> str:
    """A path as the spec's own file would write it."""
    source = read.document.node(path, on).source
    if source.path == read.path or os.path.isabs(written):
        return written
    found = os.path.relpath(relative(source, written)[0], read.path.absolute().parent)
    return found if found.startswith("..") else f"./{found}"
