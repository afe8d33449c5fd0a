"""A document on its way to being a spec: what has been found wrong with it so far."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from charrun.errors import Problem
from charrun.spec.document import Document, KeyPath
from charrun.spec.schema import KEYS, Finding, Subject, find


@dataclass
class Draft:
    """Collects findings; the steps after the schema look only at what is sound by then."""

    document: Document
    findings: list[Finding] = field(default_factory=list)
    elsewhere: list[Problem] = field(default_factory=list)

    def check(self, instance: Any, schema: Mapping[str, Any], at: KeyPath = (), subject: Subject = KEYS) -> bool:
        """Add what a schema finds wrong with `instance`, which stands at `at`; whether it is sound."""
        found = find(self.document, instance, schema, at, subject)
        self.findings.extend(found)
        return not found

    def add(
        self, code: str, message: str, path: KeyPath, hint: str = "", on: Literal["key", "value"] = "value"
    ) -> None:
        """Add a problem at `path`."""
        self.findings.append(Finding(path, self.document.problem(code, message, path, hint, on)))

    def add_elsewhere(self, problems: Iterable[Problem]) -> None:
        """Add problems that have their places in other files."""
        self.elsewhere.extend(problems)

    def sound(self, path: KeyPath) -> bool:
        """Whether nothing was found wrong at or under `path`."""
        return not any(finding.path[: len(path)] == path for finding in self.findings)

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

    def relative(self, written: str) -> tuple[Path, str]:
        """A path in the document, relative to its folder: the file, and what to call it in problems."""
        expanded = os.path.expanduser(written)
        path = Path(os.path.normpath(self.document.path.absolute().parent / expanded))
        if os.path.isabs(expanded):
            return path, expanded
        return path, os.path.normpath(os.path.join(os.path.dirname(self.document.name), expanded))

    def problems(self) -> list[Problem]:
        """All problems, each once: the document's own by place, then those of other files."""
        own = list(self.document.problems)
        # What could not be read is not judged as well: the value in its place is none of the user's.
        read = {(problem.line, problem.column) for problem in own}
        told = (finding.problem for finding in self.findings)
        own += [problem for problem in told if (problem.line, problem.column) not in read]
        own.sort(key=lambda problem: (problem.line, problem.column))
        return list(dict.fromkeys([*own, *self.elsewhere]))
