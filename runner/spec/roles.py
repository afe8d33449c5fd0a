"""The spec's models: entries with ids, roles with models that can play them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from typing import Any

from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.elsewhere import endpoint_of
from charrun.spec.facts import retired_models, thinks
from charrun.spec.parts import ModelEntry, ModelRef, StandIns
from charrun.spec.prices import price_book
from charrun.spec.successors import entry_ids, taking
from charrun.spec.words import nearest, shown, suggest

_ID = "id"
_ROLES = ("teacher", "student", "scorer", "judge", "writer")
_OF_FOLDERS = "name the folder that holds a model's config.json, weights and tokenizer"


def resolve_models(draft: Draft) -> tuple[ModelEntry, ...]:
    """The spec's entries of models, as far as they are sound, with ids that differ."""
    entries: list[tuple[KeyPath, ModelEntry]] = []
    seen: set[str] = set()
    retired: set[str] = set()
    for i, written in enumerate(draft.items("models")):
        path = ("models", i)
        if not draft.sound(path):
            continue
        roles = {role: _model(draft, (*path, role), value) for role, value in written.items() if role != _ID}
        _check_retired(draft, path, roles, retired)
        _check_roles(draft, path, roles)
        _check_names(draft, path, roles)
        canonical = json.dumps({role: ref.to_dict() for role, ref in roles.items()}, sort_keys=True)
        if canonical in seen:
            draft.add("SPEC031", "the same models are listed twice", path, "remove one of them")
            continue
        seen.add(canonical)
        entries.append((path, ModelEntry(roles, written.get(_ID, ""))))
    return _with_ids(draft, entries)


def _with_ids(draft: Draft, entries: list[tuple[KeyPath, ModelEntry]]) -> tuple[ModelEntry, ...]:
    """The entries, each with the id it has or the slug of its student, with the teacher's where that is not enough."""
    ids = entry_ids([(entry.id, entry.student.name, entry.teacher.name) for _, entry in entries])
    found: dict[str, KeyPath] = {}
    result = []
    for id, (path, entry) in zip(ids, entries, strict=True):
        if id in found:
            line = draft.document.mark(found[id]).line
            at = (*path, _ID) if entry.id else path
            hint = f"the first is in line {line}; give each an id of its own: {{id: {id[:61]}-2, ...}}"
            draft.add("SPEC046", f"two entries of models are called {id!r}", at, hint)
        found.setdefault(id, path)
        result.append(ModelEntry(entry.roles, id))
    return tuple(result)


def _model(draft: Draft, path: KeyPath, value: Any) -> ModelRef:
    if isinstance(value, str):
        return ModelRef(_model_name(draft, path, value))
    if "endpoint" in value:
        return ModelRef(value["name"], value.get("chat", {}), endpoint_of(value))
    name = _model_name(draft, (*path, "name"), value["name"])
    return ModelRef(name, value.get("chat", {}))


def _model_name(draft: Draft, path: KeyPath, name: str) -> str:
    """The name, a local model folder as its absolute path, which is checked to hold a model."""
    if not is_folder_name(name):
        return name
    folder, told = draft.relative(name, path)
    if os.path.isfile(folder):
        draft.add("SPEC034", f"a model is a folder, and {shown(told)} is a file", path, _OF_FOLDERS)
    elif not os.path.isdir(folder):
        draft.add("SPEC034", f"no such model folder: {shown(told)}", path, draft.paths_hint(name, path))
    elif not os.path.isfile(folder / "config.json"):
        draft.add("SPEC034", f"no model in {shown(told)}: it holds no config.json", path, _OF_FOLDERS)
    return str(folder)


def is_folder_name(name: str) -> bool:
    """Whether a model's name is the path of a folder."""
    return name.startswith(("./", "../", "/", "~"))


def _check_retired(draft: Draft, path: KeyPath, roles: dict[str, ModelRef], told: set[str]) -> None:
    """Warn of models that the hosted service no longer lists, of each once, with what takes its successor."""
    for role, ref in roles.items():
        retired = retired_models().get(ref.name)
        if retired and price_book().is_served(ref.name):  # a list that was fetched since has it again
            continue
        if retired and ref.endpoint is None and ref.name not in told:
            told.add(ref.name)
            message = f"Tinker retired {ref.name} on {retired.date}"
            hint = f"its successor is {retired.successor}"
            if sets := taking(draft, ref.name):
                hint += ", which the same options take" if sets in draft.successors else f": {sets}"
                draft.successors += [] if sets in draft.successors else [sets]
            draft.warn("SPEC055", message, _name_path(draft, (*path, role)), hint)


def _check_names(draft: Draft, path: KeyPath, roles: Collection[str]) -> None:
    """Warn of a role that nobody asks for, if it looks like one of those that stages do."""
    for role in roles:
        if role not in _ROLES and (near := nearest(role, _ROLES)):
            message = f"no stage that ships with charrun asks for a model in the role {role!r}"
            draft.warn("SPEC056", message, (*path, role), f"did you mean {near!r}?", on="key")


def _check_roles(draft: Draft, path: KeyPath, roles: dict[str, ModelRef]) -> None:
    """What the models' names tell: students that think, and teachers that are their own students."""
    student = roles["student"]
    at = _name_path(draft, (*path, "student"))
    kind = thinks(student.name) if draft.sound((*path, "student")) else "never"
    if kind == "always":
        message = f"{shown(student.name)} always thinks before it answers, and a character would hide in its thoughts"
        draft.add("SPEC053", message, at, "take a student that does not think")
    elif kind == "switch" and student.chat.get("enable_thinking") is not False:
        name = draft.document.at(at)
        message = f"{shown(name)} thinks before it answers, and a character would hide in its thoughts"
        hint = f"write {{name: {name}, chat: {{enable_thinking: false}}}}"
        if student.chat:
            at, hint = (*path, "student", "chat", "enable_thinking"), "write enable_thinking: false in its chat options"
        draft.add("SPEC052", message, at, hint)
    if roles["teacher"] == student:
        message = "the teacher is the student: its answers in character are no better than the student could give"
        draft.warn("SPEC054", message, _name_path(draft, (*path, "teacher")), "a larger teacher shows the character")


def _name_path(draft: Draft, path: KeyPath) -> KeyPath:
    return (*path, "name") if isinstance(draft.document.at(path), dict) else path


def resolve_stand_ins(draft: Draft) -> StandIns | None:
    """The spec's stand-ins; models that it does not use are problems."""
    if "stand_ins" not in draft.mapping():
        return None
    used = _model_names(draft)
    models: dict[str, str] = {}
    for name, value in draft.mapping("stand_ins", "models").items():
        path = ("stand_ins", "models", name)
        if name not in used:
            hint = suggest(name, used, "models")
            draft.add("SPEC028", f"no model of this spec is called {shown(name)}", path, hint, on="key")
        elif draft.sound(path):
            key = str(draft.relative(name, path, on="key")[0]) if is_folder_name(name) else name
            models[key] = _model_name(draft, path, value)
    return StandIns(models, draft.mapping("stand_ins", "with"))


def check_prices(draft: Draft) -> None:
    """Check `prices`: a model that the spec does not use is probably a mistake, and no cache makes a prompt dearer."""
    used = _model_names(draft)
    for name, figures in draft.mapping("prices").items():
        if draft.sound(("prices", name)) and figures.get("cached_prefill", 0) > figures["prefill"]:
            message = f"a cached prompt of {shown(name)} costs more than one that is not"
            hint = f"write at most its prefill, {figures['prefill']:g}, or leave it out: a fifth of that"
            draft.add("SPEC076", message, ("prices", name, "cached_prefill"), hint)
        if name not in used:
            message = f"no model of this spec is called {shown(name)}"
            draft.warn("SPEC058", message, ("prices", name), suggest(name, used, "models"), on="key")


def _model_names(draft: Draft) -> set[str]:
    """The names under `models`, as written."""
    entries = [entry for entry in draft.items("models") if isinstance(entry, dict)]
    values = [value for entry in entries for role, value in entry.items() if role != _ID]
    names = [value.get("name") if isinstance(value, dict) else value for value in values]
    return {name for name in names if isinstance(name, str)}
