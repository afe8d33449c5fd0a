"""A constitution as plain text: one assertion in each line."""

from __future__ import annotations

import re
from typing import Final

from charrun.spec.document import Mark, Source
from charrun.spec.foreign import LONGEST, Foreign

_BULLET = re.compile(r"(?:[-*+>\u2022\u2013\u2014]|\(?[0-9]{1,3}[.):])\s+(?:\[[ xX]\]\s+)?")
_COMMENT = re.compile(r"(?:#+|//)\s*|/\*+\s*(?=.*\*/\s*\Z)")
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d"}
JSON: Final = "JSON"
HEADING: Final = "a heading"
_KINDS: Final = {
    JSON: re.compile(
        r"""[\[{]\s*(?:["'{\[/]|\Z)|\{\s*\w+\s*:|[\]}][\s,;\]}]*\Z|"[\w -]{1,40}"\s*:|"(?:[^"\\]|\\.)*"\s*[\]}]"""
    ),
    HEADING: re.compile(r"\[[^\]]*\]\Z"),
    "a list in YAML": re.compile(r"(?:-\s+)?(?:traits?|questions|additional_questions)\s*:"),
    "a table": re.compile(
        r"""[\w"]+(?:[,;\t][\w"]+)+\Z|\||[^\t]*\t|"(?:[^"]|"")*"(?:\s*[,;]\s*"(?:[^"]|"")*")+\Z"""
        r"""|.*[.!?]"?,(?:"[^"]+"\Z|[^\s"'\u201d].*\?\Z)"""
    ),
    "markup": re.compile(r"<(?:[!?]|/?[A-Za-z][\w:-]*(?:\s[^>]*)?/?>)|.*</\w+>\s*\Z|\{?\\[a-z]+|```|/\*|\*/"),
}
"""What begins as something else than an assertion, by what it is called."""
_ASKING = re.compile(
    r"(?:(?:who|what|when|where|why|how|which)\s+)?(?:am|is|are|was|were|do|does|did|have|has|had|can|could|will|would"
    r"|shall|should|may|might|must)(?:n't)?\b",
    re.IGNORECASE,
)
_OWN = re.compile(r"\b(?:I|[Mm]y|[Mm]e|[Mm]ine|[Mm]yself|[Ww]e|[Oo]ur|[Uu]s)\b")
_QUOTED = re.compile(r":\s|(?<!\w)[\"'\u2018\u201c\u00ab]")


def read_lines(text: str, source: Source) -> Foreign:
    """Lines as traits, without bullets, numbers and quotes around the whole; lines with `#` or `//` as comments."""
    found = Foreign()
    comments: list[str] = []
    for number, raw in enumerate(source.lines, 1):
        line = raw.strip()
        if comment := _COMMENT.match(line):
            comments.append(line[comment.end() :].removesuffix("*/").strip())
            continue
        said = _plain(line)
        if not said:
            continue
        start = raw.find(said)
        mark = Mark(number, start + 1, len(said))
        if told := _no_assertion(said):
            found.problems.append(source.problem(mark, *told))
            continue
        trait = found.add_trait(said, mark, source)
        if trait is not None:
            trait.comments += [comment for comment in comments if comment]
        comments = []
    found.left_out += [comment for comment in comments if comment]
    return found


def kind_of(line: str) -> str:
    """What a line is instead of an assertion, such as JSON, a table or markup; empty where it may be one."""
    return next((kind for kind, begins in _KINDS.items() if begins.match(line[:LONGEST])), "")


def _no_assertion(said: str) -> tuple[str, str, str] | None:
    """Code, message and hint for a line that is no assertion."""
    if kind := kind_of(said):
        hint = "write the assertion alone, or remove the line"
        if kind == JSON:
            hint += "; a file of JSON begins with [ or {, after comments at most"
        return "IMPORT014", f"{kind}, not an assertion", hint
    if not any(letter.isalpha() for letter in said):
        return "IMPORT010", "a line without a word", "write an assertion, or remove the line"
    if said.endswith("?") and not _quotes_a_question(said):
        hint = "this format has assertions alone: say what the character does, or give questions in a JSON list"
        return "IMPORT016", "a question, not an assertion", hint
    return None


def _quotes_a_question(said: str) -> bool:
    """Whether the question at the end is what the character says, as in `I end with: what say ye?`."""
    begins = _QUOTED.search(said)
    own = said[: begins.start()] if begins else ""
    return bool(_OWN.search(own)) and not _ASKING.match(own)


def _plain(line: str) -> str:
    said = line
    if bullet := _BULLET.match(said):
        said = said[bullet.end() :].strip()
    quoted = said.rstrip(",;").rstrip()
    if len(quoted) > 1 and _QUOTES.get(quoted[0]) == quoted[-1] and quoted.count(quoted[-1]) <= 2:
        said = quoted[1:-1].strip()
    return said
