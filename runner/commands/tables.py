"""Tables whose long cells are wrapped, and an option's schema in words."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from charrun.report.columns import screen_width, wide
from charrun.report.text import safe
from charrun.spec.words import TYPE_WORDS

_GAP = "  "
_NARROWEST = 10
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "{} or more of them",
    "maxItems": "{} of them at most",
    "pattern": "matching {}",
}


def wrapped_table(rows: Sequence[Sequence[str]], wrap: Collection[int], width: int = 0) -> list[str]:
    """Rows as aligned lines, none wider than the terminal as far as wrapping can do it.

    Args:
        rows: The heading first. A cell may hold several lines; untrusted text is made safe.
        wrap: Indexes of the columns whose cells may be wrapped; the widest of them gives way first.
        width: Columns of the terminal; by default those of the one that is there, 80 where there is none.
    """
    cells = [[[safe(line) for line in cell.splitlines()] or [""] for cell in row] for row in rows]
    widths = [max(wide(line) for row in cells for line in row[column]) for column in range(len(cells[0]))]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - (width or screen_width())
    while over > 0 and (widest := max(wrap, key=lambda column: widths[column], default=-1)) >= 0:
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
        over -= 1
    lines = []
    for row in cells:
        parts = [_wrap(cell, size) for cell, size in zip(row, widths, strict=True)]
        for index in range(max(map(len, parts))):
            pieces = [part[index] if index < len(part) else "" for part in parts]
            padded = [piece + " " * (size - wide(piece)) for piece, size in zip(pieces, widths, strict=True)]
            lines.append(_GAP.join(padded).rstrip())
    return lines


def _wrap(lines: Sequence[str], width: int) -> list[str]:
    return [piece for line in lines for piece in textwrap.wrap(line, width) or [""]]


def paragraph(text: str, indent: str = "") -> str:
    """Text wrapped to the terminal."""
    return textwrap.fill(safe(text), screen_width(), initial_indent=indent, subsequent_indent=indent)


def value_words(schema: Mapping[str, Any]) -> str:
    """What an option takes, such as `a number, more than 0` or `one of chosen, rejected`."""
    if "const" in schema:
        return _plain(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(map(_plain, schema["enum"]))
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return ", or ".join(value_words(sub) for sub in schema[choice])
    types = schema.get("type", [])
    words = (
        " or ".join(TYPE_WORDS.get(name, name) for name in ([types] if isinstance(types, str) else types)) or "anything"
    )
    if words == "a list" and isinstance(schema.get("items"), Mapping):
        words += f" of {value_words(schema['items'])}"
    limits = [text.format(_plain(schema[key])) for key, text in _LIMITS.items() if key in schema]
    return ", ".join([words, *limits])


def default_words(schema: Mapping[str, Any], required: bool = False) -> str:
    """An option's default as a spec would write it."""
    if "default" in schema:
        return _plain(schema["default"])
    return "required" if required else "-"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)
