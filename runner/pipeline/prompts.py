"""Prompt texts: jinja2 template files of the stages, each replaceable by the spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.errors import EnvironmentProblem, Problem, SpecError
from charrun.spec.template_variables import mentions

if TYPE_CHECKING:
    from jinja2 import Environment

_TAKES_IN = re.compile(r"\{%[-+]?\s*(?:include|import|from|extends)\b(.*?)%\}", re.DOTALL)
_QUOTED = re.compile(r"""["']([^"']+)["']""")


class Prompts:
    """All prompt templates by name, rendered strictly: an unknown variable is an error, not an empty text."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = dict(files)
        try:
            self.sources = {name: path.read_text(encoding="utf-8") for name, path in files.items()}
        except OSError as error:
            raise EnvironmentProblem(f"cannot read a prompt template: {error}") from error
        self._mentions = cache(lambda name: mentions(name, self.sources))

    @cached_property
    def _environment(self) -> Environment:
        from jinja2 import DictLoader, StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # A spec brings templates along, and nobody is asked whether they may run code.
        return ImmutableSandboxedEnvironment(
            loader=DictLoader({f"{name}.j2": text for name, text in self.sources.items()}),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
        )

    def render(self, name: str, /, **variables: object) -> str:
        """The text of a template, without leading and trailing blank lines.

        Raises:
            SpecError: The template is malformed or uses a variable that is not given.
        """
        from jinja2 import TemplateError

        try:
            return self._environment.get_template(f"{name}.j2").render(**variables).strip()
        except TemplateError as error:
            line = getattr(error, "lineno", None) or 0
            problem = Problem(
                "RUN002",
                f"{type(error).__name__}: {error}",
                str(self.files.get(name, name)),
                line,
                1 if line else 0,
                hint=f"variables of this template: {', '.join(sorted(variables)) or 'none'}",
            )
            raise SpecError([problem]) from error

    def unmentioned(self, name: str, variables: Iterable[str]) -> set[str]:
        """Those of some variables that a template and all that it includes never mention."""
        held = self._mentions(name)
        return set() if held is None else set(variables) - held

    def sources_of(self, names: Iterable[str]) -> dict[str, str]:
        """Texts of some templates and of all that they include, for fingerprints."""
        found: set[str] = set()
        wanted = set(names)
        while wanted:
            found |= wanted
            wanted = {other for name in wanted for other in self._included(name)} - found
        return {name: self.sources[name] for name in sorted(found)}

    def _included(self, name: str) -> set[str]:
        """Templates that one names in its own text; all of them where it computes a name."""
        found: set[str] = set()
        for statement in _TAKES_IN.findall(self.sources[name]):
            named = {each.removesuffix(".j2") for each in _QUOTED.findall(statement)}
            found |= named if named and named <= set(self.sources) else set(self.sources)
        return found
