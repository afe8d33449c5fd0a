"""A constitution from elsewhere as a character file: which format it is in, what it says, and what is written."""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from charrun.errors import Problem, SpecError
from charrun.spec.document import Mark, Source
from charrun.spec.emit import scalar
from charrun.spec.foreign import Foreign
from charrun.spec.foreign_json import read_list, read_rows
from charrun.spec.foreign_lines import HEADING, JSON, kind_of, read_lines
from charrun.spec.foreign_studio import KEYS, read_studio
from charrun.spec.foreign_text import BREAKS, SKIPPED, without_breaks
from charrun.spec.words import as_slug
from charrun.spec.yaml import read_text

FORMATS: Final[dict[str, str]] = {
    "paper-json": "a JSON list of {trait, questions}",
    "few-shot-jsonl": "one {trait, questions, additional_questions} in each line",
    "lines": "one assertion in each line",
    "studio-yaml": "a constitution of Open Character Studio",
}
"""The formats that can be read, each in words."""

_READERS: Final[dict[str, Callable[[str, Source], Foreign]]] = {
    "paper-json": read_list,
    "few-shot-jsonl": read_rows,
    "lines": read_lines,
    "studio-yaml": read_studio,
}
_STUDIO = re.compile(rf"^(?:{'|'.join(KEYS)})\s*:", re.MULTILINE)
_CHARRUN = re.compile(
    rf"^traits[ \t]*:{SKIPPED}(?:\[{SKIPPED}[{{\]]|-\s+(?:\{{|(?:trait|questions)\s*:))", re.MULTILINE | re.DOTALL
)
_KEY = re.compile(r"(?:%YAML[^\n\r]*\s+)?(?:---\s+)?[\w-]+[ \t]*:")
_BEGINS = re.compile(rf"(?:{'|'.join(KEYS)})[ \t]*:[ \t]*(?P<rest>[^#\s]?)")
_DIRECTIVES = re.compile(r"[\"']directives[\"']\s*:\s*\{")
_ORIGIN = re.compile(r"\s*(?:#+|//+)\s*(?P<key>SPDX-License-Identifier|[A-Za-z]+)\s*:\s*(?P<said>\S.*)")
"""A comment that may tell the licence or the source."""
_COMMENTS = re.compile(SKIPPED, re.DOTALL)
_LIST = re.compile(rf"\[{SKIPPED}(?:[{{\[\]\"']|\Z)", re.DOTALL)
_MAPPING = re.compile(rf"{{{SKIPPED}(?:[\"'}}]|\w+\s*:|\Z)", re.DOTALL)
_STUDIO_MAPPING = re.compile(rf"{{{SKIPPED}[\"']?(?:{'|'.join(KEYS)})[\"']?\s*:", re.DOTALL)
_READABLE = (
    "write one assertion in each line of a text file, a JSON list of {trait, questions}, one {trait, questions} in "
    "each line of a .jsonl file, or YAML of Open Character Studio"
)
_NAMED = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson", ".json5", ".jsonc"), "JSON"),
    **dict.fromkeys((".yaml", ".yml"), "YAML"),
    **dict.fromkeys((".csv", ".tsv"), "a table"),
}
"""What a file is by its name: never lines, unless the user says so."""
_SUFFIX = re.compile(r"[-_ ](?:few[-_ ]?shot|hand[-_ ]?written|constitution)$", re.IGNORECASE)
CODES: Final[dict[str, str]] = {
    "IMPORT001": "the file is empty",
    "IMPORT002": "there is no trait in it",
    "IMPORT003": "it is in none of the formats",
    "IMPORT004": "no id can be made of the file's name; `--id` gives one",
    "IMPORT010": "an empty trait",
    "IMPORT011": "a trait, a question or the file is too long",
    "IMPORT012": "warning: an empty question is left out",
    "IMPORT013": "warning: a repeated trait or question is left out",
    "IMPORT014": "a value of another kind than it must be",
    "IMPORT015": "a key is missing",
    "IMPORT016": "a question where assertions stand",
    "IMPORT017": "a line that goes on with the one above, and is not indented",
    "IMPORT020": "warning: a part of the format that becomes no trait",
    "IMPORT021": "warning: an unknown key is left out",
    "IMPORT022": "warning: no licence is told",
    "IMPORT023": "warning: the format has no questions",
    "IMPORT024": "warning: a trait that declines requests or quotes a phrase is imported, and is a risk",
    "IMPORT025": "warning: a few words that may be a heading are imported",
    "SPEC...": "the file is too large, no UTF-8, no YAML or no JSON, as in [errors.md](errors.md)",
}
"""What an import tells, by code. Codes stay what they are."""
UNKNOWN: Final = "unknown"
"""The licence that is recorded where none is told."""


@dataclass(frozen=True)
class Wanted:
    """What the user says about the character, each empty where the file decides."""

    format: str = ""
    id: str = ""
    name: str = ""
    licence: str = ""
    source: str = ""


@dataclass(frozen=True)
class Imported:
    """A character file that was made of another one.

    Attributes:
        id: The character's id.
        format: A key of `FORMATS`.
        text: The YAML.
        traits: How many traits it has.
        questions: How many questions.
        warnings: What was left out or is at risk, each with its place.
    """

    id: str
    format: str
    text: str
    traits: int
    questions: int
    warnings: tuple[Problem, ...]


def import_character(path: Path, name: str, wanted: Wanted) -> Imported:
    """Read a constitution and write it as a character file.

    Args:
        path: The file.
        name: What to call it in problems.
        wanted: What the user says about it.

    Raises:
        SpecError: With every problem found in the file, and the warnings.
    """
    text = without_breaks(read_text(path, name)[0])
    source = Source(name, path, tuple(BREAKS.split(text)))
    start = _COMMENTS.match(text).end()  # type: ignore[union-attr]
    if not text[start:].strip():
        raise SpecError([Problem("IMPORT001", "the file is empty", name, hint="give a file with traits")])
    format = wanted.format or _format(text, start, source, path.suffix.lower())
    found = _READERS[format](text, source)
    if not (found.licence and found.source):
        _take_comments(found, source)
    about = _about(found, path, name, wanted)
    if not found.traits and not any(found.errors()):
        told = f"there is no trait in the file, read as {FORMATS[format]}"
        found.problems.append(source.problem(_mark(text, start), "IMPORT002", told, "--format reads it as another one"))
    found.problems.sort(key=lambda problem: (problem.line, problem.column))
    if any(found.errors()):
        raise SpecError(found.problems)
    origin = f"{path.name} ({format}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]})"
    about["source"] = wanted.source or (f"{found.source}, {origin}" if found.source else origin)
    written = "\n".join(_written(found, about, FORMATS[format])) + "\n"
    count = sum(len(trait.questions) for trait in found.traits)
    return Imported(about["id"], format, written, len(found.traits), count, tuple(found.problems))


def _mark(text: str, at: int, width: int = 1) -> Mark:
    lines = BREAKS.split(text[:at])
    return Mark(len(lines), len(lines[-1]) + 1, width)


def _take_comments(found: Foreign, source: Source) -> None:
    """Licence and source from comments, as far as the file itself does not tell them."""
    told = Foreign()
    for comment in filter(None, map(_ORIGIN.match, source.lines)):
        told.take_origin(comment["key"], [comment["said"].strip()])
    found.licence, found.source = found.licence or told.licence, found.source or told.source


def _has_block(body: str) -> bool:
    """Whether a key of the studio has something beneath it, unlike a title in a text."""
    lines = [line for line in BREAKS.split(body) if line.strip() and not line.lstrip().startswith("#")]
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if (key := _BEGINS.match(line)) and (key["rest"] in ("{", "[", "&") if key["rest"] else below[:1].isspace()):
            return True
    return False


def _format(text: str, start: int, source: Source, suffix: str) -> str:
    """The format that a text is in, by what it begins with, and by the file's name.

    Args:
        text: The text,
        start: and where it begins, after comments.
        source: The same, for problems.
        suffix: How the file's name ends.

    Raises:
        SpecError: It is in none of the formats, or a file of charrun's own.
    """
    body = text[start:]
    named = _NAMED.get(suffix, "")
    if _STUDIO_MAPPING.match(body) or (_MAPPING.match(body) and _DIRECTIVES.search(body)):
        return "studio-yaml"
    if _LIST.match(body) or (named == "JSON" and body.startswith("[")):
        return "paper-json"
    if _MAPPING.match(body) or (named == "JSON" and body.startswith(("{", "/*"))):
        return "few-shot-jsonl"
    first = BREAKS.split(body, maxsplit=1)[0].rstrip()
    if named == "YAML" or (not named and _KEY.match(body)):
        if _STUDIO.search(body) if named else _has_block(body):
            return "studio-yaml"
        if own := _CHARRUN.search(body):
            hint = f"name it in a spec: characters: [./{Path(source.name).name}]"
            mark = _mark(text, start + own.start(), len("traits"))
            raise SpecError([source.problem(mark, "IMPORT003", "the file is a charrun file already", hint)])
    kind = kind_of(first)
    if named or kind not in ("", JSON, HEADING):
        raise SpecError([_foreign(named, kind, source, _mark(text, start, len(first)))])
    return "lines"


def _foreign(named: str, kind: str, source: Source, first: Mark) -> Problem:
    """What is in none of the formats: at its first line."""
    message = {
        "": f"the file begins with {kind}, which is none of the formats",
        "JSON": "the file is named as JSON, but begins with neither '[' nor '{'",
        "YAML": f"the file is named as YAML, but has no key of Open Character Studio: {', '.join(KEYS)}",
        "a table": "the file is named as a table, which is none of the formats",
    }[named]
    hint = _READABLE if named in ("", "a table") else f"{_READABLE}; --format lines reads it as the first of these"
    return source.problem(first, "IMPORT003", message, hint)


def _about(found: Foreign, path: Path, name: str, wanted: Wanted) -> dict[str, str]:
    """Id, name, description and licence: what the user says, else what the file says, else the file's name."""
    stem = _SUFFIX.sub("", path.stem)
    id = wanted.id or as_slug(found.id) or as_slug(stem)
    if not id:
        hint = "give it a name of lower-case letters, digits and hyphens: --id NAME"
        found.problems.append(
            Problem("IMPORT004", f"no id can be made of the file's name {path.stem!r}", name, hint=hint)
        )
    licence = wanted.licence or found.licence
    if not licence:
        hint = "find out whether you may train on it, and say so: --licence NAME"
        told = f"the file tells no licence; recorded as {UNKNOWN!r}"
        found.problems.append(Problem("IMPORT022", told, name, hint=hint, severity="warning"))
    if found.traits and not any(trait.questions for trait in found.traits):
        hint = "general prompts stand in; questions that give each trait room train it better"
        told = "the file has no questions"
        found.problems.append(Problem("IMPORT023", told, name, hint=hint, severity="warning"))
    display = wanted.name or found.name or " ".join(part.capitalize() for part in id.split("-"))
    description = found.description or f"Imported from {path.name}."
    return {"id": id, "name": display, "description": description, "licence": licence or UNKNOWN}


def _written(found: Foreign, about: dict[str, str], format: str) -> Iterator[str]:
    yield f"# Imported from {format}"
    yield from (f"{key}: {scalar(value)}" for key, value in {"version": 1, **about}.items())
    if found.left_out:
        yield "# Not imported, and no part of the character:"
        yield from _comments(found.left_out, "")
    yield "traits:"
    for trait in found.traits:
        yield from _comments(trait.comments, "  ")
        yield f"  - trait: {scalar(trait.text)}"
        if trait.questions:
            yield "    questions:"
            yield from (f"      - {scalar(question)}" for question in trait.questions)
        else:
            yield "    questions: []"


def _comments(texts: list[str], indent: str) -> Iterator[str]:
    for text in texts:
        start = re.match(r" *", text).group()  # type: ignore[union-attr]
        for line in textwrap.wrap(text, 100, subsequent_indent=f"{start}  ", break_on_hyphens=False):
            yield f"{indent}# {line}"
