"""JSON as people write it, made fit to be read as YAML: comments become blanks, and every place can still be told."""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import Final

from charrun.errors import Problem, SpecError
from charrun.spec.document import Mark, Source

SKIPPED: Final = r"(?:\s+|(?:#|//)[^\n\r]*|/\*.*?\*/)*+"
"""What may stand before the first value: blanks and comments. To be used with `re.DOTALL`."""
BREAKS: Final = re.compile(r"\r\n|[\n\r]")
"""What ends a line; to YAML 1.1 so do U+0085, U+2028 and U+2029, to editors they do not."""

_NO_BREAKS = {0x85: " ", 0x2028: " ", 0x2029: " "}
# Not after other characters: `//` is a part of an address, be it without quotes.
_COMMENT = r"(?<![^\s\[\]{},\"'])(?:(?:#|//)[^\n\r]*|/\*.*?(?:\*/|\Z))"
_APOSTROPHES = r"(?<![^\s\[{,:])'[^'\n\r]*'"
_KEY = r"(?<![^\s{,])(?P<key>trait|questions|additional_questions):(?=[\"'\[{])"
_IN_TEXT = re.compile(rf'"(?:\\.|[^"\\])*+(?:"|\Z)|{_APOSTROPHES}|{_KEY}|(?P<comment>{_COMMENT})', re.DOTALL)
_IN_ROWS = re.compile(rf'"(?:\\[^\n\r]|[^"\\\n\r])*+"?|{_APOSTROPHES}|{_KEY}|(?P<comment>{_COMMENT})', re.DOTALL)
_SURROGATES = re.compile(r"(?<!\\)((?:\\\\)*)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_PAIR = len(r"\ud83d\ude00") - 1
"""Columns that a line loses for each pair."""
_NO_YAML, _NO_JSON = "not valid YAML: ", "not valid JSON: "
_HINTS = {
    "text after the closing bracket": "put all into one list, or each trait into one line; --format lines reads text",
    "this quote is not closed": 'within "..." a quote is written \\"',
    "a value is missing before ','": "remove one comma",
}
"""What to do, where it is said in other words of YAML."""


def without_breaks(text: str) -> str:
    """The text with blanks for what ends no line, so that YAML counts lines as editors do."""
    return text.translate(_NO_BREAKS)


def without_comments(text: str, source: Source, rows: bool = False) -> str:
    """The text with blanks for `//`, `/* */` and `#` comments and for tabs; what is in quotes stays.

    Args:
        text: JSON, maybe with comments.
        source: The same, for problems.
        rows: No quotation goes on in the next line.

    Raises:
        SpecError: A comment is not closed, or a key would not be read as one.
    """

    def refused(at: int, width: int, told: str, hint: str) -> SpecError:
        lines = BREAKS.split(text[:at])
        mark = Mark(len(lines), len(lines[-1]) + 1, width)
        return SpecError([source.problem(mark, "SPEC004", f"{_NO_JSON}{told}", hint)])

    def one(found: re.Match[str]) -> str:
        comment = found["comment"]
        if key := found["key"]:
            raise refused(found.start(), len(key), "a key without quotes", f'write "{key}":')
        if comment is None:
            return found.group()
        if comment.startswith("/*") and (len(comment) < 4 or not comment.endswith("*/")):
            raise refused(found.start(), 2, "this comment is not closed", "end it with */")
        return re.sub(r"[^\n\r]", " ", comment)

    return (_IN_ROWS if rows else _IN_TEXT).sub(one, text).replace("\t", " ")


def paired(text: str) -> str:
    """JSON writes what is beyond 16 bits as two escapes, which YAML does not know."""

    def one(found: re.Match[str]) -> str:
        pair = f"{found.group(2)}{found.group(3)}"
        return found.group(1) + bytes.fromhex(pair).decode("utf-16-be")

    return _SURROGATES.sub(one, text)


def as_written(problems: list[Problem], clean: str, source: Source) -> list[Problem]:
    """Problems of the text that was read as YAML, as those of the file.

    Args:
        problems: With places in `paired` text.
        clean: The text without comments, before `paired`.
        source: The file.
    """
    lines = BREAKS.split(clean)
    pairs: dict[int, list[int]] = {}

    def one(problem: Problem) -> Problem:
        if not problem.line:
            return problem
        if problem.line not in pairs:
            pairs[problem.line] = _pairs(lines[problem.line - 1]) if problem.line <= len(lines) else []
        before, within = (
            bisect_left(pairs[problem.line], column - 1) for column in (problem.column, problem.column + problem.width)
        )
        column = problem.column + before * _PAIR
        mark = Mark(problem.line, column, problem.width + (within - before) * _PAIR)
        code, told = problem.code, problem.message.removeprefix(_NO_YAML)
        if code == "SPEC007":
            code, told = "SPEC004", "text after the closing bracket"
        message = f"{_NO_JSON}{told}" if code == "SPEC004" else told
        return source.problem(mark, code, message, _HINTS.get(told, problem.hint), problem.severity)

    return [one(problem) for problem in problems]


def _pairs(line: str) -> list[int]:
    """Where the pairs of a line begin, 0-based, in `paired` text."""
    return [found.end(1) - number * _PAIR for number, found in enumerate(_SURROGATES.finditer(line))]
