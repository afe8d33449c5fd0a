"""What is wrong where a text is no YAML: the parser's words say what it expected, these what the person did."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from charrun.errors import Problem
from charrun.spec.document import Mark, Source
from charrun.spec.words import shown

_BEFORE_VALUES = " \t[{,:="  # `=` in texts of --set
_CLOSING = {"[": "]", "{": "}"}
_CONFLICT = re.compile(r"(?:<{7}|={7}|>{7}|\|{7})(?: |\Z)")
_SIGNS = re.compile(r"""[\[\]{}'"#]""")
_TOO_NEAR = re.compile(r"\s*(?:- )?([\w.-]+):[^\s:/]")
_SAME_COLUMN = "the keys of one mapping begin in the same column, and so do the items of one list"


@dataclass(frozen=True)
class Told:
    """What to tell, and where: 0-based line and column."""

    line: int
    column: int
    message: str
    hint: str = ""
    width: int = 1
    code: str = "SPEC004"


def syntax_problem(error: yaml.YAMLError, source: Source, line: int = 0, column: int = 0) -> Problem:
    """The problem that made the parser stop.

    Args:
        error: The parser's error.
        source: The text that the problem is in.
        line: Where in it the parsed text begins, 0-based.
        column: The column there.
    """
    told = _Case(error, source.lines, line, column).told()
    at, column = _inside(source.lines, told.line, told.column)
    width = max(1, min(told.width, len(source.lines[at]) - column))
    message = told.message if told.code != "SPEC004" else f"not valid YAML: {told.message}"
    return source.problem(Mark(at + 1, column + 1, width), told.code, message, told.hint)


def _inside(lines: tuple[str, ...], line: int, column: int) -> tuple[int, int]:
    """The place, or the end of the last line before it that is not blank."""
    if line >= len(lines):
        line, column = len(lines) - 1, len(lines[-1])
    if lines[line].strip():
        return line, min(column, len(lines[line]))
    while line and not lines[line].strip():
        line -= 1
    return line, len(lines[line].rstrip())


class _Case:
    """One error with its surroundings."""

    def __init__(self, error: yaml.YAMLError, lines: tuple[str, ...], line: int, column: int) -> None:
        self.lines = lines
        self.offset = line, column
        problem = getattr(error, "problem_mark", None)
        context = getattr(error, "context_mark", None)
        self.words: str = getattr(error, "problem", None) or str(error).splitlines()[0]
        self.context: str = getattr(error, "context", None) or ""
        self.line, self.column = self.place(problem or context)
        self.begin = self.place(context or problem)
        self.text = lines[self.line] if self.line < len(lines) else ""
        self.before, self.rest = self.text[: self.column], self.text[self.column :]

    def place(self, mark: yaml.Mark | None) -> tuple[int, int]:
        """Line and column of a mark of the parser's in the whole text."""
        if mark is None:
            return self.offset
        return mark.line + self.offset[0], mark.column + (0 if mark.line else self.offset[1])

    def here(self, message: str, hint: str = "", width: int = 1) -> Told:
        return Told(self.line, self.column, message, hint, width)

    def told(self) -> Told:
        """What to tell."""
        for number, line in enumerate(self.lines[: self.line + 1]):
            if found := _CONFLICT.match(line):
                hint = "keep one of the two versions, and remove the lines with the markers"
                return Told(number, 0, "a merge conflict that is not resolved", hint, len(found.group().strip()))
        if "\t" in self.text[: self.column + 1] and not self.before.strip():
            return Told(self.line, self.text.index("\t"), "a tab in the indentation", "indent with spaces")
        for words, tell in _TELLERS.items():
            if words in self.words:
                return tell(self)
        return self.here(self.words)

    def not_closed(self) -> Told:
        """A bracket is open where something else than a comma follows."""
        if self.before.endswith("$") and self.rest.startswith("{"):
            hint = 'within brackets a reference stands in quotes: "${vars.NAME}"'
            return Told(self.line, self.column - 1, "a reference without quotes", hint, 2)
        line, column = self.begin
        bracket = self.lines[line][column : column + 1] if line < len(self.lines) else ""
        closing = _CLOSING.get(bracket, "]")
        if bracket in _CLOSING and not any(place == self.begin for place in _open_brackets(self.lines)):
            where = f"in column {column + 1}" if line == self.line else f"in line {line + 1}"
            hint = f"a comma is missing before this, or the {shown(bracket)} {where} is not closed"
            return self.here(f"expected ',' or {shown(closing)}", hint)
        return Told(line, column, f"this {shown(bracket or '[')} is not closed", f"end it with {shown(closing)}")

    def no_value(self) -> Told:
        """Nothing stands where a value is due: at the end of the text, or before a comma."""
        if not self.rest.strip() and (unclosed := list(_open_brackets(self.lines))):
            line, column = unclosed[-1]
            bracket = self.lines[line][column]
            return Told(line, column, f"this {shown(bracket)} is not closed", f"end it with {shown(_CLOSING[bracket])}")
        return self.here(f"a value is missing before {shown(self.rest[:1])}", "text that begins with it needs quotes")

    def no_key(self) -> Told:
        """Something stands after a value, or in a column in which nothing begins."""
        sign = self.rest[:1]
        if not self.before.strip():
            item = self.rest.startswith("- ")
            what = "a list item among the keys of a mapping" if item else "the indentation does not fit"
            return self.here(what, _SAME_COLUMN)
        if sign and sign in "]}":
            opening = {closing: opening for opening, closing in _CLOSING.items()}[sign]
            return self.here(f"a {shown(sign)} too many", f"there is no {shown(opening)} that it closes")
        if sign == "*" or sign == "&":
            return self.here("an alias or anchor too many", "a value has one anchor, and an alias stands alone")
        if self.before.rstrip().endswith(("'", '"')):
            hint = "put the whole text in quotes; within '...' a quote is written ''"
            return self.here("text after the closing quote", hint)
        if self.before.rstrip().endswith(("]", "}")):
            return self.here("text after the closing bracket", "text that begins with a bracket needs quotes")
        return self.here("a key or the end of the value is expected here", _SAME_COLUMN)

    def no_item(self) -> Told:
        if self.before.strip():
            return self.no_key()
        return self.here("the indentation does not fit: expected '- '", "the items of a list begin in the same column")

    def second_colon(self) -> Told:
        """A colon where no key can stand."""
        if re.search(r":\s", self.before):
            return self.here("a second ': ' in one line", "put text that holds ': ' in quotes, or begin a new line")
        above = next((n for n in range(self.line - 1, -1, -1) if self.lines[n].strip()), None)
        if above is not None:
            line = self.lines[above]
            if found := _TOO_NEAR.match(line):
                hint = f"write '{found[1]}: ' with a space"
                return Told(above, found.end(1), "a space is missing after the colon", hint)
            if ":" not in line and not line.lstrip().startswith(("-", "#")):
                first = len(line) - len(line.lstrip())
                return Told(above, first, "a key without a colon", "a key ends with ': '", len(line.strip()))
            first = len(self.text) - len(self.text.lstrip())
            hint = f"line {above + 1} has its value already; {_SAME_COLUMN}"
            return Told(self.line, first, "the indentation does not fit", hint)
        return self.here("a ': ' that ends no key", "put text that holds ': ' in quotes")

    def no_colon(self) -> Told:
        line, column = self.begin
        width = len(self.lines[line].strip()) if line < len(self.lines) else 1
        return Told(line, column, "a key without a colon", "a key ends with ': '", width)

    def open_quote(self) -> Told:
        return Told(*self.begin, "this quote is not closed", "within '...' a quote is written '', within \"...\" \\\"")

    def bad_begin(self) -> Told:
        return self.here(f"text cannot begin with {shown(self.rest[:1])}", "put it in quotes")

    def bad_escape(self) -> Told:
        column = self.text.rfind("\\", 0, self.column + 1)
        escape = self.text[column : column + 2]
        hint = "in \"...\" a backslash is written \\\\; in '...' it is one"
        return Told(self.line, max(0, column), f"there is no escape {escape}", hint, 2)

    def bad_character(self) -> Told:
        column = max(0, self.text.rfind("\\", 0, self.column + 1))
        return Told(self.line, column, "an escape that names no character", "write the character itself")

    def bad_name(self) -> Told:
        line, column = self.begin
        sign = self.lines[line][column : column + 1] if line < len(self.lines) else ""
        return Told(line, column, f"{shown(sign)} without a name", f"text that begins with {shown(sign)} needs quotes")

    def bad_tag(self) -> Told:
        line, column = self.begin
        return Told(line, column, "a tag that cannot be read", "text that begins with '!' needs quotes")

    def second_document(self) -> Told:
        if self.rest[:1] in ("]", "}"):
            return self.no_key()
        hint = "one file holds one document: remove '...' and '%' lines and what follows"
        return Told(self.line, self.column, "a second document", hint, code="SPEC007")

    def too_deep(self) -> Told:
        """Newer parsers look ahead into brackets and have a limit of their own, far beyond charrun's."""
        return Told(self.line, self.column, "nested too deep to be read", "write it flatter", code="SPEC005")


_TELLERS = {
    "expected ',' or": _Case.not_closed,
    "node content": _Case.no_value,
    "expected key": _Case.no_key,
    "expected '-' indicator": _Case.no_item,
    "mapping values are not allowed": _Case.second_colon,
    "could not find expected ':'": _Case.no_colon,
    "unexpected end of stream": _Case.open_quote,
    "unexpected document indicator": _Case.open_quote,
    "cannot start any token": _Case.bad_begin,
    "unknown escape character": _Case.bad_escape,
    "hexdecimal number": _Case.bad_character,
    "invalid Unicode character escape code": _Case.bad_character,
    "alphabetic or numeric character": _Case.bad_name,
    "undefined tag handle": _Case.bad_tag,
    "expected <document start>": _Case.second_document,
    "maximum nesting depth": _Case.too_deep,
}


def _open_brackets(lines: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """The brackets that nothing closes, from the outermost to the innermost; quoted text and comments are left out."""
    found: list[tuple[int, int, str]] = []
    quote = ""
    for number, line in enumerate(lines):
        for match in _SIGNS.finditer(line):
            sign, column = match.group(), match.start()
            previous = line[column - 1] if column else " "
            if quote:
                quote = "" if sign == quote and (quote == "'" or previous != "\\") else quote
            elif sign == "#" and previous.isspace():
                break
            elif sign in "'\"" and previous in _BEFORE_VALUES:
                quote = sign
            elif sign in _CLOSING and (found or previous in _BEFORE_VALUES):
                found.append((number, column, _CLOSING[sign]))
            elif found and sign == found[-1][2]:
                found.pop()
    yield from ((line, column) for line, column, _ in found)
