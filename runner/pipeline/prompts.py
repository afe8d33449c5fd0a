"""Prompt texts: jinja2 template files of the stages, each replaceable by the spec."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.errors import EnvironmentProblem, Problem, SpecError
from charrun.spec.template_variables import mentions

if TYPE_CHECKING:
    from jinja2 import Environment

_TAKES_IN = re.compile(r"\{%[-+]?\s*(?:include|import|from|extends)\b(.*?)%\}", re.DOTALL)
_QUOTED = re.compile(r"""["']([^"']+)["']""")


_PROBE = "charrun-probe-value"


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

    def idle(self, name: str, variables: Mapping[str, object]) -> list[str]:
        """Those of some variables, and items of lists, whose value makes no difference to the text; truth values aside.

        `{% if traits %}Be nice.{% endif %}` mentions the traits, and none of them reaches a model. Each value is put in
        another's place: a word that nobody uses, one that the template itself holds, other numbers.
        """
        words = [_PROBE, *(word for text in self.sources_of([name]).values() for word in _QUOTED.findall(text))]
        text = self._tried(name, variables)
        return [
            told
            for variable, value in variables.items()
            for told, others in _varied(f"'{variable}'", value, words)
            if all(self._tried(name, {**variables, variable: other}) == text for other in others)
        ]

    def _tried(self, name: str, variables: Mapping[str, object]) -> object:
        """The text, or what equals no text where there is none with these values."""
        try:
            return self.render(name, **variables)
        except Exception:  # a filter may take no other value than those that a stage gives
            return object()

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


def _varied(told: str, value: object, words: Sequence[str]) -> Iterator[tuple[str, Sequence[object]]]:
    """A value, or each item of a list, with what it is called and other values for it; nothing where none is known."""
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            for inner, others in _varied(f"item {i + 1} of {told}", item, words):
                yield inner, [[*value[:i], other, *value[i + 1 :]] for other in others]
    elif isinstance(value, str) or value is None:
        yield told, [word for word in words if word != value]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield told, [other for other in (0, 1, value + 1, value + 1000) if other != value]
