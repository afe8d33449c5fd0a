"""Presets: the options of a published run as data, under whatever a spec says itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charrun.errors import SpecError
from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.layers import SpecDocument
from charrun.spec.library import is_path
from charrun.spec.parts import StageInfo
from charrun.spec.places import relative, specs_folder
from charrun.spec.schema import options_of, shipped_schema
from charrun.spec.words import shown, suggest
from charrun.spec.yaml import read_yaml

Preset = Mapping[str, Mapping[str, Any]]
"""Options by the stage's name."""


def shipped_presets() -> dict[str, Path]:
    """The presets that ship with charrun, by name."""
    return {path.stem: path for path in sorted((specs_folder() / "presets").glob("*.yaml"))}


def resolve_preset(draft: Draft, stages: Mapping[str, StageInfo]) -> Preset:
    """The options of the preset that the spec names; none where it names none, or none that is sound."""
    name = draft.mapping().get("preset")
    path = ("preset",)
    if not isinstance(name, str) or not draft.sound(path):
        return {}
    shipped = shipped_presets()
    if name in shipped:
        file, told = shipped[name], str(shipped[name])
    elif is_path(name):
        file, told = draft.relative(name, path)
    else:
        hint = suggest(name, shipped, "presets")
        hint = hint if hint.startswith("did") else f"{hint}; a file's name ends in .yaml"
        draft.add("SPEC065", f"unknown preset {shown(name)}", path, hint)
        return {}
    try:
        return load_preset(file, stages, told)
    except SpecError as error:
        if error.problems[0].code != "SPEC001":
            draft.add_elsewhere(error.problems)
        else:
            message = f"preset file {shown(told)}: {error.problems[0].message}"
            draft.add("SPEC027", message, path, draft.paths_hint(name, path))
        return {}


def warn_of_hybrids(draft: Draft, preset: Preset) -> None:
    """Warn of options below the layer that names the preset, which stay over it: a base's, say, under `--set preset=`.

    What the layer itself says, or one above it, is meant to differ from the preset.
    """
    if not preset:
        return
    document = draft.document
    files = [source.name for source in document.sources if source.path]
    layers = [*reversed(files), *(source.name for source in document.sources if not source.path)]
    named = document.node(("preset",), on="key").source.name
    below = layers[: layers.index(named)] if named in layers else []
    for i, item in enumerate(draft.items("stages")):
        if not isinstance(item, dict) or not draft.sound(("stages", i)):
            continue
        for path, ours, theirs in _differing(item.get("with", {}), preset.get(item["uses"], {})):
            at: KeyPath = ("stages", i, "with", *path)
            if document.node(at, on="key").source.name in below:
                message = f"{path[-1]} is {shown(ours)} here and {shown(theirs)} in the preset that {named} names"
                removed = ".".join(("stages", str(item.get("id", item["uses"])), "with", *path))
                draft.warn("SPEC073", message, at, f"for the preset's value: --set {removed}=null", on="key")


def _differing(
    options: Mapping[str, Any], preset: Mapping[str, Any], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    """Options that both say and that are not the same, each with its place and both values."""
    for name in (name for name in options if name in preset):
        ours, theirs = options[name], preset[name]
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from _differing(ours, theirs, (*at, name))
        elif ours != theirs:
            yield (*at, name), ours, theirs


def named_preset(read: SpecDocument) -> Preset:
    """The options of the preset that a sound spec names."""
    name = read.document.data.get("preset")
    if name is None:
        return {}
    source = read.document.node(("preset",)).source
    return dict(read_yaml(shipped_presets().get(name) or relative(source, name)[0]).data.get("stages", {}))


def load_preset(path: Path, stages: Mapping[str, StageInfo], name: str = "") -> Preset:
    """Read a preset file.

    Args:
        path: The file.
        stages: The stages at hand; options of others are not looked at.
        name: What to call it in problems; `path` itself if empty.

    Raises:
        SpecError: With every problem found in the file.
    """
    draft = Draft(read_yaml(path, name))
    draft.check(draft.document.data, shipped_schema("preset"))
    for stage, options in draft.mapping("stages").items():
        at = ("stages", stage)
        if stage in stages and draft.sound(at):
            schema = {key: value for key, value in stages[stage].options_schema.items() if key != "required"}
            draft.check(options, schema, at, options_of("stage", stage))
    if problems := draft.problems():
        raise SpecError(problems)
    return dict(draft.mapping("stages"))
