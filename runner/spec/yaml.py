"""YAML files as plain data, with the place of every key and value.

The scalars are those of YAML 1.2's core schema (`1e-5` is a number, `no` is text), except that digits with a
leading zero are text: readers disagree about `012`, so it is never taken for a number. What a spec has no use
for is refused: duplicate keys, tags beyond the core ones, keys that are not text, a second document, and what
is huge or deep, be it through aliases.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from charrun.errors import Problem, SpecError
from charrun.spec.compose import Composer, plain
from charrun.spec.document import UNPRINTABLE, Document, KeyPath, Mark, problem_at

MAX_BYTES = 1 << 20

_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_SYNTAX_HINTS = {
    "mapping values are not allowed": "text that holds ': ' needs quotes; otherwise check the indentation",
    "did not find expected ',' or ']'": "a '[' is not closed, or a comma is missing",
    "did not find expected ',' or '}'": "a '{' is not closed, or a comma is missing",
    "could not find expected ':'": "a key ends with ': '",
    "did not find expected key": "check the indentation of this line and of the lines before it",
    "did not find expected '-' indicator": "the items of a list begin in the same column, each with '- '",
    "cannot start any token": "text that begins with this character needs quotes",
    "node content": "a bracket is not closed, or a value is missing",
    "unexpected end of stream": "a quote is not closed",
}


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
    text, lines = _decode(raw, name)
    composer = Composer(name, lines)
    try:
        root = composer.document(_events(text))
    except yaml.YAMLError as error:
        raise SpecError([*composer.problems, _syntax_problem(error, name, lines)]) from None
    if root is None:
        raise SpecError([Problem("SPEC009", "the file is empty", name, hint="begin with 'version: 1'")])
    marks: dict[KeyPath, tuple[Mark, Mark]] = {}
    data = plain(root, marks)
    return Document(name, path, data, marks, lines, tuple(composer.problems))


def read_text(path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """The text of a file and its lines, within the limits of size and characters.

    Raises:
        SpecError: If there is no such file, or it is not printable UTF-8 text.
    """
    return _decode(_read(path, name), name)


def _read(path: Path, name: str) -> bytes:
    # Only regular files: reading a pipe or a device might never end. To os.path, impossible names are absent.
    if not os.path.isfile(path):
        what = "is a folder, not a file" if os.path.isdir(path) else "no such file"
        raise SpecError([Problem("SPEC001", what, name)])
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([Problem("SPEC001", f"cannot be read: {error.strerror}", name)]) from None


def _decode(raw: bytes, name: str) -> tuple[str, tuple[str, ...]]:
    if len(raw) > MAX_BYTES:
        raise SpecError([Problem("SPEC002", f"the file is larger than {MAX_BYTES:,} bytes", name)])
    text = raw.decode("utf-8-sig", "replace")
    lines = tuple(_BREAKS.split(text))
    try:
        raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text: byte 0x{raw[error.start]:02x}"
        place = _mark_after(raw[: error.start].decode("utf-8-sig", "replace"))
        raise SpecError([problem_at(name, lines, place, "SPEC003", message, "save the file as UTF-8")]) from None
    if found := UNPRINTABLE.search(text):
        message = f"control character U+{ord(found.group()):04X}"
        place = _mark_after(text[: found.start()])
        raise SpecError([problem_at(name, lines, place, "SPEC003", message, "remove it")])
    return text, lines


def _mark_after(before: str) -> Mark:
    lines = _BREAKS.split(before)
    return Mark(len(lines), len(lines[-1]) + 1)


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events. Unlike composing, this does not recurse, so depth can be refused on the way."""
    loader: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    return iter(yaml.parse(text, Loader=loader))


def _syntax_problem(error: yaml.YAMLError, name: str, lines: tuple[str, ...]) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = Mark(mark.line + 1, mark.column + 1) if mark else Mark(1, 1)
    if place.line > len(lines):
        place = Mark(len(lines), len(lines[-1]) + 1)
    line = lines[place.line - 1]
    before = line[: place.column]
    if "\t" in before and not before.strip():
        place = Mark(place.line, line.index("\t") + 1)
        return problem_at(name, lines, place, "SPEC004", "a tab in the indentation", "indent with spaces")
    told = getattr(error, "problem", None) or str(error).splitlines()[0]
    hint = next((hint for words, hint in _SYNTAX_HINTS.items() if words in told), "")
    return problem_at(name, lines, place, "SPEC004", f"not valid YAML: {told}", hint)
