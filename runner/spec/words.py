"""How values and suggestions are worded in problems."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

_LONGEST = 60

TYPE_WORDS = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}
"""JSON Schema's types in words."""
_MOST = 100
_LISTED = 40


def shown(value: Any) -> str:
    """A value as a message names it: text in quotes and escaped, lists and mappings by what they are."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str) and len(value) > _LONGEST:
        value = value[: _LONGEST - 1] + "…"
    return repr(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that `word` was probably meant to be; empty if none is near."""
    names = [name for name in known if name != word]
    # Comparing takes its time: a file of mistakes must not take minutes.
    matches = difflib.get_close_matches(word[:200], names, n=1, cutoff=0.6) if len(names) <= _MOST else []
    return matches[0] if matches else ""


def suggest(word: str, known: Iterable[str], what: str) -> str:
    """A hint for an unknown word: the near one, else all of them."""
    names = sorted(known)
    if match := nearest(word, names):
        return f"did you mean {match!r}?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"known {what}: {', '.join(map(plainly, names[:_LISTED]))}{more}" if names else f"no {what} are known"


def plainly(word: str) -> str:
    """A word as it is, in quotes and escaped where it would not look like one word."""
    clear = word.isprintable() and word.strip() == word != "" and ", " not in word and len(word) <= _LONGEST
    return word if clear else shown(word)


def listed(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *front, last = list(words)
    return f"{', '.join(front)} or {last}" if front else last


def slug(text: str) -> str:
    """The last part of a model's name or a path as a slug: `Qwen/Qwen3.5-4B` is `qwen3-5-4b`."""
    last = text.rstrip("/").rsplit("/", 1)[-1].lower()
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:64].rstrip("-") or "model"
