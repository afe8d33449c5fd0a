"""How values and suggestions are worded in problems."""

from __future__ import annotations

import difflib
import re
import unicodedata
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
    names = {_folded(name): name for name in known if name != word}
    folded = _folded(word[:_LONGEST])
    # Comparing takes its time: a file of mistakes must not take minutes.
    if folded in names or len(names) > _MOST:
        return names.get(folded, "")
    if matches := difflib.get_close_matches(folded, names, n=1, cutoff=0.65):
        return names[matches[0]]
    # A part of a name, such as `rank` of `lora_rank`.
    parts = [name for key, name in names.items() if folded in key.replace("-", "_").split("_")]
    return parts[0] if len(parts) == 1 else ""


def _folded(word: str) -> str:
    """A word with what fingers and input methods mix up made the same: case, and full-width letters."""
    return word if word.isascii() and word.islower() else unicodedata.normalize("NFKC", word).casefold()


def suggest(word: str, known: Iterable[str], what: str) -> str:
    """A hint for an unknown word: the near one, else all of them."""
    names = sorted(set(known))
    if match := nearest(word, names):
        return f"did you mean {match!r}?"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"known {what}: {', '.join(map(plainly, names[:_LISTED]))}{more}" if names else f"there are no {what}"


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
    return as_slug(text.rstrip("/").rsplit("/", 1)[-1]) or "model"


def as_slug(text: str) -> str:
    """A text as a slug that is near to it: `My Run` is `my-run`; empty if none of its characters can be kept."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:64].rstrip("-")
