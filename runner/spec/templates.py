"""Prompt templates that a spec brings along in place of the shipped ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from charrun.errors import SpecError
from charrun.spec.document import KeyPath, Mark, Source
from charrun.spec.draft import Draft
from charrun.spec.words import shown, suggest
from charrun.spec.yaml import read_text

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
    path, told = draft.relative(written, at)
    try:
        text, lines = read_text(path, told)
    except SpecError as error:
        hint = draft.paths_hint(written, at) if error.problems[0].code == "SPEC001" else error.problems[0].hint
        draft.add("SPEC027", f"template file {shown(told)}: {error.problems[0].message}", at, hint)
        return path
    source = Source(told, path, lines)
    used = _used(text)
    if isinstance(used, _Broken):
        line = min(used.line, len(lines))
        first = len(lines[line - 1]) - len(lines[line - 1].lstrip())
        hint = "a value is written {{ name }}, a loop {% for x in traits %}...{% endfor %}"
        problem = source.problem(Mark(line, first + 1), "SPEC029", f"not a jinja2 template: {used.message}", hint)
        draft.add_elsewhere([problem])
    elif name in shipped:
        given = _variables(name, shipped)
        for word, line in sorted(used.items(), key=lambda item: (item[1], item[0])):
            if word not in given:
                message = f"template {name!r} has no variable {shown(word)}"
                hint = suggest(word, given, "variables")
                draft.add_elsewhere([source.problem(_mark(lines, line, word), "SPEC051", message, hint)])
    return path


def _mark(lines: Sequence[str], line: int, word: str) -> Mark:
    """Where a word stands in a line; jinja2 breaks fewer lines than YAML does, so it may not be there."""
    line = min(line, len(lines))
    column = lines[line - 1].find(word)
    return Mark(line, column + 1, len(word)) if column >= 0 else Mark(line, 1)


_OFFERED = ("loop", "self", "super", "caller", "varargs", "kwargs")
"""Names that jinja2 gives within loops, blocks and macros."""


@dataclass(frozen=True)
class _Broken:
    """Why a text is no template, and in which line."""

    message: str
    line: int = 1


def _used(text: str) -> dict[str, int] | _Broken:
    """The variables that a template wants to be given, each with the line of its first use.

    The tree is only looked at: what jinja2 itself offers for this computes constants, and `'x' * 10**9` is one. A name
    that the template sets anywhere counts as its own everywhere.
    """
    from jinja2 import Environment, TemplateSyntaxError, nodes
    from jinja2.defaults import DEFAULT_NAMESPACE

    lines: dict[str, int] = {}
    own = {*DEFAULT_NAMESPACE, *_OFFERED}
    try:
        for node in Environment().parse(text).find_all((nodes.Name, nodes.Macro, nodes.Import, nodes.FromImport)):
            if isinstance(node, nodes.Name) and node.ctx == "load":
                lines[node.name] = min(lines.get(node.name, node.lineno), node.lineno)
            elif isinstance(node, nodes.FromImport):
                own |= {each if isinstance(each, str) else each[1] for each in node.names}
            elif isinstance(node, nodes.Import):
                own.add(node.target)
            elif isinstance(node, nodes.Name | nodes.Macro):
                own.add(node.name)
    except TemplateSyntaxError as error:
        message = " ".join((error.message or "").split()).rstrip(".")
        return _Broken(message[:1].lower() + message[1:], error.lineno)
    except RecursionError:
        return _Broken("it is nested too deeply")
    except ValueError:
        return _Broken("it holds a number that is too long")
    return {name: line for name, line in lines.items() if name not in own}


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
