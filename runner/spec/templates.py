"""Prompt templates that a spec brings along in place of the shipped ones."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from charrun.errors import SpecError
from charrun.spec.document import KeyPath, Mark, problem_at
from charrun.spec.draft import Draft
from charrun.spec.words import shown, suggest
from charrun.spec.yaml import read_text


def resolve_templates(draft: Draft, known: Collection[str]) -> dict[str, Path]:
    """The spec's `templates`, name to file, as far as they are sound."""
    found: dict[str, Path] = {}
    for name, written in draft.mapping("templates").items():
        path = ("templates", name)
        if name not in known:
            hint = suggest(name, known, "templates")
            draft.add("SPEC026", f"unknown template {shown(name)}", path, hint, on="key")
        elif draft.sound(path):
            found[name] = _template(draft, path, written)
    return found


def _template(draft: Draft, at: KeyPath, written: str) -> Path:
    """The file, checked to be a text that jinja2 can parse."""
    from jinja2 import Environment, TemplateSyntaxError

    path, told = draft.relative(written)
    try:
        text, lines = read_text(path, told)
        Environment().parse(text)
    except SpecError as error:
        draft.add("SPEC027", f"template file {shown(told)}: {error.problems[0].message}", at)
    except TemplateSyntaxError as error:
        mark = Mark(error.lineno, 1)
        draft.add_elsewhere([problem_at(told, lines, mark, "SPEC029", f"not a jinja2 template: {error.message}")])
    return path
