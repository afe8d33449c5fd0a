"""A run's events as JSON, one object a line, and the schema that every line keeps to."""

from __future__ import annotations

import json
import re
import time
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from charrun import events
from charrun.pipeline.observers import HOOKS

EVENTS_VERSION = 1
_PROGRESS_SECONDS = 1.0


class EventLines:
    """Writes events as lines of JSON; progress at most once a second for each stage.

    Args:
        write: Takes one line without its newline.
        verbose: Whether to write every stored response too.
    """

    def __init__(self, write: Callable[[str], Any], verbose: bool = False) -> None:
        self._write = write
        self._progressed: dict[tuple[str, str], float] = {}
        for kind, hook in HOOKS.items():
            if verbose or kind is not events.RowStored:
                setattr(self, hook, self._tell)

    def _tell(self, event: events.Event) -> None:
        if isinstance(event, events.StageProgressed):
            place, now = (event.cell, event.stage), time.monotonic()
            if now - self._progressed.get(place, 0.0) < _PROGRESS_SECONDS:
                return
            self._progressed[place] = now
        self._write(json.dumps(plain(event), ensure_ascii=False))


def plain(event: events.Event) -> dict[str, Any]:
    """An event as JSON types: `v`, `time` (seconds since 1970), `event`, and the event's own fields."""
    own = {field.name: _plain(getattr(event, field.name)) for field in fields(event)}
    return {"v": EVENTS_VERSION, "time": round(time.time(), 3), "event": _name(type(event)), **own}


def event_schema() -> dict[str, Any]:
    """Draft-07 schema of one line."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A line of `charrun run --json`",
        "description": "What happens in a run, one JSON object a line.",
        "oneOf": [_schema(kind) for kind in HOOKS],
    }


def _schema(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    own = {field.name: _type(hints[field.name]) for field in fields(kind)}
    for name, text in _described(kind).items():
        own[name] = {"description": text, **own[name]}
    head = {
        "v": {"const": EVENTS_VERSION},
        "time": {"description": "seconds since 1970", "type": "number"},
        "event": {"const": _name(kind)},
    }
    return {
        "title": _name(kind),
        "description": (kind.__doc__ or "").splitlines()[0],
        "type": "object",
        "additionalProperties": False,
        "required": [*head, *own],
        "properties": {**head, **own},
    }


def _described(kind: type[Any]) -> dict[str, str]:
    """What the class's docstring says of each attribute."""
    _, _, listed = (kind.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in re.findall(r"^ {8}(\w+): (.+(?:\n {12}.+)*)", listed, re.M)}


def _type(hint: Any) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0])}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _type(arguments[1])}
    if isinstance(hint, types.UnionType):
        raise TypeError(f"events have no unions: {hint}")
    names = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean"}
    return {"type": names[hint]}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _name(kind: type[Any]) -> str:
    return HOOKS[kind].removeprefix("charrun_")
