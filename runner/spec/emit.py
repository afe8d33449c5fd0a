"""Plain data as YAML that reads back as the same data, with a comment on each value if wanted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from charrun.spec.compose import is_text
from charrun.spec.document import KeyPath

WIDTH = 80
_COMMENT_COLUMN = 46
_PLAIN = re.compile(r"[A-Za-z0-9_./][\w./@+-]*(?:(?::| )[\w./@+-]+)*", re.ASCII)
_BREAKS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}

Comment = Callable[[KeyPath], str]


@dataclass(frozen=True)
class _Line:
    text: str
    comment: str = ""


def emit(data: dict[str, Any], comment: Comment | None = None) -> str:
    """The data as YAML, a list or mapping that holds only scalars in one line where it fits.

    Args:
        data: A mapping of plain data.
        comment: What to say about the value at a path; each value then has a line of its own.
    """
    lines = list(_block(data, (), 0, comment))
    longest = max((len(line.text) for line in lines if line.comment), default=0)
    column = min(longest, _COMMENT_COLUMN) + 2
    return "".join(
        f"{line.text:<{column - 2}}  # {line.comment}\n" if line.comment else f"{line.text}\n" for line in lines
    )


def scalar(value: Any) -> str:
    """A scalar as YAML writes it, text in quotes only where it needs them."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    if _PLAIN.fullmatch(value) and is_text(value):
        return value
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(_BREAKS.get(character, character) for character in quoted)


def _block(value: Any, path: KeyPath, indent: int, comment: Comment | None) -> Iterator[_Line]:
    """The lines of a mapping or list that is not empty."""
    space = " " * indent
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _entry(f"{space}{scalar(key)}:", item, (*path, key), indent + 2, comment)
        return
    for index, item in enumerate(value):
        at = (*path, index)
        if _nested(item, len(space) + 2, comment):
            first, *rest = _block(item, at, indent + 2, comment)
            yield _Line(f"{space}- {first.text[indent + 2 :]}", first.comment)
            yield from rest
        else:
            yield _Line(f"{space}- {_flow(item)}", comment(at) if comment else "")


def _entry(head: str, value: Any, path: KeyPath, indent: int, comment: Comment | None) -> Iterator[_Line]:
    if _nested(value, len(head) + 1, comment):
        yield _Line(head)
        yield from _block(value, path, indent, comment)
    else:
        yield _Line(f"{head} {_flow(value)}", comment(path) if comment else "")


def _nested(value: Any, column: int, comment: Comment | None) -> bool:
    """Whether a value has lines of its own."""
    if not isinstance(value, dict | list) or not value:
        return False
    items = list(value.values()) if isinstance(value, dict) else value
    deep = any(isinstance(item, dict | list) and item for item in items)
    return comment is not None or deep or column + len(_flow(value)) > WIDTH


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return scalar(value)
