"""YAML files as plain data, with the place of every key and value.

The scalars are those of YAML 1.2's core schema (`1e-5` is a number, `no` is text), except that digits with a
leading zero are text: readers disagree about `012`, so it is never taken for a number. What a spec has no use
for is refused: duplicate keys, tags beyond the core ones, keys that are not text, a second document, and what
is huge or deep, be it through aliases.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from charrun.errors import Problem, SpecError
from charrun.spec.compose import Composer
from charrun.spec.document import UNPRINTABLE, Document, Mark, Node, Source, plain
from charrun.spec.syntax import syntax_problem

MAX_BYTES = 1 << 20

_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")


def load_yaml(path: Path, name: str = "") -> Document:
    """Read one YAML file.

    Args:
        path: The file.
        name: What to call it in problems; `path` itself if empty.

    Raises:
        SpecError: With every problem found in the file.
    """
    document = read_yaml(path, name)
    if document.problems:
        raise SpecError(document.problems)
    return document


def read_yaml(path: Path, name: str = "") -> Document:
    """Like `load_yaml`, but leaves in `Document.problems` what does not stop the reading.

    Raises:
        SpecError: If the file cannot be read as one YAML document at all.
    """
    return parse_yaml(_read(path, name or str(path)), path, name or str(path))


def parse_yaml(raw: bytes, path: Path, name: str) -> Document:
    """`read_yaml` of bytes that are at hand.

    Raises:
        SpecError: If the bytes are not one YAML document at all.
    """
    parsed = parse_file(raw, path, name)
    spoiled = frozenset((name, line, column) for line, column in parsed.spoiled)
    return Document(name, path, plain(parsed.root), parsed.root, parsed.problems, spoiled, (parsed.source,))


@dataclass(frozen=True)
class Parsed:
    """One text as nodes.

    Attributes:
        root: The root node.
        source: The text.
        problems: What is wrong in it, but leaves data to go on with.
        references: Whether some text in it holds `${`.
        spoiled: Lines and columns of values that stand for what could not be read.
    """

    root: Node
    source: Source
    problems: tuple[Problem, ...]
    references: bool
    spoiled: frozenset[tuple[int, int]] = frozenset()


def read_file(path: Path, name: str) -> Parsed:
    """Read and parse a file.

    Raises:
        SpecError: If the file cannot be read as one YAML document at all.
    """
    return parse_file(_read(path, name), path, name)


def parse_file(raw: bytes, path: Path, name: str) -> Parsed:
    """Parse the bytes of a file.

    Raises:
        SpecError: If they are not one YAML document at all.
    """
    text, lines = decode(raw, name)
    source = Source(name, path, lines)
    composer = Composer(source)
    root = compose(composer, text)
    if root is None:
        raise SpecError([Problem("SPEC009", "the file is empty", name, hint="begin with 'version: 1'")])
    return Parsed(root, source, tuple(composer.problems), composer.references, frozenset(composer.spoiled))


def compose(composer: Composer, text: str) -> Node | None:
    """The root node of a text, `None` if there is nothing in it.

    Raises:
        SpecError: If it is not one YAML document at all.
    """
    try:
        return composer.document(_events(text))
    except yaml.YAMLError as error:
        told = syntax_problem(error, composer.source, composer.line, composer.column)
        raise SpecError([*composer.problems, told]) from None


def read_text(path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """The text of a file and its lines, within the limits of size and characters.

    Raises:
        SpecError: If there is no such file, or it is not printable UTF-8 text.
    """
    return decode(_read(path, name), name)


def _read(path: Path, name: str) -> bytes:
    # Only regular files: reading a pipe or a device might never end. To os.path, impossible names are absent.
    if not os.path.isfile(path):
        what = "is a folder, not a file" if os.path.isdir(path) else "no such file"
        hint = ""
        if os.path.exists(path) and not os.path.isdir(path):
            what, hint = "is a pipe or a device, not a file", "save what it gives as a file"
        raise SpecError([Problem("SPEC001", what, name, hint=hint)])
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([Problem("SPEC001", f"cannot be read: {error.strerror}", name)]) from None


def decode(raw: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    """Bytes as text and its lines, within the limits of size and characters.

    Raises:
        SpecError: If they are too many, not UTF-8, or not printable.
    """
    if len(raw) > MAX_BYTES:
        raise SpecError([Problem("SPEC002", f"the file is larger than {MAX_BYTES:,} bytes", name)])
    raw = raw.removeprefix(codecs.BOM_UTF8)
    text = raw.decode("utf-8", "replace")
    lines = tuple(_BREAKS.split(text))
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: byte 0x{raw[error.start]:02x}"
        place = _mark_after(raw[: error.start].decode("utf-8"))
        raise SpecError(
            [Source(name, lines=lines).problem(place, "SPEC003", message, "save the file as UTF-8")]
        ) from None
    if found := UNPRINTABLE.search(text):
        message = f"control character U+{ord(found.group()):04X}"
        place = _mark_after(text[: found.start()])
        raise SpecError([Source(name, lines=lines).problem(place, "SPEC003", message, "remove it")])
    return text, lines


def _mark_after(before: str) -> Mark:
    lines = _BREAKS.split(before)
    return Mark(len(lines), len(lines[-1]) + 1)


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events. Unlike composing, this does not recurse, so depth can be refused on the way."""
    loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    return iter(yaml.parse(text, Loader=loader))
