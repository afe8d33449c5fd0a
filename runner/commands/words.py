"""What a shell may complete an argument or an option with, as far as charrun itself can tell.

Each of these answers click's `shell_complete`. None imports a plugin that is not charrun's own: a plugin's stages are
known once a spec or a run names them. A shell adds no space after a word that ends in `/`, `=`, `:` or `.`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

    from charrun.plugin_manager import Registry
    from charrun.spec import Document
    from charrun.store.runs import Run

COMPLETING = "_CHARRUN_COMPLETE"
"""What a shell that asks for completions sets; click reads it under this name for a program called `charrun`."""

_YAML = (".yaml", ".yml")
_LOOKED_AT = 500


def looks_like_spec(word: str) -> bool:
    """Whether a word can only be meant as a file or a shipped spec."""
    return word.endswith(_YAML) or os.sep in word or "/" in word or word.startswith("builtin:")


def paths(incomplete: str, endings: tuple[str, ...] | None = ("",)) -> list[str]:
    """Folders, and files of some endings, that continue a path; with None folders alone."""
    head, base = os.path.split(incomplete)
    head = incomplete[: len(incomplete) - len(base)]
    found = []
    for entry in _entries(os.path.expanduser(head) or "."):
        if not entry.name.startswith(base) or (entry.name.startswith(".") and not base):
            continue
        if entry.is_dir():
            found.append(f"{head}{entry.name}/")
        elif endings and entry.name.endswith(endings):
            found.append(head + entry.name)
    return found


def spec_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """YAML files, the folders on the way to them, and shipped specs as builtin:NAME; else any folder."""
    return specs(incomplete) or paths(incomplete, None)


def specs(incomplete: str) -> list[str]:
    """YAML files, folders that hold some, and shipped specs as builtin:NAME."""
    found = paths(incomplete, _YAML)
    if "/" not in incomplete:
        found = [path for path in found if not path.endswith("/") or _holds_yaml(path)]
    if incomplete.startswith("builtin:"):
        from charrun.spec import builtin_specs

        return [*found, *_matching([f"builtin:{name}" for name in builtin_specs()], incomplete)]
    return [*found, *_matching(["builtin:"], incomplete)]


def folders(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Folders alone."""
    return paths(incomplete, None)


def stage_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Ids of the stages of the spec on the line; without one the built-in stages."""
    document = _document(ctx)
    uses = _stages(document.data) if document else {}
    told = {id: name if name != id else "" for id, name in uses.items()}
    return _told(told, incomplete) if uses else stage_names(ctx, param, incomplete)


def stage_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of the built-in stages."""
    return _told({name: stage.summary for name, stage in _registry().stages.items()}, incomplete)


def character_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The shipped characters, and YAML files."""
    return [*_matching(_registry().characters, incomplete), *paths(incomplete, _YAML)]


def character_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the characters of the spec on the line; without one the shipped ones."""
    from charrun.spec.draft import Draft
    from charrun.spec.library import resolve_characters

    document, library = _document(ctx), _registry().library
    found = resolve_characters(Draft(document), library) if document else ()
    return _matching([character.id for character in found] or library.characters, incomplete)


def model_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the models entries of the spec on the line."""
    from charrun.spec.draft import Draft
    from charrun.spec.roles import resolve_models

    document = _document(ctx)
    return _matching([entry.id for entry in resolve_models(Draft(document))] if document else [], incomplete)


def scale_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The scales of the spec on the line, then the shipped ones."""
    from charrun.spec.draft import Draft
    from charrun.spec.library import resolve_scales

    document, library = _document(ctx), _registry().library
    own = [scale.name for scale in resolve_scales(Draft(document), library)] if document else []
    return _matching(dict.fromkeys([*own, *library.scales]), incomplete)


def set_keys(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Keys of a spec for --set, down to the options of its stages."""
    from charrun.spec import shipped_schema

    if "=" in incomplete:
        return []
    front, document = incomplete.rpartition(".")[0], _document(ctx)
    data = document.data if document else {}
    match front.split("."):
        case [""]:
            return _keys("", shipped_schema("spec")["properties"], incomplete)
        case ["stages"]:
            return _told({f"stages.{id}.with.": uses for id, uses in _stages(data).items()}, incomplete)
        case ["stages", id, "with"]:
            stage = _registry().stages.get(_stages(data).get(id, id))
            return _keys(f"{front}.", stage.options_schema.get("properties", {}) if stage else {}, incomplete)
        case ["vars"]:
            return _told({f"vars.{name}=": "" for name in data.get("vars", {})}, incomplete)
        case [name]:
            return _keys(
                f"{name}.", shipped_schema("spec")["properties"].get(name, {}).get("properties", {}), incomplete
            )
    return []


def run_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names and numbers of the runs of the folder that --runs-dir names."""
    return _matching(_run_ids(ctx), incomplete) or paths(incomplete, None)


def run_stages(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ids of the stages of the run on the line; without one those of the latest run."""
    return _matching(dict.fromkeys(stage.id for cell in _run(ctx).cells for stage in cell.stages), incomplete)


def run_cells(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the cells of the run on the line; without one those of the latest run."""
    return _matching([cell.name for cell in _run(ctx).cells], incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _told(names: Mapping[str, str], incomplete: str) -> list[CompletionItem[str]]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(name, help=text or None) for name, text in names.items() if name.startswith(incomplete)]


def _keys(front: str, properties: Mapping[str, Mapping[str, Any]], incomplete: str) -> list[CompletionItem[str]]:
    """A schema's properties; those that hold others go on with a dot."""
    nested = {name for name, schema in properties.items() if schema.get("type") == "object" or name == "stages"}
    named = {
        f"{front}{name}{'.' if name in nested else '='}": str(schema.get("description", ""))
        for name, schema in properties.items()
    }
    return _told(named, incomplete)


def _registry() -> Registry:
    from charrun.plugin_manager import load_registry

    return load_registry(third_party=False)


def _document(ctx: click.Context) -> Document | None:
    """The spec on the line, if there is one that can be read."""
    from charrun.errors import CharrunError
    from charrun.spec import read_spec

    for word in _line(ctx):
        if word.startswith("builtin:") or (word.endswith(_YAML) and Path(word).is_file()):
            try:
                document = read_spec(word).document
            except CharrunError:
                continue
            if isinstance(document.data, dict):
                return document
    return None


def _stages(data: Mapping[str, Any]) -> dict[str, str]:
    """What each stage item uses, by its id."""
    items = data.get("stages", ())
    named = [item if isinstance(item, dict) else {"uses": item} for item in items if isinstance(item, dict | str)]
    return {str(item.get("id", item.get("uses"))): str(item.get("uses")) for item in named}


def _run_ids(ctx: click.Context) -> list[str]:
    from charrun.store.runs import run_ids

    return run_ids(Path(ctx.params.get("runs_dir") or "runs").expanduser())


def _run(ctx: click.Context) -> Run:
    from charrun.store.runs import find_run

    ids = _run_ids(ctx)
    known = {*ids, *(id.partition("/")[0] for id in ids)}
    named = next((word for word in _line(ctx) if word in known), "")
    return find_run(Path(ctx.params.get("runs_dir") or "runs").expanduser(), named)


def _line(ctx: click.Context) -> list[str]:
    """The words before the one that is completed; click parses no argument where the last option lacks its value."""
    return [os.path.expanduser(word) for word in ctx.find_root().obj or ()]


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _holds_yaml(folder: str, depth: int = 2) -> bool:
    """Whether there is a YAML file in a folder or in those in it; a large folder is looked at in part."""
    entries = list(islice(_entries(folder), _LOOKED_AT))
    if any(entry.name.endswith(_YAML) for entry in entries):
        return True
    inner = (entry for entry in entries if depth > 1 and not entry.name.startswith(".") and entry.is_dir())
    return any(_holds_yaml(entry.path, depth - 1) for entry in inner)
