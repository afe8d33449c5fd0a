"""Schemas of finished values made to fit what a person types: references to variables, and patches.

A spec is checked after `extends` and `vars` are resolved; an editor sees the file before. So wherever a schema wants a
number, a list, or certain words, the file may hold `${vars.NAME}`; and in a file that extends another, anything may
be left out or removed with null, and a mapping over a list changes the list's items.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from charrun.spec.words import TYPE_WORDS

Schema = dict[str, Any]

REFERENCE = r"\$\{vars\."
PATCH = "patch-"
"""Prefix of the definitions that describe patches."""

_DEFINITIONS = "#/definitions/"
_REFERENCE: Schema = {"title": "A variable", "type": "string", "pattern": REFERENCE}
_REMOVED: Schema = {"title": "Removed", "type": "null"}
_ANNOTATIONS = ("title", "description", "default", "examples")
_CHOICES = ("enum", "const", "oneOf", "not", "contains", "maxLength", "format")


def loosened(schema: Any, patch: bool = False) -> Any:
    """A schema that takes what `schema` takes, and references to variables in any place of it.

    Args:
        schema: A draft-07 schema whose references all lead to definitions beside it.
        patch: Whether it is for a file that extends another. References then lead to the definitions whose names
            begin with `PATCH`.
    """
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        return _reference(schema, patch)
    if any(key in schema for key in _CHOICES):
        return _alternative(schema, patch)
    result = {key: _part(key, value, patch) for key, value in schema.items() if not (patch and key == "required")}
    if "type" in schema:
        _retype(result, schema, patch)
    elif "pattern" in schema:
        result["pattern"] = f"(?:{schema['pattern']})|{REFERENCE}"
    return result


def _reference(schema: Mapping[str, Any], patch: bool) -> Schema:
    """A `$ref` into the right definitions; draft-07 ignores what stands beside one."""
    ref = str(schema["$ref"])
    target = {"$ref": ref.replace(_DEFINITIONS, _DEFINITIONS + PATCH, 1) if patch else ref}
    notes = {key: schema[key] for key in _ANNOTATIONS if key in schema}
    return {**notes, "allOf": [target]} if notes else target


def _part(key: str, value: Any, patch: bool) -> Any:
    if key in ("properties", "patternProperties", "definitions"):
        return {name: loosened(sub, patch) for name, sub in value.items()}
    if key == "anyOf":
        return _flat(loosened(sub, patch) for sub in value)
    if key == "allOf":
        return [loosened(sub, patch) for sub in value]
    if key in ("additionalProperties", "then", "else"):
        return loosened(value, patch)
    if key in ("items", "additionalItems"):
        # A list replaces the list before it, so its items are whole even in a patch.
        return [loosened(sub) for sub in value] if isinstance(value, list) else loosened(value)
    return value


def _alternative(schema: Mapping[str, Any], patch: bool) -> Schema:
    """A choice as it is, or a reference: inside it, a reference could match what it must not."""
    inner = {key: value for key, value in schema.items() if key not in _ANNOTATIONS}
    outer = {key: schema[key] for key in _ANNOTATIONS if key in schema}
    return {**outer, "anyOf": [inner, _REFERENCE, *([_REMOVED] if patch else [])]}


def _flat(branches: Iterable[Any]) -> list[Any]:
    """Alternatives without alternatives in them, each once."""
    found: list[Any] = []
    for branch in branches:
        inner = branch["anyOf"] if isinstance(branch, Mapping) and set(branch) == {"anyOf"} else [branch]
        found += [one for one in inner if one not in found]
    return found


def _retype(result: Schema, schema: Mapping[str, Any], patch: bool) -> None:
    types = [schema["type"]] if isinstance(schema["type"], str) else list(schema["type"])
    if "string" not in types:
        result["pattern"] = REFERENCE
        # Of a mapping, `errorMessage` would stand for every message about its keys too.
        key = "patternErrorMessage" if "object" in types else "errorMessage"
        result[key] = f"Expected {' or '.join(TYPE_WORDS[one] for one in types)}."
    elif "pattern" in schema:
        result["pattern"] = f"(?:{schema['pattern']})|{REFERENCE}"
    wanted = [*types, "string"]
    if patch:
        wanted += ["null"]
        if "array" in types and "object" not in types:
            wanted.insert(1, "object")
            items = schema.get("items", {})
            result.setdefault("additionalProperties", loosened(items, patch) if isinstance(items, Mapping) else {})
    wanted = list(dict.fromkeys(wanted))
    result["type"] = wanted if len(wanted) > 1 else wanted[0]


def explained(schema: Any) -> Any:
    """The schema with what it expects and its defaults told in the descriptions of its properties."""
    if isinstance(schema, list):
        return [explained(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    result = {key: explained(value) for key, value in schema.items()}
    for section in ("properties", "patternProperties"):
        for name, sub in schema.get(section, {}).items():
            if isinstance(sub, Mapping) and "description" in sub:
                result[section][name]["description"] = sentence(sub)
    return result


def sentence(schema: Mapping[str, Any]) -> str:
    """What a value means, what is expected of it and what it is if left out, in one sentence."""
    text = str(schema["description"]).rstrip(".")
    facts = [_expected(schema)] if _expected(schema) else []
    if schema.get("default") not in (None, {}, []):
        facts.append(f"{_word(schema['default'])} if left out")
    told = f"{text} ({'; '.join(facts)})" if facts else text
    return f"{told[:1].upper()}{told[1:]}."


def _expected(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"one of {', '.join(map(_word, schema['enum']))}"
    if schema.get("type") not in ("number", "integer", "boolean"):
        return ""
    limits = [
        f"{words} {_word(schema[key])}"
        for key, words in (
            ("exclusiveMinimum", "above"),
            ("minimum", "of at least"),
            ("exclusiveMaximum", "below"),
            ("maximum", "of at most"),
        )
        if key in schema
    ]
    return " ".join([TYPE_WORDS[schema["type"]], " and ".join(limits)]).rstrip()


def _word(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_word, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_word(item)}" for key, item in value.items()) + "}"
    return str(value)
