"""What a plugin may register: each check says in one sentence what is wrong."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import PluginError
from charrun.service.engine import Engine
from charrun.stage import IDENTITY, Stage

if TYPE_CHECKING:
    from charrun.spec import Scale

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
_KINDS = ("consumes", "optional", "produces", "roles", "trains", "measures", "scores", "character_fields")
_IDENTITIES = ("rows", "lineage", "content")
_NAME_RULE = "a name is at most 64 lower-case letters, digits, hyphens and underscores"


def checked_stages(answer: Any, *, schemas: bool = True) -> list[type[Stage]]:
    """The stage classes that a hook returned.

    Args:
        answer: What it returned.
        schemas: Whether to check the options schemas, which takes the import of jsonschema.

    Raises:
        PluginError: It is no list of sound stages.
    """
    for stage in _listed(answer, "stages"):
        _check_class(stage, Stage, "stage")
        _check_stage(stage)
        _check_named(stage, "stage", schemas)
    return list(answer)


def checked_engines(answer: Any, *, schemas: bool = True) -> list[type[Engine]]:
    """The engine classes that a hook returned; arguments and errors as in `checked_stages`."""
    for engine in _listed(answer, "engines"):
        _check_class(engine, Engine, "engine")
        if engine.connect is Engine.connect:
            raise PluginError(f"engine {engine.__name__} has no connect")
        _check_named(engine, "engine", schemas)
        if engine.name == "auto":
            raise PluginError("no engine can be called 'auto': it lets charrun choose one")
    return list(answer)


def checked_characters(answer: Any) -> dict[str, Path]:
    """The character files that a hook returned, by id.

    Raises:
        PluginError: It is no mapping of ids to files that exist.
    """
    if not isinstance(answer, Mapping):
        raise PluginError(f"its characters are {_kind(answer)}, not a mapping of ids to files")
    for id, path in answer.items():
        _check_name(id, "character")
        if not isinstance(path, Path):
            raise PluginError(f"the file of character {id!r} is {_kind(path)}, not a pathlib.Path")
        if not path.is_absolute() or not path.is_file():
            raise PluginError(f"character {id!r}: {path} is no file with an absolute path")
    return dict(answer)


def checked_scales(answer: Any) -> list[Scale]:
    """The scales that a hook returned.

    Raises:
        PluginError: It is no list of sound scales.
    """
    from dataclasses import asdict

    from charrun.spec import Scale

    for scale in _listed(answer, "scales"):
        if not isinstance(scale, Scale):
            raise PluginError(f"its scales hold {_kind(scale)}, not a charrun.Scale")
        numbers = asdict(scale)
        _check_name(numbers.pop("name"), "scale")
        for name, number in numbers.items():
            if type(number) is not int or number < 1:
                raise PluginError(f"scale {scale.name!r}: {name} is {number!r}, not a whole number of at least 1")
    return list(answer)


def _listed(answer: Any, what: str) -> Any:
    if not isinstance(answer, list | tuple):
        raise PluginError(f"its {what} are {_kind(answer)}, not a list")
    return answer


def _check_class(found: Any, base: type, what: str) -> None:
    if not inspect.isclass(found) or not issubclass(found, base):
        raise PluginError(f"its {what}s hold {_kind(found)}, not a subclass of charrun.{base.__name__}")


def _check_named(found: Any, what: str, schemas: bool) -> None:
    """Name, summary and options schema, which stages and engines have alike."""
    _check_name(getattr(found, "name", None), what, found.__name__)
    summary = getattr(found, "summary", None)
    if not isinstance(summary, str) or not summary.strip() or len(summary.splitlines()) != 1:
        raise PluginError(f"{what} {found.name!r}: its summary is {summary!r}, not one line of text")
    schema = found.options_schema
    if not isinstance(schema, Mapping) or schema.get("type") != "object":
        raise PluginError(f"{what} {found.name!r}: its options_schema is not a schema of type object")
    if schemas:
        for problem in schema_problems(schema):
            raise PluginError(f"{what} {found.name!r}: its options_schema {problem}")


def _check_stage(stage: type[Stage]) -> None:
    title = f"stage {getattr(stage, 'name', stage.__name__)!r}"
    for field in _KINDS:
        value = getattr(stage, field)
        if not isinstance(value, tuple) or not all(isinstance(item, str) and item for item in value):
            raise PluginError(f"{title}: {field} is {value!r}, not a tuple of texts")
    if not isinstance(stage.instead, Mapping) or not set(stage.instead) <= set(stage.consumes):
        raise PluginError(f"{title}: instead is {stage.instead!r}, not a mapping of kinds that it consumes to options")
    if stage.identity not in _IDENTITIES:
        raise PluginError(f"{title}: identity is {stage.identity!r}, not one of {', '.join(_IDENTITIES)}")
    if type(stage.cache_version) is not int:
        raise PluginError(f"{title}: cache_version is {stage.cache_version!r}, not a whole number")
    if stage.run is Stage.run or not inspect.iscoroutinefunction(stage.run):
        raise PluginError(f"{title} has no `async def run(self, ctx)`")
    if not isinstance(stage.templates, Mapping):
        raise PluginError(f"{title}: templates are {_kind(stage.templates)}, not a mapping of names to files")
    for name, path in stage.templates.items():
        if not isinstance(path, Path) or not path.is_file():
            raise PluginError(f"{title}: template {name!r} is {str(path)!r}, which is no file")
    if not isinstance(stage.optional_variables, Mapping):
        raise PluginError(f"{title}: optional_variables are {_kind(stage.optional_variables)}, not a mapping")
    for name, variables in stage.optional_variables.items():
        if name not in stage.templates:
            raise PluginError(f"{title}: optional_variables name the template {name!r}, which is none of its own")
        if not isinstance(variables, tuple) or not all(isinstance(each, str) for each in variables):
            raise PluginError(f"{title}: optional_variables of {name!r} are {variables!r}, not a tuple of texts")


def schema_problems(schema: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the schema of a plugin's options, each as the end of a sentence about it."""
    import json

    from jsonschema import Draft7Validator
    from jsonschema.exceptions import SchemaError

    try:
        plain = json.loads(json.dumps(schema, default=dict, allow_nan=False))
    except (TypeError, ValueError) as error:
        yield f"does not fit into JSON: {error}"
        return
    try:
        Draft7Validator.check_schema(plain)
    except SchemaError as error:
        place = "/".join(map(str, error.absolute_path))
        yield f"is not valid draft-07{f' at {place}' if place else ''}: {error.message}"
        return
    broken = [reference for reference in _references(plain) if not _leads_somewhere(plain, reference)]
    for reference in broken:
        yield f"refers to {reference!r}: a $ref leads into the same schema, nothing is ever retrieved"
    for option, sub in plain.get("properties", {}).items() if not broken else ():
        if isinstance(sub, Mapping) and not isinstance(sub.get(IDENTITY, True), bool):
            yield f"gives {option!r} the {IDENTITY} {sub[IDENTITY]!r}, which is neither true nor false"
        if isinstance(sub, Mapping) and "default" in sub:
            within = {**sub, "definitions": plain.get("definitions", {})}
            if not Draft7Validator(within).is_valid(sub["default"]):
                yield f"gives {option!r} the default {sub['default']!r}, which it does not allow"


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        schema = schema.values()
    if not isinstance(schema, str | int | float | None):
        for item in schema:
            yield from _references(item)


def _leads_somewhere(schema: Any, reference: str) -> bool:
    if not reference.startswith("#"):
        return False
    for part in reference.removeprefix("#").split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(schema, Mapping) or key not in schema:
            return False
        schema = schema[key]
    return True


def _check_name(name: Any, what: str, of: str = "") -> None:
    if not isinstance(name, str) or not _NAME.match(name):
        raise PluginError(f"{what} {of or name!r} has the name {name!r}: {_NAME_RULE}")


def _kind(value: Any) -> str:
    return value.__name__ if inspect.isclass(value) else f"a {type(value).__name__}"
