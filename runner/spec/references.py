"""`${vars.x}` in the texts of a document: the only interpolation there is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.errors import Problem, SpecError
from charrun.spec.compose import MAX_DEPTH, MAX_NODES
from charrun.spec.document import Mark, Node
from charrun.spec.words import plainly, shown, suggest

PREFIX = "vars."
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}\n]*)(\}?)")
_SHAPE = "write ${vars.NAME}; a literal ${ is written $${"


@dataclass
class Interpolation:
    """Fills in the variables of one document.

    Attributes:
        variables: The variables as written, by name, with their keys.
        problems: What is wrong.
        spoiled: Places of the texts that could not be filled in.
    """

    variables: Mapping[str, tuple[Node, Node]]
    problems: list[Problem] = field(default_factory=list)
    spoiled: set[tuple[str, int, int]] = field(default_factory=set)
    _filled: dict[str, Node] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _used: set[str] = field(default_factory=set)
    _size: int = 0
    _sought: Node | None = None
    _found: list[re.Match[str]] = field(default_factory=list)

    def document(self, root: Node) -> Node:
        """The document's root with every reference filled in.

        Raises:
            SpecError: If the references expand to too much.
        """
        for name in self.variables:
            self._variable(name)
        entries = {
            name: (key, value if name == "vars" else self.fill(value, 1)) for name, (key, value) in root.value.items()
        }
        if "vars" in entries and isinstance(entries["vars"][1].value, dict):
            before = entries["vars"][1]
            filled = {name: (key, self._filled[name]) for name, (key, _) in before.value.items()}
            entries["vars"] = (entries["vars"][0], Node(filled, before.mark, before.source))
        # A reference that cannot be read may have been meant for any of them.
        for name in self.variables.keys() - self._used if not self.problems else ():
            key = self.variables[name][0]
            message = f"the variable {shown(name)} is used nowhere"
            hint = f"use it as ${{vars.{name}}}, or remove it"
            self.problems.append(key.problem("SPEC043", message, hint, "warning"))
        return Node(entries, root.mark, root.source)

    def fill(self, node: Node, depth: int) -> Node:
        """The node with its references filled in."""
        value = node.value
        if isinstance(value, str):
            return self._text(node, value, depth) if "${" in value else node
        if isinstance(value, dict):
            entries = {name: (key, self.fill(entry, depth + 1)) for name, (key, entry) in value.items()}
            return Node(entries, node.mark, node.source, node.size, node.height, node.via)
        if isinstance(value, list):
            items = [self.fill(item, depth + 1) for item in value]
            return Node(items, node.mark, node.source, node.size, node.height, node.via)
        return node

    def _text(self, node: Node, text: str, depth: int) -> Node:
        matches = list(_REFERENCE.finditer(text))
        whole = matches[0] if len(matches) == 1 and matches[0].group() == text else None
        if whole and whole.group(1) is not None:
            found = self._lookup(node, whole, 0)
            return node if found is None else self._whole(node, whole.group(1).removeprefix(PREFIX), found, depth)
        parts: list[str] = []
        end = 0
        via: tuple[str, Node] | None = None
        for number, match in enumerate(matches):
            parts.append(text[end : match.start()])
            end = match.end()
            if match.group(1) is None:
                parts.append("${")
            elif found := self._lookup(node, match, number):
                parts.append(self._embedded(node, match, number, found))
                via = via or (match.group(1).removeprefix(PREFIX), found)
        parts.append(text[end:])
        if node.place in self.spoiled:
            return node
        filled = "".join(parts)
        self._count(node, 1 + len(filled) // 64)
        return Node(filled, node.mark, node.source, 1 + len(filled) // 64)

    def _whole(self, node: Node, name: str, found: Node, depth: int) -> Node:
        """A value that is one reference keeps the variable's type, and stands where the reference does."""
        self._count(node, found.size)
        if depth + found.height > MAX_DEPTH:
            raise SpecError([node.problem("SPEC045", f"references nest more than {MAX_DEPTH} levels deep")])
        return _moved(found, node, (name, self.variables[name][0]))

    def _embedded(self, node: Node, match: re.Match[str], number: int, found: Node) -> str:
        value = found.value
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        what = f"the variable is {shown(value)} and cannot stand within text"
        self._add(node, match, number, "SPEC042", what, "let the reference be the whole value")
        return ""

    def _lookup(self, node: Node, match: re.Match[str], number: int) -> Node | None:
        """The variable that a reference names; `None`, with a problem, if it names none."""
        written = match.group(1)
        name = written.removeprefix(PREFIX)
        if not match.group(2):
            self._add(node, match, number, "SPEC042", "the reference is not closed", "end it with }")
        elif not written.startswith(PREFIX) or not name:
            hint = f"write ${{{PREFIX}{written}}}" if written in self.variables else _SHAPE
            self._add(node, match, number, "SPEC042", f"{shown(match.group())} is no reference", hint)
        elif name not in self.variables:
            hint = suggest(name, self.variables, "variables") if self.variables else "declare it under vars"
            self._add(node, match, number, "SPEC040", f"unknown variable {shown(name)}", hint)
        elif name in self._open:
            circle = " -> ".join(map(plainly, [*self._open[self._open.index(name) :], name]))
            hint = "give one of them a value of its own"
            self._add(node, match, number, "SPEC041", f"the variables go round in a circle: {circle}", hint)
        else:
            self._used.add(name)
            found = self._variable(name)
            if self.variables[name][1].place not in self.spoiled:
                return found
            self.spoiled.add(node.place)
        return None

    def _variable(self, name: str) -> Node:
        if name not in self._filled:
            if len(self._open) >= MAX_DEPTH:
                node = self.variables[name][1]
                raise SpecError([node.problem("SPEC045", f"references nest more than {MAX_DEPTH} levels deep")])
            self._open.append(name)
            self._filled[name] = _measured(self.fill(self.variables[name][1], 2))
            self._open.pop()
        return self._filled[name]

    def _count(self, node: Node, size: int) -> None:
        self._size += size
        if self._size > MAX_NODES:
            raise SpecError([node.problem("SPEC045", f"references expand to more than {MAX_NODES:,} values")])

    def _add(self, node: Node, match: re.Match[str], number: int, code: str, message: str, hint: str) -> None:
        self.spoiled.add(node.place)
        if self._sought is not node:
            self._sought, self._found = node, _within(node)
        mark = node.mark
        if number < len(self._found) and self._found[number].group() == match.group():
            mark = Mark(mark.line, self._found[number].start() + 1, len(match.group()))
        self.problems.append(node.source.problem(mark, code, message, hint))


def _within(node: Node) -> list[re.Match[str]]:
    """A text's references in its line; none if it has several."""
    line = node.source.lines[node.mark.line - 1] if node.mark.line <= len(node.source.lines) else ""
    return list(_REFERENCE.finditer(line, node.mark.column - 1, node.mark.column - 1 + node.mark.width))


def _moved(node: Node, to: Node, via: tuple[str, Node]) -> Node:
    """A copy of `node` all of which stands at the place of `to`."""
    value: Any = node.value
    if isinstance(value, dict):
        value = {name: (_moved(key, to, via), _moved(entry, to, via)) for name, (key, entry) in value.items()}
    elif isinstance(value, list):
        value = [_moved(item, to, via) for item in value]
    return Node(value, to.mark, to.source, node.size, node.height, via)


def _measured(node: Node) -> Node:
    """The node with its size and height, which filling in has changed."""
    children = list(_children(node))
    if not children:
        return node
    measured = [_measured(child) for child in children]
    size = 1 + sum(child.size for child in measured)
    height = 1 + max(child.height for child in measured)
    return Node(node.value, node.mark, node.source, size, height, node.via)


def _children(node: Node) -> Iterator[Node]:
    if isinstance(node.value, dict):
        yield from (value for _, value in node.value.values())
    elif isinstance(node.value, list):
        yield from node.value
