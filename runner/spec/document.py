"""What YAML files say, as nodes and as plain data, with the place of every key and value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from charrun.errors import Problem

KeyPath = tuple[str | int, ...]
Part = Literal["key", "value"]
Severity = Literal["error", "warning"]

_LONGEST_LINE = 2000

UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Also what turns the order of characters round: a line must look like what it says.
_UNSHOWABLE = re.compile(f"{UNPRINTABLE.pattern}|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Mark:
    """Where something is written: 1-based line and column, and the number of columns that it takes there."""

    line: int
    column: int
    width: int = 1


@dataclass(frozen=True)
class Source:
    """One text that data comes from.

    Attributes:
        name: What problems call it: a file as the user wrote it, `builtin:NAME` or `--set #2`.
        path: The file; `None` for a text of the command line, whose paths are relative to the working directory.
        lines: Its lines.
    """

    name: str
    path: Path | None = None
    lines: tuple[str, ...] = ()

    def problem(self, mark: Mark, code: str, message: str, hint: str = "", severity: Severity = "error") -> Problem:
        """A problem at `mark`, with the line that holds it made fit for a terminal."""
        line = self.lines[mark.line - 1] if mark.line <= len(self.lines) else ""
        if mark.column > _LONGEST_LINE:
            line = ""
        line = _UNSHOWABLE.sub("?", line[:_LONGEST_LINE].replace("\t", " "))
        return Problem(code, message, self.name, mark.line, mark.column, hint, line, mark.width, severity)


@dataclass
class Node:
    """A scalar, a list of nodes or a mapping (key to key node and value node). Nodes are shared: never change one.

    Attributes:
        value: The scalar, `list[Node]` or `dict[str, tuple[Node, Node]]`.
        mark: Its place; an alias's own, not that of what it names.
        source: The text that the place is in.
        size: Values in it with every alias expanded; long text counts for more.
        height: Levels of lists and mappings in it, aliases expanded.
        via: The name of the variable that the value was taken from, and its node there.
    """

    value: Any
    mark: Mark
    source: Source
    size: int = 1
    height: int = 0
    via: tuple[str, Node] | None = None

    @property
    def place(self) -> tuple[str, int, int]:
        """Source, line and column: what tells this node from others."""
        return self.source.name, self.mark.line, self.mark.column

    def problem(self, code: str, message: str, hint: str = "", severity: Severity = "error") -> Problem:
        """A problem with this node; where the value is a variable's, the hint says so."""
        if self.via is not None:
            name, declared = self.via
            origin = f"the value of vars.{name}, in {declared.source.name}:{declared.mark.line}"
            hint = f"{hint} ({origin})" if hint else origin
        return self.source.problem(self.mark, code, message, hint, severity)


@dataclass(frozen=True)
class Document:
    """Plain data (`dict`, `list`, `str`, `int`, `float`, `bool`, `None`) and where it is written.

    Attributes:
        name: The file as the user wrote it.
        path: The file.
        data: The plain data; aliases are expanded, so nothing in it is shared.
        root: The same with places, which may be in several sources.
        problems: What is wrong in the sources, but leaves data to go on with (a duplicate key, for instance).
        spoiled: Places of values that stand for what could not be read; they are not judged as well.
        sources: All sources, the file first.
        removed: Keys of bases that a null has removed, each with the node that says so.
    """

    name: str
    path: Path
    data: Any
    root: Node
    problems: tuple[Problem, ...] = ()
    spoiled: frozenset[tuple[str, int, int]] = field(default=frozenset())
    sources: tuple[Source, ...] = ()
    removed: Mapping[KeyPath, Node] = field(default_factory=dict)

    def at(self, path: KeyPath) -> Any:
        """The data at `path`; raises `KeyError` or `IndexError` where there is none."""
        data = self.data
        for key in path:
            data = data[key]
        return data

    def node(self, path: KeyPath, on: Part = "value") -> Node:
        """The node of `path`, or of the nearest thing around it that is written somewhere."""
        key = value = self.root
        for step in path:
            if isinstance(value.value, dict) and step in value.value:
                key, value = value.value[step]
            elif isinstance(value.value, list) and isinstance(step, int) and 0 <= step < len(value.value):
                key = value = value.value[step]
            else:
                break
        return key if on == "key" else value

    def mark(self, path: KeyPath, on: Part = "value") -> Mark:
        """The place of `path` in its source."""
        return self.node(path, on).mark

    def problem(
        self, code: str, message: str, path: KeyPath, hint: str = "", on: Part = "value", severity: Severity = "error"
    ) -> Problem:
        """A problem at the key or value of `path`."""
        return self.node(path, on).problem(code, message, hint, severity)


def plain(node: Node) -> Any:
    """The node as plain data of its own."""
    value = node.value
    if isinstance(value, dict):
        return {name: plain(entry[1]) for name, entry in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value
