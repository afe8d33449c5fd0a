"""Problems of files for people, for programs, and for GitHub's annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from charrun.errors import Problem

_ESCAPES = {"%": "%25", "\r": "%0D", "\n": "%0A"}


def problems_document(problems: Sequence[Problem], valid: Mapping[str, bool]) -> str:
    """One JSON document: `problems`, each with its place, and `specs`, each with whether it is valid.

    Args:
        problems: Errors and warnings, in order.
        valid: Whether each file that was asked about is free of errors, by its name.
    """
    document: dict[str, Any] = {
        "problems": [asdict(problem) for problem in problems],
        "specs": [{"file": name, "valid": sound} for name, sound in valid.items()],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def annotation(problem: Problem) -> str:
    """The workflow command that makes GitHub show the problem at its line.

    Without a place in the file the annotation is the file's.
    """
    properties: dict[str, object] = {"file": problem.file}
    if problem.line:
        properties |= {"line": problem.line, "col": problem.column, "endColumn": problem.column + problem.width}
    properties["title"] = problem.code
    told = ",".join(f"{key}={_property(str(value))}" for key, value in properties.items())
    text = f"{problem.message}\n{problem.hint}" if problem.hint else problem.message
    return f"::{problem.severity} {told}::{_data(text)}"


def summary(problems: Sequence[Problem], files: int) -> str:
    """`3 problems and 1 warning in 2 files`."""
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    counts = [_count(number, word) for number, word in ((errors, "problem"), (warnings, "warning")) if number]
    return f"{' and '.join(counts) or 'no problems'} in {_count(files, 'file')}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _data(text: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in text)


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
