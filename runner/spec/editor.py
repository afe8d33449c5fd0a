"""The JSON Schemas that editors use: the core's, with what the plugins at hand add to it.

A published schema is draft-07 and refers to nothing outside of itself, so it works wherever it is put. Its shape is
one that yaml-language-server completes and reports well: conditions (`if uses is dpo then with is ...`) instead of
alternatives of mappings, of which a server can only say that none fits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from charrun.errors import PluginError
from charrun.spec.loosen import PATCH, Schema, explained, loosened, sentence
from charrun.spec.schema import shipped_schema

DRAFT = "http://json-schema.org/draft-07/schema#"
DOCUMENTS = ("spec", "character", "scale")
"""What there are schemas for, each in a file of its own."""

_NO_OPTIONS = {"type": "object", "additionalProperties": False}
_PATH = r"[/\\]|\.ya?ml$"
_SHIPPED_SUFFIX = ".schema.json"


@dataclass(frozen=True)
class Choice:
    """Something that a spec names: what it is, in a sentence, and the schema of its options."""

    summary: str
    options: Mapping[str, Any] = field(default_factory=lambda: _NO_OPTIONS)


@dataclass(frozen=True)
class Vocabulary:
    """All that a spec may call by name.

    Attributes:
        stages: Stages, with the schemas of their options.
        engines: Engines but `auto`, with the schemas of their options.
        characters: Characters' descriptions by id.
        scales: Scales in words, by name.
        templates: What each prompt template is for, by name.
        presets: Presets' descriptions by name.
        arms: Shipped arms' descriptions by name.
        specs: Shipped specs, as `extends` names them.
    """

    stages: Mapping[str, Choice]
    engines: Mapping[str, Choice]
    characters: Mapping[str, str]
    scales: Mapping[str, str]
    templates: Mapping[str, str]
    specs: Sequence[str]
    presets: Mapping[str, str]
    arms: Mapping[str, str]


def published(document: str, vocabulary: Vocabulary) -> Schema:
    """The schema of one kind of file: `spec`, `character` or `scale`.

    Raises:
        PluginError: A plugin's schema refers to something that is not at hand.
    """
    if document == "spec":
        return _spec(vocabulary)
    schema = explained(inlined(shipped_schema(document)))
    return {"$schema": DRAFT, **{key: value for key, value in schema.items() if key not in ("$schema", "definitions")}}


def options_schema(name: str, options: Mapping[str, Any]) -> Schema:
    """The schema of one stage's options by itself.

    Raises:
        PluginError: It refers to something that is not at hand.
    """
    schema: Schema = explained(_within(options, "#", f"stage {name!r}"))
    return {"$schema": DRAFT, "title": f"Options of stage {name}", **schema}


def inlined(schema: Mapping[str, Any]) -> Schema:
    """A shipped schema with what it refers to in the places of the references."""
    result = _inlined(schema, schema)
    assert isinstance(result, dict)
    return result


def _inlined(value: Any, root: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_inlined(item, root) for item in value]
    if not isinstance(value, Mapping):
        return value
    if "$ref" in value:
        document, _, pointer = str(value["$ref"]).partition("#")
        target_root = shipped_schema(document.removesuffix(_SHIPPED_SUFFIX)) if document else root
        target: Any = target_root
        for step in filter(None, pointer.split("/")):
            target = target[step]
        found = {key: item for key, item in _inlined(target, target_root).items() if key not in ("$schema", "title")}
        if "pattern" in found and "description" in found:
            found["patternErrorMessage"] = f"Expected {found['description']}."
        return found
    result = {key: _inlined(item, root) for key, item in value.items() if key != "definitions"}
    if result.get("default") in ({}, []):
        del result["default"]  # an editor would write it
    if len(result.get("allOf", ())) == 1:
        result = {**result.pop("allOf")[0], **result}
    if "description" in result:
        # What the value is for says more than what form it has; a server would show the latter.
        for branch in result.get("anyOf", ()):
            branch.pop("description", None)
    return result


def _within(schema: Any, place: str, owner: str) -> Any:
    """A plugin's schema as a part of another: its references begin at `place`.

    Raises:
        PluginError: A reference leads out of the schema.
    """
    if isinstance(schema, list | tuple):
        return [_within(item, place, owner) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = {key: _within(item, place, owner) for key, item in schema.items() if key not in ("$id", "$schema")}
    if isinstance(ref := result.get("$ref"), str):
        if not (ref == "#" or ref.startswith("#/")):
            raise PluginError(
                f"the schema of {owner} refers to {ref!r}, which cannot be part of one file",
                "use references that begin with '#/'",
            )
        result["$ref"] = place + ref.removeprefix("#")
    return result


def _spec(vocabulary: Vocabulary) -> Schema:
    core = inlined(shipped_schema("spec"))
    head = {"$schema": DRAFT, "title": core.pop("title"), "description": core.pop("description"), "type": "object"}
    core.pop("$schema")
    definitions = {name: explained(schema) for name, schema in _definitions(core, vocabulary).items()}
    result = {
        **head,
        "if": {"required": ["extends"]},
        "then": loosened(explained(_patch(core, vocabulary)), patch=True),
        "else": loosened(explained(_whole(core, vocabulary))),
        "definitions": {
            **{name: loosened(schema) for name, schema in definitions.items()},
            **{PATCH + name: loosened(schema, patch=True) for name, schema in definitions.items()},
        },
    }
    known = [{"type": "string", "enum": list(vocabulary.specs)}, {"type": "string", "minLength": 1}]
    extends = {"description": sentence(core["properties"]["extends"]), "anyOf": known}
    for branch in ("then", "else"):
        # Both are looked at before there are variables, and neither can be removed.
        result[branch]["properties"] |= {"version": core["properties"]["version"], "extends": extends}
    return _pruned(result)


def _whole(core: Mapping[str, Any], vocabulary: Vocabulary) -> Schema:
    """A spec that stands for itself."""
    known, any_name = _named(core, vocabulary, closed=True), _named(core, vocabulary, closed=False)
    rest = {
        key: {name: part for name, part in core["properties"][key].items() if name not in known[key]} for key in known
    }
    # What the spec's own files register is not known here.
    names = {"if": {"required": ["plugins"]}, "then": {"properties": any_name}, "else": {"properties": known}}
    return {**core, "properties": {**core["properties"], **rest}, "allOf": [names, _stand_ins(vocabulary)]}


def _patch(core: Mapping[str, Any], vocabulary: Vocabulary) -> Schema:
    """A spec that extends another: whatever the other one holds need not be here."""
    any_name = _named(core, vocabulary, closed=False)
    properties = {**core["properties"], **{key: {**core["properties"][key], **any_name[key]} for key in any_name}}
    properties["stages"]["properties"] = _stage_patches(vocabulary)
    return {**core, "properties": properties, "allOf": [_stand_ins(vocabulary)["else"]]}


def _definitions(core: Mapping[str, Any], vocabulary: Vocabulary) -> dict[str, Schema]:
    """What is referred to from several places."""
    properties = core["properties"]
    engine, item = properties["engine"]["anyOf"][-1], properties["stages"]["items"]["anyOf"][-1]
    return {
        "character": properties["characters"]["items"]["anyOf"][-1],
        "scale": properties["scales"]["items"]["anyOf"][-1],
        "arm": properties["arms"]["items"]["anyOf"][-1],
        "engine": {**engine, "allOf": _conditions("engine", {"auto": Choice(""), **vocabulary.engines})},
        "stage": {**item, "allOf": _conditions("stage", vocabulary.stages)},
        **{f"engine-{name}": _options("engine", name, choice) for name, choice in vocabulary.engines.items()},
        **{f"stage-{name}": _options("stage", name, choice) for name, choice in vocabulary.stages.items()},
    }


def _options(kind: str, name: str, choice: Choice) -> Schema:
    schema: Schema = _within(choice.options, _place(f"{kind}-{name}"), f"{kind} {name!r}")
    return {"title": f"Options of {kind} {name}", "description": choice.summary, **schema}


def _conditions(kind: str, choices: Mapping[str, Choice]) -> list[Schema]:
    """For each name: where `uses` is it, `with` holds its options."""
    return [
        {
            "if": {"required": ["uses"], "properties": {"uses": {"const": name}}},
            "then": {"properties": {"with": _ref(f"{kind}-{name}") if name != "auto" else dict(_NO_OPTIONS)}},
        }
        for name in choices
    ]


def _named(core: Mapping[str, Any], vocabulary: Vocabulary, closed: bool) -> dict[str, Schema]:
    """The keys whose values are names; `closed` where only the names at hand can be meant."""
    properties = core["properties"]
    engines = {"auto": "Tinker where credentials are found, else the local engine with the stand-ins"}
    engines |= {name: choice.summary for name, choice in vocabulary.engines.items()}
    stages = {name: choice.summary for name, choice in vocabulary.stages.items()}
    templates = {
        name: {"description": text, "type": "string", "minLength": 1} for name, text in vocabulary.templates.items()
    }
    file = [{"type": "string", "pattern": _PATH}]
    others = False if closed else properties["templates"]["additionalProperties"]
    return {
        "engine": {"anyOf": _any_of(engines, "engine", closed, key="uses")},
        "characters": {"items": {"anyOf": _any_of(vocabulary.characters, "character", closed, file)}},
        "scales": {"items": {"anyOf": _any_of(vocabulary.scales, "scale", closed, file)}},
        "arms": {"items": {"anyOf": _any_of(vocabulary.arms, "arm", closed, file)}},
        "preset": {"anyOf": _any_of(vocabulary.presets, "", closed, file)},
        "stages": {"items": {"anyOf": _any_of(stages, "stage", closed, key="uses")}},
        "templates": {"properties": templates, "additionalProperties": others},
    }


def _any_of(
    names: Mapping[str, str], written_out: str, closed: bool, further: Iterable[Schema] = (), key: str = ""
) -> list[Schema]:
    """One of the names, or what the definition `written_out`, if any, describes, in which `key` is such a name."""
    known: Schema = {"type": "string", "enum": list(names), "enumDescriptions": list(names.values())}
    other: list[Schema] = [] if closed else [{"type": "string", "minLength": 1}]
    if not written_out:
        return [known, *further, *other]
    mapping = _ref(written_out)
    if key:
        name = known if closed else {"anyOf": [known, *other]}
        mapping = {"type": "object", "properties": {key: name}, "allOf": [mapping]}
    return [known, *further, *other, mapping]


def _stage_patches(vocabulary: Vocabulary) -> dict[str, Schema]:
    """In a mapping over the list of stages: what changes the item that is called as its stage."""
    return {
        name: {
            "description": choice.summary,
            "if": {"required": ["uses"]},
            "then": _ref("stage"),
            "else": {"properties": {"with": _ref(f"stage-{name}")}, "allOf": [_ref("stage")]},
        }
        for name, choice in vocabulary.stages.items()
    }


def _stand_ins(vocabulary: Vocabulary) -> Schema:
    """`stand_ins.with` holds options by item id, which is the stage's name unless an item is called otherwise."""
    otherwise = {"type": "object", "required": ["id"], "properties": {"id": {"enum": list(vocabulary.stages)}}}
    options = {
        name: {key: value for key, value in _options("stage", name, choice).items() if key != "required"}
        if "required" in choice.options
        else _ref(f"stage-{name}")
        for name, choice in vocabulary.stages.items()
    }
    return {
        "if": {"required": ["stages"], "properties": {"stages": {"contains": otherwise}}},
        "else": {"properties": {"stand_ins": {"properties": {"with": {"properties": options}}}}},
    }


def _ref(name: str) -> Schema:
    return {"$ref": _place(name)}


def _place(name: str) -> str:
    return f"#/definitions/{name}"


def _pruned(schema: Schema) -> Schema:
    """The schema without definitions that nothing refers to."""
    needed: set[str] = set()
    ahead: list[Any] = [value for key, value in schema.items() if key != "definitions"]
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += value
        elif isinstance(value, Mapping):
            ahead += value.values()
            name = str(value.get("$ref", "")).removeprefix("#/definitions/").partition("/")[0]
            if name in schema["definitions"] and name not in needed:
                needed.add(name)
                ahead.append(schema["definitions"][name])
    return {**schema, "definitions": {name: sub for name, sub in schema["definitions"].items() if name in needed}}
