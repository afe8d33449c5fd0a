"""What a file is by its keys: a spec, a character, a scale or a table of scales."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OF_SPECS = {"extends", "characters", "models", "scales", "stages"}
OF_CHARACTERS = {"id", "description", "traits"}
OF_SCALES = {"pairs", "reflections", "interactions", "turns"}


def other_kind(entries: Mapping[str, tuple[Any, Any]], wanted: str) -> str:
    """What a mapping's nodes clearly describe, if it is not what is wanted: `a spec`; empty otherwise.

    One key of the wanted kind is enough to take the rest for mistakes.
    """
    own = {"spec": OF_SPECS, "character": OF_CHARACTERS, "scale": OF_SCALES}
    if own[wanted] & entries.keys() - _shared(own, wanted):
        return ""
    for kind, keys in own.items():
        if kind != wanted and len(keys & entries.keys()) > 1:
            return f"a {kind}"
    values = [value.value for _, value in entries.values()]
    tables = [value for value in values if isinstance(value, dict) and len(value.keys() & OF_SCALES) > 1]
    return "a table of scales" if tables and len(tables) == len(values) else ""


def _shared(own: Mapping[str, Iterable[str]], wanted: str) -> set[str]:
    """Keys of a kind that other kinds have too."""
    return {key for kind, keys in own.items() if kind != wanted for key in keys}
