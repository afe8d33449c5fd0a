"""One file as plain data, with the place of every key and value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from charrun.errors import Problem

KeyPath = tuple[str | int, ...]

_WIDEST = 200

UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Mark:
    """Where something is written: 1-based line and column, and the number of columns that it takes there."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True)
class Document:
    """One YAML file as plain data (`dict`, `list`, `str`, `int`, `float`, `bool`, `None`).

    Attributes:
        name: The file as the user wrote it; problems are told under this name.
        path: The file.
        data: The plain data; aliases are expanded, so nothing in it is shared.
        marks: For each path of keys and indexes the places of its key (in a list, of the item) and value.
        lines: The file's lines.
        problems: What is wrong in the file, but leaves data to go on with (a duplicate key, for instance).
    """

    name: str
    path: Path
    data: Any
    marks: Mapping[KeyPath, tuple[Mark, Mark]]
    lines: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def at(self, path: KeyPath) -> Any:
        """The data at `path`; raises `KeyError` or `IndexError` where there is none."""
        data = self.data
        for key in path:
            data = data[key]
        return data

    def mark(self, path: KeyPath, on: Literal["key", "value"] = "value") -> Mark:
        """The place of `path`, or of the nearest thing around it that is written in the file."""
        while path and path not in self.marks:
            path = path[:-1]
        key, value = self.marks.get(path, (Mark(1, 1), Mark(1, 1)))
        return key if on == "key" else value

    def problem(
        self, code: str, message: str, path: KeyPath, hint: str = "", on: Literal["key", "value"] = "value"
    ) -> Problem:
        """A problem at the key or value of `path`."""
        return problem_at(self.name, self.lines, self.mark(path, on), code, message, hint)


def problem_at(name: str, lines: tuple[str, ...], mark: Mark, code: str, message: str, hint: str = "") -> Problem:
    """A problem at `mark`, with the line that holds it made fit for a terminal."""
    source = lines[mark.line - 1] if mark.line <= len(lines) else ""
    source = UNPRINTABLE.sub("?", source.replace("\t", " "))
    if len(source) > _WIDEST:
        # A caret far out to the right shows nothing; a line without its caret's column shows no more.
        source = source[:_WIDEST] + "…" if mark.column <= _WIDEST else ""
    return Problem(code, message, name, mark.line, mark.column, hint, source, mark.width)
