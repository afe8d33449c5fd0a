"""What to do about a value that does not fit its schema: what a person meant who wrote it so."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from charrun.spec.words import TYPE_WORDS, as_slug, listed, nearest, shown, suggest

MERGE = "<<"
NO_MERGE = "YAML 1.2 has no merge key: write the keys out, or use an alias for the whole value"

_NUMBER, _WHOLE = TYPE_WORDS["number"], TYPE_WORDS["integer"]
_PLAIN_NUMBER = re.compile(r"[-+]?[0-9_]+(\.[0-9_]*)?\Z")
_COMMA = re.compile(r"([-+]?[0-9]+),([0-9]+)\Z")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%\Z")


def of_type(words: Collection[str], value: Any, schema: Mapping[str, Any], root: bool) -> str:
    """A hint for a value of the wrong type; empty where the message says it all.

    Args:
        words: What is expected, in words.
        value: What is there.
        schema: The schema that expects it.
        root: Whether it is a whole file.
    """
    wanted = set(words)
    if isinstance(value, str) and {_NUMBER, _WHOLE} & wanted:
        return _number(value, whole=_NUMBER not in wanted)
    if isinstance(value, float) and _WHOLE in wanted and value.is_integer() and abs(value) < 1 << 53:
        return f"write {int(value)}"
    if isinstance(value, str) and TYPE_WORDS["boolean"] in wanted:
        return "yes, no, on and off are text in YAML 1.2"
    if isinstance(value, bool | int | float) and TYPE_WORDS["string"] in wanted:
        return "put text in quotes"
    if wanted == {TYPE_WORDS["object"]}:
        return "the file is made of lines such as 'version: 1'" if root else _mapping(schema)
    if wanted == {TYPE_WORDS["array"]} and value is not None:
        return "write a list, in brackets or with '- ' before each item"
    return ""


def _number(text: str, whole: bool) -> str:
    if _PLAIN_NUMBER.match(text):
        return "write a number without quotes, leading zeros and underscores"
    if (found := _COMMA.match(text)) and not whole:
        return f"decimals have a point: {found[1]}.{found[2]}"
    if (found := _PERCENT.match(text)) and not whole:
        return f"write {float(found[1]) / 100:g}"
    if any(character.isdigit() for character in text):
        return "write digits alone, such as 16" if whole else "write a number such as 0.1 or 1e-4"
    return ""


def _mapping(schema: Mapping[str, Any]) -> str:
    keys = schema.get("required") or list(schema.get("properties", {}))[:1]
    return f"write {{{', '.join(f'{key}: ...' for key in keys)}}}" if keys else "write keys and values: {key: value}"


def of_key(key: str, known: Collection[str], patterns: Collection[str], what: str) -> str:
    """A hint for an unknown key.

    Args:
        key: The key.
        known: The keys that there are.
        patterns: Patterns of further ones.
        what: What they are called: `key` or `option`.
    """
    first, _, rest = key.partition(":")
    if key == MERGE:
        return NO_MERGE
    if rest and first in known:
        return f"write '{first}: {rest}', with a space after the colon"
    if "${" in key:
        return "references stand in values, not in keys"
    if key.startswith("x") and "^x-" in patterns and not nearest(key, known):
        return "free notes go under keys that begin with 'x-'"
    return suggest(key, known, f"{what}s")


def of_missing(key: str, schema: Mapping[str, Any]) -> str:
    """A hint for a key that is missing."""
    if "const" in schema:
        return f"add '{key}: {schema['const']}'"
    return f"{key}: {schema['description']}" if "description" in schema else ""


def of_value(validator: str, value: Any, limit: Any, schema: Mapping[str, Any]) -> str:
    """A hint for a value of the right type that is not allowed."""
    if validator == "enum" and isinstance(value, str):
        return suggest(value, [str(one) for one in limit], "values")
    if validator == "pattern" and isinstance(value, str):
        near = as_slug(value)
        if near and re.search(limit, near):
            return f"such as {near}"
        return str(schema.get("description", "")).rstrip(".") if is_sentence(schema) else ""
    return ""


def is_sentence(schema: Mapping[str, Any]) -> bool:
    """Whether a schema's description is a sentence of its own, and no words for `expected ...`."""
    description = str(schema.get("description", ""))
    return description[:1].isupper() or description.endswith(".")


def expectation(validator: str, limit: Any, schema: Mapping[str, Any]) -> str:
    """What a schema wants of a value, in words."""
    many = _MANY.get(validator)
    if many is not None:
        one, more = many
        return one if limit == 1 and one else more.format(limit)
    match validator:
        case "const":
            return shown(limit)
        case "enum":
            return listed([shown(value) for value in limit])
        case "pattern" if "description" in schema and not is_sentence(schema):
            return str(schema["description"])
        case "pattern":
            return f"text that matches {limit}"
        case _:
            return f"a value that satisfies {validator}: {shown(limit)}"


_MANY = {
    "minimum": ("", "at least {}"),
    "exclusiveMinimum": ("", "more than {}"),
    "maximum": ("", "at most {}"),
    "exclusiveMaximum": ("", "less than {}"),
    "minItems": ("at least one item", "at least {} items"),
    "maxItems": ("at most one item", "at most {} items"),
    "minLength": ("some text", "at least {} characters"),
    "maxLength": ("at most one character", "at most {} characters"),
    "minProperties": ("at least one entry", "at least {} entries"),
    "maxProperties": ("at most one entry", "at most {} entries"),
}
