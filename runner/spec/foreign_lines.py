"""A constitution as plain text: one assertion in each line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from charrun.spec.document import Mark, Source
from charrun.spec.foreign import LONGEST, Foreign
from charrun.spec.words import shown

_BULLET = re.compile(
    r"(?:[-*+>\u00b7\u2022\u2023\u2043\u25aa\u25cf\u25e6\u2610\u2611\u2713\u2714\u2013\u2014]|\(?[0-9]{1,3}[a-z]?[.):]"
    r"|\(?(?:[a-z]|[ivx]{1,5}|[A-Z]|[IVX]{1,5})[.)](?=\s+[\"\u201cA-Z]))\s+(?:\[[ xX]\]\s+)?"
)
_EMPHASIS = re.compile(r"(\*\*|__|\*|_)(?=\S)(?P<said>[^*_]+)(?<=\S)\1")
_TITLE = re.compile(r"(?!.*\b(?:I|[Mm]y|[Mm]e)\b)[^.!?:]{1,60}:")
"""A line above a list, such as `Traits:`."""
_UNFINISHED = re.compile(r".*(?:[,;\u2013\u2014]|\b(?:and|or|but|nor|the|an?|to|of|with|that|in|for|my|as))\Z")
_LOOSE = re.compile(r"(?!.*\b(?:I|[Mm]y|[Mm]e|[Ww]e|[Oo]ur)\b)\S+(?:\s+\S+){0,3}(?<![.!?\u2026\u3002\uff01\uff1f\"'])")
"""A few words that are no sentence, such as a heading."""
_FRONT_MATTER = "---"
_LONGEST_FRONT_MATTER = 40
_COMMENT = re.compile(r"(?:#+|//)\s*|/\*+\s*(?=.*\*/\s*\Z)")
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d"}
JSON: Final = "JSON"
HEADING: Final = "a heading"
_KINDS: Final = {
    JSON: re.compile(
        r"""[\[{]\s*(?:["'{\[/]|\Z)|\{\s*\w+\s*:|[\]}][\s,;\]}]*\Z|"[\w -]{1,40}"\s*:|"(?:[^"\\]|\\.)*"\s*[\]}]"""
    ),
    HEADING: re.compile(r"\[[^\]]*\]\Z"),
    "a list in YAML": re.compile(r"(?!traits:\s*\Z)(?:-\s+)?(?:traits?|questions|additional_questions)\s*:"),
    "a PDF": re.compile(r"%PDF-"),
    "a setting": re.compile(r"[\w.-]+\s*=\s*[\"'\[\w]"),
    "a link": re.compile(r"\[[^\]]+\]:\s"),
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
    """Lines as traits, without bullets, numbers, emphasis and quotes around the whole.

    Lines with `#` or `//`, a title such as `Traits:`, and front matter are comments. An indented line goes on with the
    one above, where that is not finished or it begins with a small letter. One that is not indented
    and goes on with an unfinished one is an error.
    """
    found = Foreign()
    comments: list[str] = []
    matter = _front_matter(source.lines)
    for line in source.lines[:matter]:
        key, _, value = line.partition(":")
        found.take_origin(key, [value.strip(" \"'[]")])
    above = ""
    for number, raw, line in _whole(source.lines):
        comment = _COMMENT.match(line)
        is_title = _TITLE.fullmatch(_plain(line)) and not kind_of(_plain(line))
        if comment or is_title or number <= matter:
            comments.append(line[comment.end() if comment else 0 :].removesuffix("*/").strip())
            continue
        said = _plain(line)
        if not said:
            above = ""
            continue
        start = next((at for part in (said, _plain(raw.strip())) if (at := raw.find(part)) >= 0), 0)
        mark = Mark(number, start + 1, min(len(said), len(raw.rstrip()) - start))
        if told := _no_assertion(said):
            found.problems.append(source.problem(mark, *told))
            continue
        if above and said[0].islower() and not _BULLET.match(line) and _UNFINISHED.match(above):
            hint = "join the two lines, or indent this one"
            found.problems.append(source.problem(mark, "IMPORT017", "the sentence above goes on here", hint))
            above = said
            continue
        above = said
        if _LOOSE.fullmatch(said):
            hint = "it is imported; a heading ends with ':' or begins with '#', and an assertion ends with a full stop"
            message = f"perhaps no assertion: {shown(said)}"
            found.problems.append(source.problem(mark, "IMPORT025", message, hint, "warning"))
        trait = found.add_trait(said, mark, source)
        if trait is not None:
            trait.comments += [comment for comment in comments if comment]
        comments = []
    found.left_out += [comment for comment in comments if comment]
    return found


def _whole(lines: Sequence[str]) -> list[tuple[int, str, str]]:
    """Each line's number and text, and what is said there, with that of the lines that go on with it."""
    found: list[tuple[int, str, str]] = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if found and line and not _BULLET.match(line) and not _COMMENT.match(line):
            first, above, said = found[-1]
            is_deeper = len(raw) - len(raw.lstrip()) > len(above) - len(above.lstrip())
            if said and is_deeper and not _COMMENT.match(said) and (line[0].islower() or _UNFINISHED.match(said)):
                found[-1] = first, above, f"{said} {line}"
                continue
        found.append((number, raw, line))
    return found


def _front_matter(lines: Sequence[str]) -> int:
    """How many lines at the beginning are metadata between two lines of dashes, as Markdown may have them."""
    if not lines or lines[0].strip() != _FRONT_MATTER:
        return 0
    ends = (number for number, line in enumerate(lines[:_LONGEST_FRONT_MATTER], 1) if line.strip() == _FRONT_MATTER)
    return next((number for number in ends if number > 1), 0)


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
    if emphasis := _EMPHASIS.fullmatch(said):
        said = emphasis["said"].strip()
    quoted = said.rstrip(",;").rstrip()
    if len(quoted) > 1 and _QUOTES.get(quoted[0]) == quoted[-1] and quoted.count(quoted[-1]) <= 2:
        said = quoted[1:-1].strip()
    return said
