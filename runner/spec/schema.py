"""JSON Schema over a document: every error at its own place, in plain words, with a suggestion.

The schemas are draft-07. Nothing is ever retrieved: a `$ref` leads into the same schema or to a shipped one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from charrun.errors import PluginError, Problem
from charrun.spec import hints
from charrun.spec.document import Document, KeyPath
from charrun.spec.quick import surely_valid
from charrun.spec.words import TYPE_WORDS, listed, nearest, plainly, shown

# A jsonschema ValidationError. Its own types allow for parts that are unset, which none that is raised has.
_Error = Any

_SCHEMAS = ("spec", "character", "scale", "preset", "arm")


@dataclass(frozen=True)
class Finding:
    """A problem and the path of the data that it is about."""

    path: KeyPath
    problem: Problem


@dataclass(frozen=True)
class Subject:
    """What a schema describes, for the words of its problems.

    Attributes:
        key: What a key is called: `key`, or `option` in the options of a plugin.
        owner: Whose keys they are, such as `for stage 'dpo'`; may be empty.
        unknown_code: The code of an unknown key.
    """

    key: str = "key"
    owner: str = ""
    unknown_code: str = "SPEC013"

    def name(self, key: str) -> str:
        """The key as a message names it."""
        return f"{self.key} {shown(key)}" + (f" {self.owner}" if self.owner else "")


KEYS = Subject()


def options_of(kind: str, name: str) -> Subject:
    """The options of the stage or engine `name`."""
    return Subject("option", f"for {kind} {name!r}", "SPEC012")


@cache
def shipped_schema(name: str) -> dict[str, Any]:
    """The shipped schema `spec`, `character`, `scale`, `preset` or `arm`: what a file holds once its layers are merged.

    References between them are by the names `NAME.schema.json`.
    """
    text = files("charrun.spec").joinpath("core", f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def check(document: Document, schema: Mapping[str, Any], at: KeyPath = (), subject: Subject = KEYS) -> list[Problem]:
    """Every problem of the data at `at` against a draft-07 schema.

    Raises:
        PluginError: If the schema itself is not valid or refers to something that is not at hand.
    """
    return [finding.problem for finding in find(document, document.at(at), schema, at, subject)]


def find(
    document: Document, instance: Any, schema: Mapping[str, Any], at: KeyPath = (), subject: Subject = KEYS
) -> list[Finding]:
    """Like `check`, with paths, and of an `instance` that the file may leave out at `at`."""
    if surely_valid(instance, schema, shipped_schema):
        return []
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    teller = _Teller(document, at, subject)
    try:
        validator = _validator(schema)
        for error in validator.iter_errors(instance):
            for leaf in _leaves(error):
                teller.tell(leaf)
    except (SchemaError, Unresolvable, RecursionError) as error:
        what = f"the schema {subject.owner}".rstrip()
        raise PluginError(f"{what} is not usable: {str(error).splitlines()[0]}") from error
    return teller.findings()


def with_defaults(schema: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `options` with the schema's defaults filled in, also in mappings within."""
    filled = {key: _copy(value) for key, value in options.items()}
    for key, sub in schema.get("properties", {}).items():
        if key not in filled and "default" in sub:
            filled[key] = _copy(sub["default"])
        if isinstance(filled.get(key), dict) and "properties" in sub:
            filled[key] = with_defaults(sub, filled[key])
    return filled


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list | tuple) else value


def _validator(schema: Mapping[str, Any]) -> Any:
    return _validator_of(json.dumps(schema, sort_keys=True, default=dict))


@cache
def _validator_of(text: str) -> Any:
    """Kept by the schema's text: checking a schema takes longer than checking a spec with it."""
    schema = json.loads(text)
    cls = _validator_class()
    cls.check_schema(schema)
    return cls(schema, registry=_registry())


@cache
def _validator_class() -> Any:
    from jsonschema import Draft7Validator, validators

    # 16.0 is not a whole number here: it would be another value in a fingerprint than 16.
    whole = Draft7Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return validators.extend(Draft7Validator, type_checker=whole)  # type: ignore[no-untyped-call]


@cache
def _registry() -> Any:
    from referencing import Registry, Resource
    from referencing.jsonschema import DRAFT7

    schemas = [(f"{name}.schema.json", shipped_schema(name)) for name in _SCHEMAS]
    resources = [(uri, Resource.from_contents(schema, DRAFT7)) for uri, schema in schemas]
    return Registry().with_resources(resources)


def _leaves(error: _Error) -> Iterator[_Error]:
    """The errors to tell: those of the branch that the value was meant for, or the choice itself."""
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield error
        return
    branches: dict[Any, list[_Error]] = {}
    for child in error.context:
        branches.setdefault(child.relative_schema_path[0], []).append(child)
    fitting = [errors for errors in branches.values() if not any(map(_is_own_type, errors))]
    if not fitting:
        yield error
        return
    for child in min(fitting, key=len):
        yield from _leaves(child)


def _is_own_type(error: _Error) -> bool:
    """Whether the value as a whole is of a type that the branch does not take."""
    return error.validator == "type" and not error.relative_path


@dataclass
class _Teller:
    """Turns jsonschema's errors into findings, each once."""

    document: Document
    at: KeyPath
    subject: Subject
    found: dict[tuple[KeyPath, str, str], Finding] = field(default_factory=dict)
    meant: set[tuple[KeyPath, str]] = field(default_factory=set)
    values: dict[KeyPath, Finding] = field(default_factory=dict)
    mistyped: set[KeyPath] = field(default_factory=set)
    missing: dict[tuple[KeyPath, str], Finding] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        """All findings. Of a value of the wrong type nothing else is told; no key is missing that is misspelled."""
        rest = [finding for key, finding in self.missing.items() if key not in self.meant]
        return [*self.found.values(), *(self.values[path] for path in self.values if path not in self.mistyped), *rest]

    def tell(self, error: _Error) -> None:
        """Note the findings of one error."""
        path: KeyPath = (*self.at, *error.absolute_path)
        if hints.MERGE in error.absolute_path:
            return
        if error.validator == "additionalProperties" and error.validator_value is False:
            self.unknown_keys(path, error)
        elif error.validator == "required":
            self.missing_keys(path, error)
        elif "propertyNames" in error.absolute_schema_path and isinstance(error.instance, str):
            self.wrong_name(path, error)
        elif error.validator == "type":
            self.wrong_type(path, _as_list(error.validator_value), error)
        elif error.validator in ("anyOf", "oneOf") and error.context:
            types = [name for e in error.context if _is_own_type(e) for name in _as_list(e.validator_value)]
            self.wrong_type(path, types, error)
        else:
            self.wrong_value(path, error)

    def unknown_keys(self, path: KeyPath, error: _Error) -> None:
        known = error.schema.get("properties", {})
        patterns = error.schema.get("patternProperties", {})
        for key in error.instance:
            if key in known or any(re.search(pattern, key) for pattern in patterns):
                continue
            self.meant.add((path, nearest(key, known)))
            hint = hints.of_key(key, known, patterns, self.subject.key)
            message = f"unknown {self.subject.name(key)}"
            self.note((*path, key), self.subject.unknown_code, message, hint, on_key=True)

    def missing_keys(self, path: KeyPath, error: _Error) -> None:
        for key in error.validator_value:
            if key in error.instance or hints.MERGE in error.instance:
                continue
            known = error.schema.get("properties", {})
            near = nearest(key, [other for other in error.instance if other not in known])
            hint = f"did you mean it by {near!r}?" if near else hints.of_missing(key, known.get(key, {}))
            message = f"missing {self.subject.name(key)}"
            if (by := self.document.removed.get((*path, key))) is not None:
                problem = by.problem("SPEC015", f"{message}, which is removed here", hint)
            else:
                problem = self.document.problem("SPEC015", message, path, hint)
            self.missing[path, key] = Finding(path, problem)

    def wrong_name(self, path: KeyPath, error: _Error) -> None:
        message = f"{self.subject.name(error.instance)} is not allowed: expected {_expectation(error)}"
        code, hint = "SPEC016", hints.of_value(error.validator, error.instance, error.validator_value, error.schema)
        if error.instance == hints.MERGE:
            code, message, hint = "SPEC013", f"unknown {self.subject.name(error.instance)}", hints.NO_MERGE
        self.note((*path, error.instance), code, message, hint, on_key=True)

    def wrong_type(self, path: KeyPath, types: Sequence[str], error: _Error) -> None:
        words = [TYPE_WORDS[name] for name in dict.fromkeys(types)]
        self.mistyped.add(path)
        hint = hints.of_type(words, error.instance, error.schema, not path)
        self.note(path, "SPEC014", f"expected {listed(words)}, got {shown(error.instance)}", hint)

    def wrong_value(self, path: KeyPath, error: _Error) -> None:
        value = error.instance
        if path == ("version",):
            wanted = _expectation(error)
            message = f"version {plainly(str(value))} of the format is not known" if value is not None else "no version"
            hint = f"write {wanted}" if value is None or str(value) == wanted else f"write {wanted}, or update charrun"
            self.note(path, "SPEC017", message, hint)
        elif error.validator == "uniqueItems":
            index = next(i for i, item in enumerate(value) if item in value[:i])
            self.note((*path, index), "SPEC016", f"{shown(value[index])} is listed twice", "remove one of them")
        else:
            hint = hints.of_value(error.validator, value, error.validator_value, error.schema)
            message = f"expected {_expectation(error)}, got {shown(value)}"
            self.values[path] = Finding(path, self.document.problem("SPEC016", message, path, hint))

    def note(self, path: KeyPath, code: str, message: str, hint: str = "", on_key: bool = False) -> None:
        problem = self.document.problem(code, message, path, hint, "key" if on_key else "value")
        self.found[path, code, message] = Finding(path, problem)


def _expectation(error: _Error) -> str:
    return hints.expectation(error.validator, error.validator_value, error.schema)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
