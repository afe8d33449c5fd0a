"""Prompt templates that a spec brings along in place of the shipped ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.errors import SpecError
from charrun.spec.document import KeyPath, Mark, Source
from charrun.spec.draft import Draft
from charrun.spec.words import shown, suggest
from charrun.spec.yaml import read_text

if TYPE_CHECKING:
    from jinja2 import nodes

_SUFFIX = ".j2"


def resolve_templates(draft: Draft, known: Collection[str]) -> dict[str, Path]:
    """The spec's `templates`, name to file, as far as they are sound."""
    found: dict[str, Path] = {}
    for name, written in draft.mapping("templates").items():
        path = ("templates", name)
        if name not in known:
            hint = suggest(name, known, "templates")
            draft.add("SPEC026", f"unknown template {shown(name)}", path, hint, on="key")
        elif draft.sound(path):
            shipped = known if isinstance(known, Mapping) else {}
            found[name] = _template(draft, path, written, name, shipped)
    return found


def _template(draft: Draft, at: KeyPath, written: str, name: str, shipped: Mapping[str, Path]) -> Path:
    """The file, checked to be a text that jinja2 can parse, with variables that the shipped template has."""
    from jinja2 import Environment, TemplateSyntaxError

    path, told = draft.relative(written, at)
    try:
        text, lines = read_text(path, told)
        tree = Environment().parse(text)
    except SpecError as error:
        draft.add("SPEC027", f"template file {shown(told)}: {error.problems[0].message}", at)
        return path
    except TemplateSyntaxError as error:
        problem = Source(told, path, lines).problem(
            Mark(error.lineno, 1), "SPEC029", f"not a jinja2 template: {error.message}"
        )
        draft.add_elsewhere([problem])
        return path
    if name in shipped:
        given = _variables(name, shipped)
        source = Source(told, path, lines)
        for word, line in _unknown(tree, given):
            column = max(0, lines[line - 1].find(word)) + 1 if line <= len(lines) else 1
            message = f"template {name!r} has no variable {shown(word)}"
            hint = suggest(word, given, "variables")
            draft.add_elsewhere([source.problem(Mark(line, column, len(word)), "SPEC051", message, hint)])
    return path


def _variables(name: str, shipped: Mapping[str, Path], seen: frozenset[str] = frozenset()) -> set[str]:
    """The variables of a shipped template and of those that it includes."""
    from jinja2 import Environment, meta

    tree = Environment().parse(shipped[name].read_text(encoding="utf-8"))
    found = set(meta.find_undeclared_variables(tree))
    for included in meta.find_referenced_templates(tree):
        other = (included or "").removesuffix(_SUFFIX)
        if other in shipped and other not in seen:
            found |= _variables(other, shipped, seen | {name})
    return found


def _unknown(tree: nodes.Template, given: set[str]) -> Iterable[tuple[str, int]]:
    """Variables that nobody gives, each with the line of its first use."""
    from jinja2 import meta, nodes

    unknown = meta.find_undeclared_variables(tree) - given
    lines: dict[str, int] = {}
    for name in tree.find_all(nodes.Name):
        if name.name in unknown and name.ctx == "load":
            lines[name.name] = min(lines.get(name.name, name.lineno), name.lineno)
    return sorted(lines.items(), key=lambda item: (item[1], item[0]))
