"""From a spec file to a `Spec`, or to every problem in it at once."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from charrun.errors import Problem, SpecError
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.library import Library, resolve_characters, resolve_scales, shipped_library, specs_folder
from charrun.spec.model import EngineChoice, ModelEntry, ModelRef, Spec, StageInfo, StandIns
from charrun.spec.schema import options_of, shipped_schema
from charrun.spec.stages import check_overrides, resolve_stages
from charrun.spec.templates import resolve_templates
from charrun.spec.words import nearest, shown, suggest
from charrun.spec.yaml import read_yaml

_BUILTIN = "builtin:"
_NO_OPTIONS = {"type": "object", "additionalProperties": False}


def load_spec(
    path: str | Path,
    *,
    stages: Mapping[str, StageInfo],
    engines: Collection[str],
    templates: Collection[str],
    library: Library | None = None,
) -> Spec:
    """Read, check and resolve a spec.

    Args:
        path: The spec file; `builtin:NAME` is a spec that ships with charrun.
        stages: The stages at hand by name.
        engines: The names of the engines at hand, `auto` aside. If it maps them to the schemas of their
            options, these are checked too.
        templates: The names of the prompt templates that a spec may replace.
        library: The characters and scales that may be called by name; the shipped ones if left out.

    Raises:
        SpecError: With every problem found in the spec and in the files that it names.
    """
    file, name = locate(path)
    draft = Draft(read_yaml(file, name))
    draft.check(draft.document.data, shipped_schema("spec"))
    library = library or shipped_library()
    characters = resolve_characters(draft, library)
    scales = resolve_scales(draft, library)
    models = _resolve_models(draft)
    engine = _resolve_engine(draft, engines)
    items = resolve_stages(draft, stages)
    check_overrides(draft, items, stages)
    stand_ins = _resolve_stand_ins(draft)
    replaced = resolve_templates(draft, templates)
    if problems := draft.problems():
        raise SpecError(problems)
    data = draft.document.data
    budget = data.get("budget")
    return Spec(
        name=data["name"],
        seed=data.get("seed", 0),
        engine=engine,
        characters=characters,
        models=models,
        scales=scales,
        budget_usd=float(budget["usd"]) if budget else None,
        stages=items,
        stand_ins=stand_ins,
        path=file,
        templates=replaced,
    )


def builtin_specs() -> dict[str, Path]:
    """The shipped specs by the name that follows `builtin:`."""
    return {path.stem: path for path in sorted(specs_folder().glob("*.yaml")) if path.stem != "scales"}


def locate(path: str | Path) -> tuple[Path, str]:
    """The spec file and what to call it in problems.

    Raises:
        SpecError: If there is no such file, with names that are near.
    """
    name = str(path)
    if name.startswith(_BUILTIN):
        shipped = builtin_specs()
        wanted = name.removeprefix(_BUILTIN)
        if wanted in shipped:
            return shipped[wanted], name
        raise SpecError([Problem("SPEC001", "no such spec", name, hint=suggest(wanted, shipped, "shipped specs"))])
    if os.path.exists(name):
        return Path(name), name
    folder, base = os.path.split(name)
    if folder and not os.path.isdir(folder):
        raise SpecError([Problem("SPEC001", "no such file", name, hint=f"there is no folder {shown(folder)}")])
    near = nearest(base, _yaml_files(folder or "."))
    hint = f"did you mean {os.path.join(folder, near)}?" if near else ""
    if not near and Path(base).stem in builtin_specs():
        hint = f"{_BUILTIN}{Path(base).stem} names the spec that ships with charrun"
    raise SpecError([Problem("SPEC001", "no such file", name, hint=hint)])


def _yaml_files(folder: str) -> list[str]:
    try:
        return sorted(entry for entry in os.listdir(folder) if entry.endswith((".yaml", ".yml")))
    except OSError:
        return []


def _resolve_models(draft: Draft) -> tuple[ModelEntry, ...]:
    entries: list[ModelEntry] = []
    seen: set[str] = set()
    for i, written in enumerate(draft.items("models")):
        path = ("models", i)
        if not draft.sound(path):
            continue
        roles = {role: _model(draft, (*path, role), value) for role, value in written.items()}
        canonical = json.dumps(written, sort_keys=True)
        if canonical in seen:
            draft.add("SPEC031", "the same models are listed twice", path, "remove one of them")
        seen.add(canonical)
        entries.append(ModelEntry(roles))
    return tuple(entries)


def _model(draft: Draft, path: KeyPath, value: Any) -> ModelRef:
    if isinstance(value, str):
        return ModelRef(_model_name(draft, path, value))
    name = _model_name(draft, (*path, "name"), value["name"])
    return ModelRef(name, value.get("chat", {}))


def _model_name(draft: Draft, path: KeyPath, name: str) -> str:
    """The name, a local model folder as its absolute path, which is checked to hold a model."""
    if not _is_folder_name(name):
        return name
    folder, told = draft.relative(name)
    if not os.path.isdir(folder):
        draft.add("SPEC034", f"no such model folder: {shown(told)}", path, "paths are relative to this file")
    elif not os.path.isfile(folder / "config.json"):
        draft.add("SPEC034", f"no model in {shown(told)}: it holds no config.json", path)
    return str(folder)


def _is_folder_name(name: str) -> bool:
    return name.startswith(("./", "../", "/", "~"))


def _resolve_engine(draft: Draft, engines: Collection[str]) -> EngineChoice:
    written = draft.mapping().get("engine", "auto")
    if not draft.sound(("engine",)):
        return EngineChoice()
    in_full = isinstance(written, dict)
    uses: str = written["uses"] if in_full else written
    options: dict[str, Any] = written.get("with", {}) if in_full else {}
    known = {"auto", *engines}
    if uses not in known:
        path = ("engine", "uses") if in_full else ("engine",)
        draft.add("SPEC025", f"unknown engine {shown(uses)}", path, suggest(uses, known, "engines"))
    elif isinstance(engines, Mapping):
        schema = engines.get(uses, _NO_OPTIONS)
        draft.check(options, schema, ("engine", "with"), options_of("engine", uses))
    return EngineChoice(uses, options)


def _resolve_stand_ins(draft: Draft) -> StandIns | None:
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
            key = str(draft.relative(name)[0]) if _is_folder_name(name) else name
            models[key] = _model_name(draft, path, value)
    return StandIns(models, draft.mapping("stand_ins", "with"))


def _model_names(draft: Draft) -> set[str]:
    """The names under `models`, as written."""
    values = [value for entry in draft.items("models") if isinstance(entry, dict) for value in entry.values()]
    names = [value.get("name") if isinstance(value, dict) else value for value in values]
    return {name for name in names if isinstance(name, str)}
