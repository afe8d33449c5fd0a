"""`charrun lint`: what is known to go wrong with a constitution, found before it is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrun.commands.loading import open_registry
from charrun.commands.options import json_option, no_plugins_option
from charrun.commands.words import character_names
from charrun.errors import EXIT_SPEC, Problem, SpecError, UsageProblem
from charrun.report.problems import problems_document, summary

if TYPE_CHECKING:
    from charrun.plugin_manager import Registry


@click.command()
@click.argument("characters", nargs=-1, required=True, shell_complete=character_names)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@json_option
@no_plugins_option
@click.pass_context
def lint(ctx: click.Context, characters: Sequence[str], strict: bool, as_json: bool, plugins: bool) -> None:
    """Check characters for what is known to go wrong.

    CHARACTERS are names of characters, or their files. docs/lint.md has the rules, each with the failure that it comes
    from. Exit code 3 where there are errors.
    """
    registry = open_registry(plugins)
    files = {name: _file(name, registry) for name in dict.fromkeys(characters)}
    found = _found(files, registry)
    if strict:
        found = {name: [replace(one, severity="error") for one in told] for name, told in found.items()}
    problems = [one for told in found.values() for one in told]
    valid = {name: all(one.severity != "error" for one in told) for name, told in found.items()}
    if as_json:
        click.echo(problems_document(problems, valid))
    else:
        for problem in problems:
            click.echo(problem.render(), err=True)
        for line in _origins(problems):
            click.echo(line, err=True)
        for name, told in found.items():
            if not told:
                click.echo(f"{name} is clean")
    click.echo(summary(problems, len(found)), err=True)
    if not all(valid.values()):
        ctx.exit(EXIT_SPEC)


def _origins(problems: Sequence[Problem]) -> list[str]:
    """Where each of the rules that found something comes from."""
    from charrun.spec.lint import RULES

    found = {problem.code for problem in problems}
    return [f"{rule.code} comes from: {rule.failure}" for rule in RULES if rule.code in found]


def _file(name: str, registry: Registry) -> Path:
    if name in registry.characters:
        return registry.characters[name]
    if "/" in name or name.endswith((".yaml", ".yml")):
        return Path(name)
    from charrun.spec.words import suggest

    hint = suggest(name, registry.characters, "characters")
    raise UsageProblem(f"no character is called {name!r}", f"{hint} (a file's name ends in .yaml)")


def _found(files: dict[str, Path], registry: Registry) -> dict[str, list[Problem]]:
    """Errors and warnings of each; a file that is no sound character has the problems of `charrun validate`."""
    from charrun.spec.library import load_character
    from charrun.spec.lint import lint as linted

    names: dict[str, str] = {}
    for path in (*registry.characters.values(), *files.values()):
        try:
            names |= {(one := load_character(path)).id: one.name}
        except SpecError:
            continue
    found: dict[str, list[Problem]] = {}
    for told, path in files.items():
        try:
            found[told] = linted(path, told if path == Path(told) else str(path), names)
        except SpecError as error:
            found[told] = list(error.problems)
    return found
