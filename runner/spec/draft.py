"""A document on its way to being a spec: what has been found wrong with it so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrun.errors import Problem
from charrun.spec import places
from charrun.spec.document import Document, KeyPath, Part
from charrun.spec.schema import KEYS, Finding, Subject, find


@dataclass
class Draft:
    """Collects findings; the steps after the schema look only at what is sound by then.

    Attributes:
        document: The spec as it is written.
        findings: What is wrong in it,
        elsewhere: what is in files that it names,
        warnings: and what may be a mistake.
        successors: Options of the command line that take the successors of retired models.
    """

    document: Document
    findings: list[Finding] = field(default_factory=list)
    elsewhere: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    successors: list[str] = field(default_factory=list)
    _unsound: set[KeyPath] = field(default_factory=set)

    def check(self, instance: Any, schema: Mapping[str, Any], at: KeyPath = (), subject: Subject = KEYS) -> bool:
        """Add what a schema finds wrong with `instance`, which stands at `at`; whether it is sound."""
        found = find(self.document, instance, schema, at, subject)
        for finding in found:
            self._note(finding)
        return not found

    def add(self, code: str, message: str, path: KeyPath, hint: str = "", on: Part = "value") -> None:
        """Add a problem at `path`."""
        self._note(Finding(path, self.document.problem(code, message, path, hint, on)))

    def warn(self, code: str, message: str, path: KeyPath, hint: str = "", on: Part = "value") -> None:
        """Add a warning at `path`; the data there stays sound."""
        self.warnings.append(self.document.problem(code, message, path, hint, on, "warning"))

    def add_elsewhere(self, problems: Iterable[Problem]) -> None:
        """Add problems that have their places in other files."""
        self.elsewhere.extend(problems)

    def sound(self, path: KeyPath) -> bool:
        """Whether nothing was found wrong at or under `path`."""
        return path not in self._unsound

    def _note(self, finding: Finding) -> None:
        self.findings.append(finding)
        self._unsound.update(finding.path[:end] for end in range(len(finding.path) + 1))

    def whole(self) -> bool:
        """Whether nothing is wrong in other files or could not be read."""
        return not self.elsewhere and not self.document.spoiled

    def mapping(self, *path: str | int) -> dict[str, Any]:
        """The mapping at `path`; an empty one where there is none."""
        value = self._get(path)
        return value if isinstance(value, dict) else {}

    def items(self, *path: str | int) -> list[Any]:
        """The list at `path`; an empty one where there is none."""
        value = self._get(path)
        return value if isinstance(value, list) else []

    def _get(self, path: KeyPath) -> Any:
        try:
            return self.document.at(path)
        except (KeyError, IndexError, TypeError):
            return None

    def relative(self, written: str, at: KeyPath, on: Part = "value") -> tuple[Path, str]:
        """A path that is written at `at`, relative to the file that it is in: the file, and what problems call it."""
        return places.relative(self.document.node(at, on).source, written)

    def paths_hint(self, written: str, at: KeyPath, on: Part = "value") -> str:
        """Why there is no file where a path that is written at `at` leads to."""
        return places.path_hint(self.document.node(at, on).source, written)

    def problems(self) -> list[Problem]:
        """All errors, each once: the document's own by source and place, then those of other files."""
        # What could not be read is not judged as well: the value in its place is none of the user's.
        own = [problem for problem in self.document.problems if problem.severity == "error"]
        spoiled = self.document.spoiled | {_place(problem) for problem in own}
        told = (finding.problem for finding in self.findings)
        own += [problem for problem in told if _place(problem) not in spoiled]
        here = {source.name for source in self.document.sources}
        own += [problem for problem in self.elsewhere if problem.file in here]
        return list(dict.fromkeys([*self._sorted(own), *self.elsewhere]))

    def all_warnings(self) -> tuple[Problem, ...]:
        """All warnings, each once, by source and place."""
        own = [problem for problem in self.document.problems if problem.severity == "warning"]
        return tuple(dict.fromkeys(self._sorted([*own, *self.warnings])))

    def _sorted(self, problems: list[Problem]) -> list[Problem]:
        order = {source.name: number for number, source in enumerate(self.document.sources)}
        return sorted(problems, key=lambda problem: (order.get(problem.file, len(order)), problem.line, problem.column))


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.file, problem.line, problem.column
