"""Which kind of file a YAML file is: a spec, or one of the files that specs name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from charrun.errors import SpecError
from charrun.spec.draft import Draft
from charrun.spec.kind_words import OF_CHARACTERS, OF_SCALES, OF_SPECS
from charrun.spec.library import load_character, load_scale
from charrun.spec.schema import shipped_schema
from charrun.spec.yaml import load_yaml, read_yaml

Kind = Literal["spec", "character", "scale", "scales"]

_FOLDERS: dict[str, Kind] = {"characters": "character", "scales": "scale"}


def kind_by_place(path: Path) -> Kind:
    """What a file is by the folder that it lies in; a spec where that says nothing."""
    return _FOLDERS.get(path.absolute().parent.name, "spec")


def kind_by_content(path: Path) -> Kind:
    """What a file is by what it holds; a spec where that says nothing, or it cannot be read."""
    try:
        return kind_of(load_yaml(path).data)
    except SpecError:
        return "spec"


def kind_of(data: Any) -> Kind:
    """What plain data describe: `scales` is a mapping of names to scales."""
    if not isinstance(data, dict) or data.keys() & OF_SPECS:
        return "spec"
    if data.keys() & OF_CHARACTERS:
        return "character"
    if data.keys() & OF_SCALES:
        return "scale"
    if any(isinstance(value, dict) and value.keys() & OF_SCALES for value in data.values()):
        return "scales"
    return "spec"


def check_file(kind: Kind, path: Path, name: str) -> None:
    """Check a file that is no spec.

    Args:
        kind: What it is.
        path: The file.
        name: What to call it in problems.

    Raises:
        SpecError: With every problem found in the file.
    """
    if kind == "character":
        load_character(path, name)
    elif kind == "scale":
        load_scale(path, name)
    else:
        _check_scales(path, name)


def _check_scales(path: Path, name: str) -> None:
    schema = shipped_schema("scale")
    properties = {key: value for key, value in schema["properties"].items() if key not in ("name", "version")}
    draft = Draft(read_yaml(path, name))
    table = {
        "type": "object",
        "propertyNames": schema["definitions"]["slug"],
        "additionalProperties": {**schema, "properties": properties},
    }
    draft.check(draft.document.data, table)
    if problems := draft.problems():
        raise SpecError(problems)
