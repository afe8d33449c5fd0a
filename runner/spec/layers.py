"""From a spec file to one document: its bases under it, `--set` over it, variables filled in.

What needs no plugin to be known happens here; `charrun.spec.resolve` does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from charrun.errors import Problem, SpecError
from charrun.spec.compose import MAX_NODES
from charrun.spec.document import Document, Node, Severity, Source, plain
from charrun.spec.kind_words import other_kind
from charrun.spec.merge import Merger
from charrun.spec.places import BUILTIN, locate, path_hint, relative
from charrun.spec.references import Interpolation
from charrun.spec.sets import parse_set
from charrun.spec.words import plainly, shown
from charrun.spec.yaml import Parsed, parse_file, read_file

MAX_BASES = 16
_EXTENDS = "extends"
_KEPT = 64

_parsed: dict[tuple[str, str, int, int], Parsed] = {}


@dataclass(frozen=True)
class PluginFile:
    """A file under `plugins:`, with stages of the spec's own.

    Attributes:
        path: The file.
        told: What problems call it.
        node: Where the spec names it.
    """

    path: Path
    told: str
    node: Node

    def problem(self, code: str, message: str, hint: str = "", severity: Severity = "error") -> Problem:
        """A problem at the place that names the file."""
        return self.node.problem(code, message, hint, severity)


@dataclass(frozen=True)
class SpecDocument:
    """A spec file with its layers merged and its variables filled in, checked against nothing yet."""

    document: Document

    @property
    def path(self) -> Path:
        """The spec file."""
        return self.document.path

    @property
    def plugin_files(self) -> tuple[PluginFile, ...]:
        """What `plugins:` names, as far as it is a list of texts; the files need not exist."""
        if not isinstance(self.document.data, dict):
            return ()
        written = self.document.node(("plugins",)).value if "plugins" in self.document.data else []
        nodes = [node for node in written if isinstance(node.value, str)] if isinstance(written, list) else []
        return tuple(PluginFile(*relative(node.source, node.value), node) for node in nodes)


def read_spec(path: str | Path, sets: Sequence[str] = ()) -> SpecDocument:
    """Read a spec, its bases and what `--set` lays over them.

    Args:
        path: The spec file; `builtin:NAME` is a spec that ships with charrun.
        sets: `KEY=VALUE` texts, laid over the spec in order.

    Raises:
        SpecError: If there is nothing to go on with. Other problems stay in the document, for `load_spec` to tell.
    """
    file, name = locate(path)
    reader = _Reader()
    root = reader.chain(file, name)
    for number, text in enumerate(sets, 1):
        root = reader.set(root, text, number)
    return SpecDocument(reader.document(root, file, name))


def read_text(text: str, path: Path, name: str) -> SpecDocument:
    """A spec that is no file of its own, read as if it stood at a path; otherwise as `read_spec`.

    Args:
        text: YAML.
        path: What relative paths in it are relative to, and need not exist.
        name: What problems call it.
    """
    parsed = parse_file(text.encode(), path, name)
    reader = _Reader()
    reader.add(parsed)
    return SpecDocument(reader.document(parsed.root, path, name))


@dataclass
class _Reader:
    """Reads the layers of one spec, and collects what is wrong in them."""

    layers: list[Parsed] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    merger: Merger = field(default_factory=Merger)

    def chain(self, file: Path, name: str) -> Node:
        """A file laid over its base, which is laid over its own."""
        parsed = read_file(file, name)
        self.add(parsed)
        chain = [parsed.root]
        seen = {os.path.realpath(file): name}
        while isinstance(chain[-1].value, dict) and _EXTENDS in chain[-1].value:
            written = chain[-1].value[_EXTENDS][1]
            if not isinstance(written.value, str) or not written.value:
                message = f"expected the path of one spec, got {shown(plain(written))}"
                raise self.refused(written, "SPEC014", message, "a spec extends one other, which may extend a third")
            parsed = self.base(written, seen)
            self.add(parsed)
            chain.append(parsed.root)
        root = chain[-1]
        for over in reversed(chain[:-1]):
            root = self.merger.merge(_as_base(root), _without_extends(over))
        return root

    def add(self, parsed: Parsed) -> None:
        self.layers.append(parsed)
        self.sources.append(parsed.source)

    def base(self, written: Node, seen: dict[str, str]) -> Parsed:
        """The file that an `extends` names."""
        path, told = self.named(written)
        real = os.path.realpath(path)
        if real in seen:
            names = list(seen.values())
            circle = " -> ".join(map(plainly, [*names[list(seen).index(real) :], told]))
            message = f"the files extend each other in a circle: {circle}"
            raise self.refused(written, "SPEC036", message, "remove one of these extends")
        if len(seen) > MAX_BASES:
            message = f"more than {MAX_BASES} bases, one under the other"
            raise self.refused(written, "SPEC036", message, "put some of them together into one file")
        seen[real] = told
        try:
            parsed = _read_base(path, told)
        except SpecError as error:
            if error.problems[0].code != "SPEC001":
                raise SpecError([*self.problems(), *error.problems]) from None
            message = f"base {shown(told)}: {error.problems[0].message}"
            raise self.refused(written, "SPEC035", message, path_hint(written.source, written.value)) from None
        if not isinstance(parsed.root.value, dict):
            raise self.refused(written, "SPEC035", f"base {shown(told)}: not a spec, but {shown(parsed.root.value)}")
        if other := other_kind(parsed.root.value, "spec"):
            raise self.refused(written, "SPEC035", f"base {shown(told)}: not a spec, but {other}")
        return parsed

    def named(self, written: Node) -> tuple[Path, str]:
        """File and name of a base."""
        if "${" in written.value:
            raise self.refused(written, "SPEC035", "a base cannot be named by a variable", "write the path itself")
        if not written.value.startswith(BUILTIN):
            return relative(written.source, written.value)
        try:
            return locate(written.value)
        except SpecError as error:
            (problem,) = error.problems
            raise self.refused(
                written, "SPEC035", f"base {shown(written.value)}: {problem.message}", problem.hint
            ) from None

    def set(self, root: Node, text: str, number: int) -> Node:
        """The document with one more `--set` laid over it."""
        try:
            parsed = parse_set(text, number)
        except SpecError as error:
            self.merger.problems.extend(error.problems)
            self.sources.append(Source(error.problems[0].file))
            return root
        self.add(parsed)
        return self.merger.merge(root, parsed.root)

    def document(self, root: Node, file: Path, name: str) -> Document:
        """What has been read, with variables filled in."""
        found = self.problems()
        spoiled = {(problem.file, problem.line, problem.column) for problem in found}
        spoiled |= {(layer.source.name, *place) for layer in self.layers for place in layer.spoiled}
        if sum(layer.root.size for layer in self.layers) > MAX_NODES and _size(root) > MAX_NODES:
            raise self.refused(root, "SPEC002", f"more than {MAX_NODES:,} values in one spec")
        declared = root.value["vars"][1].value if isinstance(root.value, dict) and "vars" in root.value else {}
        variables = declared if isinstance(declared, dict) else {}
        if isinstance(root.value, dict) and (variables or any(layer.references for layer in self.layers)):
            filling = Interpolation(variables)
            try:
                root = filling.document(root)
            except SpecError as error:
                raise SpecError([*found, *filling.problems, *error.problems]) from None
            found += filling.problems
            spoiled |= filling.spoiled
        return Document(
            name, file, plain(root), root, tuple(found), frozenset(spoiled), tuple(self.sources), self.merger.removed
        )

    def problems(self) -> list[Problem]:
        """What is wrong so far."""
        return [*(problem for layer in self.layers for problem in layer.problems), *self.merger.problems]

    def refused(self, node: Node, code: str, message: str, hint: str = "") -> SpecError:
        return SpecError([*self.problems(), node.problem(code, message, hint)])


def _read_base(path: Path, told: str) -> Parsed:
    """A base, parsed once for all specs that extend it."""
    try:
        status = path.stat()
        key = (str(path), told, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError):
        return read_file(path, told)
    if key not in _parsed:
        while len(_parsed) >= _KEPT:
            del _parsed[next(iter(_parsed))]
        _parsed[key] = read_file(path, told)
    return _parsed[key]


def _as_base(root: Node) -> Node:
    """A base without its free notes."""
    if not isinstance(root.value, dict):
        return root
    entries = {name: entry for name, entry in root.value.items() if not name.startswith("x-")}
    return Node(entries, root.mark, root.source, root.size, root.height)


def _without_extends(root: Node) -> Node:
    entries = {name: entry for name, entry in root.value.items() if name != _EXTENDS}
    return Node(entries, root.mark, root.source, root.size, root.height)


def _size(node: Node) -> int:
    """How many values there are in a node, expanded."""
    if isinstance(node.value, dict):
        return 1 + sum(_size(value) for _, value in node.value.values())
    if isinstance(node.value, list):
        return 1 + sum(_size(item) for item in node.value)
    return 1 + (len(node.value) // 64 if isinstance(node.value, str) else 0)
