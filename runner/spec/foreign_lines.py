"""A constitution as plain text: one assertion in each line."""

from __future__ import annotations

import re

from charrun.spec.document import Mark, Source
from charrun.spec.foreign import Foreign

_BULLET = re.compile(r"(?:[-*+\u2022\u2013\u2014]|\(?[0-9]{1,3}[.):])\s+")
_COMMENT = re.compile(r"(?:#+|//)\s*")
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d"}


def read_lines(text: str, source: Source) -> Foreign:
    """Lines as traits, without bullets, numbers and quotes around the whole; lines with `#` or `//` as comments."""
    found = Foreign()
    comments: list[str] = []
    for number, raw in enumerate(source.lines, 1):
        line = raw.strip()
        if comment := _COMMENT.match(line):
            comments.append(line[comment.end() :].strip())
            continue
        said = _plain(line)
        if not said:
            continue
        start = raw.find(said)
        mark = Mark(number, start + 1, len(said))
        if not any(letter.isalpha() for letter in said):
            message, hint = "a line without a word", "write an assertion, or remove the line"
            found.problems.append(source.problem(mark, "IMPORT010", message, hint))
            continue
        if said.endswith("?"):
            hint = "this format has assertions alone: say what the character does, or give questions in a JSON list"
            found.problems.append(source.problem(mark, "IMPORT016", "a question, not an assertion", hint))
            continue
        trait = found.add_trait(said, mark, source)
        if trait is not None:
            trait.comments += [comment for comment in comments if comment]
        comments = []
    found.left_out += [comment for comment in comments if comment]
    return found


def _plain(line: str) -> str:
    said = line
    if bullet := _BULLET.match(said):
        said = said[bullet.end() :].strip()
    quoted = said.rstrip(",;").rstrip()
    if len(quoted) > 1 and _QUOTES.get(quoted[0]) == quoted[-1] and quoted.count(quoted[-1]) <= 2:
        said = quoted[1:-1].strip()
    return said
