"""Prompt templates that a spec brings along in place of the shipped ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from charrun.errors import SpecError
from charrun.spec.document import KeyPath, Mark, Source
from charrun.spec.draft import Draft
from charrun.spec.parts import StageInfo, StageItem
from charrun.spec.template_variables import Broken, mentions, variables_of
from charrun.spec.words import shown, suggest
from charrun.spec.yaml import read_text


def resolve_templates(
    draft: Draft, known: Collection[str], stages: Mapping[str, StageInfo], items: Sequence[StageItem]
) -> dict[str, Path]:
    """The spec's `templates`, name to file, as far as they are sound.

    Args:
        draft: The spec.
        known: Names of templates; with the shipped files, the variables of a replacement are checked.
        stages: All stages.
        items: Those of the spec: what they give a template, a replacement must mention.
    """
    found: dict[str, Path] = {}
    for name, written in draft.mapping("templates").items():
        path = ("templates", name)
        if name not in known:
            hint = suggest(name, known, "templates")
            draft.add("SPEC026", f"unknown template {shown(name)}", path, hint, on="key")
        elif draft.sound(path):
            shipped = _texts(known) if isinstance(known, Mapping) else {}
            used = {item.uses: stages[item.uses] for item in items if name in stages[item.uses].templates}
            found[name] = _template(draft, path, written, name, shipped, used)
    return found


def _texts(files: Mapping[str, Path]) -> dict[str, str]:
    return {name: file.read_text(encoding="utf-8") for name, file in files.items()}


def _template(
    draft: Draft, at: KeyPath, written: str, name: str, shipped: Mapping[str, str], users: Mapping[str, StageInfo]
) -> Path:
    """The file, checked to be a text that jinja2 can parse, with the variables that the shipped template has."""
    path, told = draft.relative(written, at)
    try:
        text, lines = read_text(path, told)
    except SpecError as error:
        hint = draft.paths_hint(written, at) if error.problems[0].code == "SPEC001" else error.problems[0].hint
        draft.add("SPEC027", f"template file {shown(told)}: {error.problems[0].message}", at, hint)
        return path
    source = Source(told, path, lines)
    used = variables_of(text)
    if isinstance(used, Broken):
        line = min(used.line, len(lines))
        first = len(lines[line - 1]) - len(lines[line - 1].lstrip())
        hint = "a value is written {{ name }}, a loop {% for x in traits %}...{% endfor %}"
        problem = source.problem(Mark(line, first + 1), "SPEC029", f"not a jinja2 template: {used.message}", hint)
        draft.add_elsewhere([problem])
    elif name in shipped:
        given = mentions(name, shipped) or set()
        _check_mentions(draft, at, told, given, mentions(name, {**shipped, name: text}), users)
        for word, line in sorted(used.items(), key=lambda item: (item[1], item[0])):
            if word not in given:
                message = f"template {name!r} has no variable {shown(word)}"
                hint = suggest(word, given, "variables")
                draft.add_elsewhere([source.problem(_mark(lines, line, word), "SPEC051", message, hint)])
    return path


def _check_mentions(
    draft: Draft, at: KeyPath, told: str, given: set[str], held: set[str] | None, users: Mapping[str, StageInfo]
) -> None:
    """What a stage gives a template and it leaves out never reaches a model, and nobody would notice."""
    if held is None:
        return
    for variable in sorted(given - held):
        name = str(at[-1])
        wanting = [stage for stage, info in users.items() if variable not in info.templates[name]]
        if wanting:
            given_by = f"which stage {wanting[0]!r} gives it"
            message = f"the template {shown(told)} for {name!r} never mentions {variable!r}, {given_by}"
            hint = f"write {{{{ {variable} }}}} where it belongs: what is left out would never reach a model"
            draft.add("SPEC059", message, at, hint)


def _mark(lines: Sequence[str], line: int, word: str) -> Mark:
    """Where a word stands in a line; jinja2 breaks fewer lines than YAML does, so it may not be there."""
    line = min(line, len(lines))
    column = lines[line - 1].find(word)
    return Mark(line, column + 1, len(word)) if column >= 0 else Mark(line, 1)
