"""YAML events to nodes, within limits on depth and on what aliases expand to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from charrun.errors import Problem, SpecError
from charrun.spec.document import UNPRINTABLE, Mark, Node, Source
from charrun.spec.words import plainly, shown

MAX_DEPTH = 64
MAX_NODES = 10_000

_CORE = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_BASED = re.compile(r"0(?:o[0-7]+|x[0-9a-fA-F]+)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NOT_FINITE = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")
_TAGS = ("str", "int", "float", "bool", "null", "seq", "map")
_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass
class Composer:
    """Builds nodes from events, depth first; nothing is expanded before its size is known to be small.

    Attributes:
        source: The text that the events come from.
        line: Its line in which the parsed text begins, 0-based.
        column: The column there, 0-based.
        problems: What is wrong, but does not stop the reading.
        references: Whether some text holds `${`.
        spoiled: Lines and columns of mappings that are empty, since their keys could not be read.
    """

    source: Source
    line: int = 0
    column: int = 0
    references: bool = False
    spoiled: set[tuple[int, int]] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, Node | None] = field(default_factory=dict)
    nodes: int = 0

    def document(self, events: Iterator[yaml.Event]) -> Node | None:
        """The root of the only document, `None` for an empty file."""
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    hint = "one file holds one document: remove '---' and what follows"
                    raise self.refused("SPEC007", "a second document", self.mark(event), hint)
                root = self.node(next(events), events, 0)
        return None if root is None or root.value is None else root

    def node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        """The node that begins with `event`."""
        mark = self.mark(event)
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, mark, depth)
        if depth >= MAX_DEPTH and not isinstance(event, yaml.ScalarEvent):
            raise self.refused("SPEC005", f"nested more than {MAX_DEPTH} levels deep", mark, "write it flatter")
        self.count(1, "SPEC002", f"more than {MAX_NODES:,} values in one file", mark, "keep data in files of their own")
        anchor = getattr(event, "anchor", None)
        if anchor:
            self.anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = Node(self.scalar(event, mark), mark, self.source, 1 + len(event.value) // 64)
        elif isinstance(event, yaml.SequenceStartEvent):
            self.check_tag(event.tag, "seq", mark)
            node = self.sequence(events, mark, depth)
        else:
            assert isinstance(event, yaml.MappingStartEvent)
            self.check_tag(event.tag, "map", mark)
            node = self.mapping(events, mark, depth)
        if anchor:
            self.anchors[anchor] = node
        return node

    def alias(self, event: yaml.AliasEvent, mark: Mark, depth: int) -> Node:
        """The anchored node under the alias's own place, if that does not blow the document up."""
        if event.anchor not in self.anchors:
            hint = f"put '&{event.anchor}' before the value that it stands for; text that begins with '*' needs quotes"
            message = f"not valid YAML: alias '*{event.anchor}' has no anchor before it"
            raise self.refused("SPEC004", message, mark, hint)
        target = self.anchors[event.anchor]
        if target is None:
            hint = "write the value out that is meant"
            raise self.refused("SPEC006", f"alias '*{event.anchor}' stands inside what it names", mark, hint)
        if depth + target.height > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep through aliases"
            raise self.refused("SPEC005", message, mark, "write it flatter")
        hint = "use fewer aliases, or smaller ones"
        self.count(target.size, "SPEC006", f"aliases expand to more than {MAX_NODES:,} values", mark, hint)
        return Node(target.value, mark, self.source, target.size, target.height)

    def sequence(self, events: Iterator[yaml.Event], mark: Mark, depth: int) -> Node:
        items: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self.node(event, events, depth + 1))
        height = max((item.height for item in items), default=0)
        return Node(items, mark, self.source, 1 + sum(item.size for item in items), 1 + height)

    def mapping(self, events: Iterator[yaml.Event], mark: Mark, depth: int) -> Node:
        entries: dict[str, tuple[Node, Node]] = {}
        size, height, lost = 1, 0, False
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key = self.node(event, events, depth + 1)
            value = self.node(next(events), events, depth + 1)
            if not isinstance(key.value, str):
                hint = "put it in quotes"
                if isinstance(key.value, int | float) and value.value is None:
                    hint = "decimals have a point, not a comma; as a key put it in quotes"
                elif isinstance(key.value, dict):
                    hint = "text that begins with '{' needs quotes; a variable is written ${vars.NAME}"
                self.note("SPEC008", f"a key must be text, got {shown(key.value)}", key.mark, hint)
                lost = True
            elif key.value in entries:
                first = entries[key.value][0].mark.line
                where = "in this line" if first == key.mark.line else f"in line {first}"
                hint = f"it is already there {where}: keep one of them"
                self.note("SPEC010", f"duplicate key {shown(key.value)}", key.mark, hint)
            else:
                entries[key.value] = (key, value)
                size += key.size + value.size
                height = max(height, value.height)
        if lost and not entries:
            self.spoiled.add((mark.line, mark.column))
        return Node(entries, mark, self.source, size, 1 + height)

    def scalar(self, event: yaml.ScalarEvent, mark: Mark) -> Any:
        """The value of a scalar by the core schema, or as its explicit core tag says."""
        text: str = event.value
        self.references = self.references or "${" in text
        if not text.isprintable() and (found := UNPRINTABLE.search(text)):
            # Escapes in quotes can name what the file itself may not hold, such as NUL or half a surrogate pair.
            message = f"the text holds U+{ord(found.group()):04X}, which is no printable character"
            self.note("SPEC003", message, mark, "remove the escape")
            return ""
        tag = event.tag or ""
        if tag in ("", "!"):
            return self.resolve(text, mark) if event.implicit[0] and not tag else text
        if not self.check_tag(tag, "str int float bool null", mark) or tag == _CORE + "str":
            return text
        value = self.resolve(text, mark)
        if tag == _CORE + "float" and type(value) is int:
            return float(value)
        if tag != _CORE + _tag_of(value):
            message = f"{shown(text)} is not what the tag !!{tag.removeprefix(_CORE)} says"
            self.note("SPEC011", message, mark, "write the value without a tag")
        return value

    def resolve(self, text: str, mark: Mark) -> Any:
        """An unquoted scalar's value; numbers that JSON or 64 bits cannot hold are problems."""
        if text in _WORDS:
            return _WORDS[text]
        number: int | float
        if _INTEGER.match(text):
            number = int(text) if len(text) < 22 else 1 << 64
        elif _BASED.match(text):
            number = int(text, 0) if len(text) < 80 else 1 << 64
        elif _FLOAT.match(text):
            number = float(text)
        elif _NOT_FINITE.match(text):
            number = math.inf
        else:
            return text
        if not math.isfinite(number):
            self.note("SPEC011", f"{plainly(text)} is no finite number", mark, "write a number, or put text in quotes")
            return 0
        if isinstance(number, int) and abs(number) >= 1 << 63:
            hint = "the largest number is 9223372036854775807; put text in quotes"
            self.note("SPEC011", f"{plainly(text)} does not fit into 64 bits", mark, hint)
            return 0
        return number

    def check_tag(self, tag: str | None, allowed: str, mark: Mark) -> bool:
        if tag in (None, "", "!") or tag in {_CORE + name for name in allowed.split()}:
            return True
        name = str(tag).replace(_CORE, "!!")
        if tag in {_CORE + name for name in _TAGS}:
            self.note("SPEC018", f"tag {shown(name)} does not fit this value", mark, "write the value without a tag")
        else:
            hint = "write the value without a tag"
            hint += "; text that begins with '!' needs quotes" if name[:1] == "!" != name[1:2] else ""
            self.note("SPEC018", f"tag {shown(name)} is not allowed", mark, hint)
        return False

    def mark(self, event: yaml.Event) -> Mark:
        start, end = event.start_mark, event.end_mark
        assert start is not None and end is not None, "events of a parser have marks"
        one_line = start.line == end.line and isinstance(event, yaml.ScalarEvent | yaml.AliasEvent)
        column = start.column + (self.column if start.line == 0 else 0)
        width = end.column - start.column
        return Mark(start.line + 1 + self.line, column + 1, width if one_line and width > 0 else 1)

    def count(self, nodes: int, code: str, message: str, mark: Mark, hint: str) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.refused(code, message, mark, hint)

    def note(self, code: str, message: str, mark: Mark, hint: str = "") -> None:
        self.problems.append(self.source.problem(mark, code, message, hint))

    def refused(self, code: str, message: str, mark: Mark, hint: str = "") -> SpecError:
        self.note(code, message, mark, hint)
        return SpecError(self.problems)


def _tag_of(value: Any) -> str:
    return {bool: "bool", int: "int", float: "float", type(None): "null"}.get(type(value), "str")


def is_text(text: str) -> bool:
    """Whether an unquoted scalar is text, not a number, a truth value or nothing."""
    return text not in _WORDS and not any(kind.match(text) for kind in (_INTEGER, _BASED, _FLOAT, _NOT_FINITE))
