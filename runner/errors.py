"""What can go wrong for a user, each with its exit code.

Every error that a user can cause or meet is a `CharrunError`: the command line prints its text and exits with its
code; a traceback means a defect in charrun.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

EXIT_OK = 0
EXIT_STAGE_FAILED = 1
EXIT_USAGE = 2
EXIT_SPEC = 3
EXIT_PLUGIN = 4
EXIT_ENVIRONMENT = 5
EXIT_BUDGET = 6
EXIT_LOCKED = 7
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

_WIDEST = 120
"""Characters that are shown of a line."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file, with its place.

    Attributes:
        code: Stable code such as `SPEC012`, documented in docs/errors.md.
        message: What is wrong, in one line.
        file: Path as the user wrote it.
        line: 1-based line, 0 where the problem has no place in the file.
        column: 1-based column, 0 where the problem has no place in the file.
        hint: What to do next, without a full stop; may be empty.
        source: The line of the file that holds the place; may be empty.
        width: Number of columns to underline, at least 1.
        severity: A warning is shown and stops nothing.
    """

    code: str
    message: str
    file: str
    line: int = 0
    column: int = 0
    hint: str = ""
    source: str = ""
    width: int = 1
    severity: Literal["error", "warning"] = "error"

    def render(self) -> str:
        """`file:line:col CODE message` (a warning: `warning CODE`), then the line with a caret, then the hint."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        code = f"warning {self.code}" if self.severity == "warning" else self.code
        parts = [_escaped(f"{place} {code} {self.message}")]
        if self.line and self.source.strip():
            gutter = f"{self.line:>5} | "
            before, marked, after = self._excerpt()
            parts.append((gutter + before + marked + after).rstrip())
            parts.append(" " * (len(gutter) - 2) + "| " + " " * _columns(before) + "^" * max(1, _columns(marked)))
        if self.hint:
            parts.append(f"      {_escaped(self.hint)}")
        return "\n".join(parts)

    def _excerpt(self) -> tuple[str, str, str]:
        """The line before, at and after the place; of a long line what is near it."""
        start = self.column - 1
        end = start + max(1, self.width)
        before, marked, after = self.source[:start], self.source[start:end], self.source[end:]
        if len(self.source) <= _WIDEST:
            return before, marked, after
        if len(marked) > _WIDEST // 2:
            marked, after = marked[: _WIDEST // 2], " "
        right = max(_WIDEST // 3, _WIDEST - len(before) - len(marked)) - 1
        if len(after) > right:
            after = after[:right] + "…"
        left = _WIDEST - len(marked) - len(after)
        return "…" + before[-left:] if len(before) > left else before, marked, after


def _escaped(text: str) -> str:
    """One line in which nothing acts on a terminal: names of files and keys may hold anything."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _columns(text: str) -> int:
    """The columns that a text takes in a terminal: East Asian characters and emoji take two, combining marks none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    none = sum(unicodedata.category(character) in ("Mn", "Me", "Cf") for character in text)
    return len(text) + wide - none


def render_problems(problems: Iterable[Problem]) -> str:
    """Several problems, one after the other."""
    return "\n".join(problem.render() for problem in problems)


class CharrunError(Exception):
    """Base of every error that the command line explains; `exit_code` is the process's exit code."""

    exit_code = EXIT_STAGE_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def render(self) -> str:
        """The text for a terminal: what is wrong, then what to do next."""
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class SpecError(CharrunError, ValueError):
    """Something is wrong in a file that the user wrote; holds every problem found, in file order."""

    exit_code = EXIT_SPEC

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(render_problems(problems))
        self.problems = tuple(problems)


class UsageProblem(CharrunError):
    """The command line asks for something that is not there."""

    exit_code = EXIT_USAGE


class PluginError(CharrunError):
    """A plugin cannot be loaded or breaks its contract."""

    exit_code = EXIT_PLUGIN


class EnvironmentProblem(CharrunError):
    """Credentials, engine, model, network or disk: nothing in the spec is wrong."""

    exit_code = EXIT_ENVIRONMENT


class StageFailed(CharrunError):
    """A stage stopped: an invariant did not hold, or the data cannot be made."""

    exit_code = EXIT_STAGE_FAILED


class DoesNotFit(StageFailed):
    """A prompt is longer than its model's context."""


class Locked(CharrunError):
    """Another process writes the same store folder."""

    exit_code = EXIT_LOCKED


class Interrupted(CharrunError):
    """Ctrl-C or SIGTERM; what was recorded stays and the same command continues."""

    exit_code = EXIT_INTERRUPTED


class BudgetReached(Interrupted):
    """What a request may cost does not fit the budget any more; a higher one and the same command continue."""

    exit_code = EXIT_BUDGET


def disk_problem(told: str, error: OSError) -> EnvironmentProblem:
    """A write that failed, as a person is told of it.

    Args:
        told: What failed, the system's own words aside.
        error: What the system says.
    """
    remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see to it"
    return EnvironmentProblem(
        f"{told}: {error.strerror or error}", f"what is recorded stays; {remedy} and run the same command again"
    )
