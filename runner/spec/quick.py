"""Whether data is valid, told without jsonschema where that is easily seen.

Nearly every spec that is read is sound. jsonschema takes 90 ms to import and milliseconds per spec to say so; it is
needed only to say what is wrong. So this says yes, or that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Shipped = Callable[[str], Mapping[str, Any]]
_Schema = Mapping[str, Any]
_Check = Callable[..., bool]

_SUFFIX = ".schema.json"
_DEEPEST = 200
_TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: type(value) is int,
    "boolean": lambda value: isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
}
_SAYS_NOTHING = {
    "$schema", "$id", "title", "description", "default", "examples", "definitions", "$comment", "format",
    "additionalItems",
}  # fmt: skip


class _Unsure(Exception):
    """The schema has something in it that is for jsonschema to judge."""


def surely_valid(instance: Any, schema: _Schema, shipped: Shipped) -> bool:
    """Whether `instance` certainly satisfies a draft-07 schema; False also where that is not clear.

    Args:
        instance: Plain data.
        schema: The schema.
        shipped: Gives the schema that a reference to `NAME.schema.json` means.
    """
    try:
        return _valid(instance, schema, (schema, shipped), 0)
    except (_Unsure, KeyError, TypeError, ValueError, AttributeError, re.error):
        return False


_Context = tuple[_Schema, Shipped]


def _valid(value: Any, schema: Any, context: _Context, depth: int) -> bool:
    if depth > _DEEPEST or not isinstance(schema, Mapping):
        raise _Unsure
    if "$ref" in schema:
        target, context = _target(schema["$ref"], context)
        return _valid(value, target, context, depth + 1)
    for keyword, limit in schema.items():
        if keyword in _SAYS_NOTHING:
            continue
        check = _KEYWORDS.get(keyword)
        if check is None:
            raise _Unsure
        if not check(value, limit, schema, context, depth + 1):
            return False
    return True


def _target(ref: str, context: _Context) -> tuple[Any, _Context]:
    document, _, pointer = ref.partition("#")
    root, shipped = context
    if document:
        if not document.endswith(_SUFFIX) or "/" in document:
            raise _Unsure
        root = shipped(document.removesuffix(_SUFFIX))
    target: Any = root
    for step in pointer.split("/")[1:]:
        target = target[step]
    return target, (root, shipped)


def _type(value: Any, limit: Any, *_: Any) -> bool:
    return any(_TYPES[name](value) for name in ([limit] if isinstance(limit, str) else limit))


def _properties(value: Any, limit: _Schema, schema: _Schema, context: _Context, depth: int) -> bool:
    if not isinstance(value, dict):
        return True
    return all(_valid(value[key], sub, context, depth) for key, sub in limit.items() if key in value)


def _pattern_properties(value: Any, limit: _Schema, schema: _Schema, context: _Context, depth: int) -> bool:
    if not isinstance(value, dict):
        return True
    return all(
        _valid(item, sub, context, depth)
        for pattern, sub in limit.items()
        for key, item in value.items()
        if re.search(pattern, key)
    )


def _additional(value: Any, limit: Any, schema: _Schema, context: _Context, depth: int) -> bool:
    if not isinstance(value, dict):
        return True
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    rest = [key for key in value if key not in known and not any(re.search(pattern, key) for pattern in patterns)]
    if isinstance(limit, bool):
        return limit or not rest
    return all(_valid(value[key], limit, context, depth) for key in rest)


def _items(value: Any, limit: Any, schema: _Schema, context: _Context, depth: int) -> bool:
    return not isinstance(value, list) or all(_valid(item, limit, context, depth) for item in value)


def _names(value: Any, limit: Any, schema: _Schema, context: _Context, depth: int) -> bool:
    return not isinstance(value, dict) or all(_valid(key, limit, context, depth) for key in value)


def _any_of(value: Any, limit: Any, schema: _Schema, context: _Context, depth: int) -> bool:
    return any(_valid(value, sub, context, depth) for sub in limit)


def _all_of(value: Any, limit: Any, schema: _Schema, context: _Context, depth: int) -> bool:
    return all(_valid(value, sub, context, depth) for sub in limit)


def _unique(value: Any, limit: bool, *_: Any) -> bool:
    if not limit or not isinstance(value, list):
        return True
    if not all(isinstance(item, str) for item in value):
        raise _Unsure
    return len(set(value)) == len(value)


def _constant(value: Any, limit: Any, *_: Any) -> bool:
    return type(value) is type(limit) and not isinstance(value, dict | list) and bool(value == limit)


def _among(value: Any, limit: Any, *_: Any) -> bool:
    return any(_constant(value, one) for one in limit)


def _number(holds: Callable[[Any, Any], bool]) -> _Check:
    return lambda value, limit, *_: not _TYPES["number"](value) or holds(value, limit)


def _sized(kind: type[str] | type[list[Any]] | type[dict[str, Any]], holds: Callable[[int, int], bool]) -> _Check:
    return lambda value, limit, *_: not isinstance(value, kind) or holds(len(value), limit)


_KEYWORDS: dict[str, _Check] = {
    "type": _type,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional,
    "required": lambda value, limit, *_: not isinstance(value, dict) or all(key in value for key in limit),
    "propertyNames": _names,
    "items": _items,
    "uniqueItems": _unique,
    "anyOf": _any_of,
    "allOf": _all_of,
    "const": _constant,
    "enum": _among,
    "pattern": lambda value, limit, *_: not isinstance(value, str) or re.search(limit, value) is not None,
    "minimum": _number(lambda value, limit: value >= limit),
    "maximum": _number(lambda value, limit: value <= limit),
    "exclusiveMinimum": _number(lambda value, limit: value > limit),
    "exclusiveMaximum": _number(lambda value, limit: value < limit),
    "minLength": _sized(str, lambda size, limit: size >= limit),
    "maxLength": _sized(str, lambda size, limit: size <= limit),
    "minItems": _sized(list, lambda size, limit: size >= limit),
    "maxItems": _sized(list, lambda size, limit: size <= limit),
    "minProperties": _sized(dict, lambda size, limit: size >= limit),
    "maxProperties": _sized(dict, lambda size, limit: size <= limit),
}
