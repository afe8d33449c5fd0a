"""From a spec to a `Spec`, or to every problem in it at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charrun.errors import SpecError
from charrun.spec.arms import resolve_arms
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.elsewhere import check_elsewhere
from charrun.spec.keys import warn_of_keys, warn_of_keys_beside
from charrun.spec.layers import PluginFile, SpecDocument, read_spec
from charrun.spec.library import Library, resolve_characters, resolve_scales
from charrun.spec.matrix import Axes, check_names, resolve_exclude, resolve_seeds
from charrun.spec.misplaced import explain_misplaced
from charrun.spec.model import Spec
from charrun.spec.parts import EngineChoice, LocalPlugin, StageInfo
from charrun.spec.presets import resolve_preset, warn_of_hybrids
from charrun.spec.roles import check_prices, resolve_models, resolve_stand_ins
from charrun.spec.schema import options_of, shipped_schema
from charrun.spec.stages import check_overrides, check_stage_budgets, resolve_stages
from charrun.spec.templates import resolve_templates
from charrun.spec.words import shown, suggest

_NO_OPTIONS = {"type": "object", "additionalProperties": False}


def load_spec(
    path: str | Path | SpecDocument,
    *,
    stages: Mapping[str, StageInfo],
    engines: Collection[str],
    templates: Collection[str],
    library: Library,
    sets: Sequence[str] = (),
) -> Spec:
    """Read, check and resolve a spec.

    Args:
        path: The spec file, or `builtin:NAME` for a spec that ships with charrun, or what `read_spec` made of it.
        stages: The stages at hand by name.
        engines: The names of the engines at hand, `auto` aside. If it maps them to the schemas of their
            options, these are checked too.
        templates: The names of the prompt templates that a spec may replace. If it maps them to the shipped files,
            a replacement may use no other variables than these.
        library: The characters and scales that may be called by name.
        sets: `KEY=VALUE` texts that are laid over the spec, where `path` is a path.

    Raises:
        SpecError: With every problem found in the spec and in the files that it names, and the warnings.
    """
    read = path if isinstance(path, SpecDocument) else read_spec(path, sets)
    draft = Draft(read.document)
    warn_of_keys(draft)
    draft.check(draft.document.data, shipped_schema("spec"))
    seeds = resolve_seeds(draft)
    characters = resolve_characters(draft, library)
    scales = resolve_scales(draft, library)
    models = resolve_models(draft)
    engine = _resolve_engine(draft, engines)
    preset = resolve_preset(draft, stages)
    items = resolve_stages(draft, stages, preset)
    warn_of_hybrids(draft, preset)
    arms = resolve_arms(draft, items, stages, preset, library)
    exclude = resolve_exclude(draft, Axes(characters, models, scales, seeds, arms))
    check_overrides(draft, items, stages)
    check_elsewhere(draft, items, stages)
    stand_ins = resolve_stand_ins(draft)
    check_stage_budgets(draft)
    check_prices(draft)
    replaced = resolve_templates(draft, templates, stages, items)
    order = {id(draft.document.node(("plugins", i))): i for i, _ in enumerate(draft.items("plugins"))}
    plugins = [_plugin(draft, file, ("plugins", order[id(file.node)])) for file in read.plugin_files]
    explain_misplaced(draft, stages, engines)
    if problems := draft.problems():
        raise SpecError([*problems, *draft.all_warnings()])
    data = draft.document.data
    budget = data.get("budget")
    spec = Spec(
        name=data["name"],
        seeds=seeds,
        engine=engine,
        characters=characters,
        models=models,
        scales=scales,
        budget_usd=float(budget["usd"]) if budget else None,
        stages=items,
        stand_ins=stand_ins,
        path=draft.document.path,
        templates=replaced,
        exclude=exclude,
        arms=arms if arms[0].name else (),
        plugins=tuple(plugin for plugin in plugins if plugin),
        warnings=draft.all_warnings(),
        successors=tuple(draft.successors),
        stage_budgets={id: float(usd) for id, usd in (budget or {}).get("stages", {}).items()},
        prices={name: _figures(each) for name, each in data.get("prices", {}).items()},
    )
    check_names(draft, spec)
    warn_of_keys_beside(draft, spec)
    if problems := draft.problems():
        raise SpecError([*problems, *draft.all_warnings()])
    return replace(spec, warnings=draft.all_warnings())


def _figures(price: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(usd) for name, usd in price.items()}


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


def _plugin(draft: Draft, file: PluginFile, at: KeyPath) -> LocalPlugin | None:
    """A stage file with the digest of what is in it, if it can be read."""
    if not draft.sound(at):
        return None
    try:
        if file.path.is_file():
            return LocalPlugin(file.path, hashlib.sha256(file.path.read_bytes()).hexdigest())
        reason = "is a folder, not a file" if file.path.is_dir() else "no such file"
    except (OSError, ValueError) as error:
        reason = f"cannot be read: {getattr(error, 'strerror', None) or error}"
    draft.add("SPEC027", f"plugin file {shown(file.told)}: {reason}", at, draft.paths_hint(file.node.value, at))
    return None
