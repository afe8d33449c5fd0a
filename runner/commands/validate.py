"""`charrun validate`: every problem of specs, characters and scales, and of the files that they name, at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import click

from charrun.commands.loading import load_with, open_registry
from charrun.commands.options import plugin_options, set_option
from charrun.commands.words import spec_files
from charrun.errors import EXIT_PLUGIN, EXIT_SPEC, PluginError, Problem, SpecError
from charrun.local_plugins import NotAllowed
from charrun.plugin_manager import Registry
from charrun.report.problems import annotation, problems_document, summary

PLUGIN = "PLUGIN"
"""Code of the problem that a plugin breaks its contract."""

Format = Literal["text", "json", "github"]


@click.command()
@click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=str), shell_complete=spec_files)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json", "github"]),
    default="text",
    show_default=True,
    help="For people, for programs, or as annotations of a GitHub workflow.",
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@set_option
@plugin_options
@click.pass_context
def validate(
    ctx: click.Context,
    specs: Sequence[str],
    format_: Format,
    strict: bool,
    sets: Sequence[str],
    plugins: bool,
    trust: bool,
) -> None:
    """Check specs; every problem at once.

    SPECS are spec, character and scale files; what each is follows from what it holds. Nothing is run.
    """
    registry = open_registry(plugins)
    found = {name: _problems(name, sets, registry, trust) for name in dict.fromkeys(specs)}
    if strict:
        found = {name: [replace(one, severity="error") for one in told] for name, told in found.items()}
    # What two specs share, such as a character file, is told once.
    problems = list(dict.fromkeys(one for told in found.values() for one in told))
    _print(format_, problems, {name: not _errors(told) for name, told in found.items()})
    click.echo(summary(problems, len(found)), err=True)
    if _errors(problems):
        of_plugins = all(one.code in (PLUGIN, "SPEC064") for one in problems if one.severity == "error")
        ctx.exit(EXIT_PLUGIN if of_plugins else EXIT_SPEC)


def _problems(name: str, sets: Sequence[str], registry: Registry, trust: bool) -> list[Problem]:
    """Errors and warnings of one file, in order; none of them ends the command."""
    from charrun.spec.kinds import check_file, kind_by_content, kind_by_place

    path = Path(name)
    kind = kind_by_place(path)
    try:
        if kind == "spec":
            return _check_spec(name, sets, registry, trust)
        check_file(kind, path, name)
        return []
    except SpecError as error:
        # Most files are sound specs, so only one that is not is looked at twice.
        if kind != "spec" or (kind := kind_by_content(path)) == "spec":
            return list(error.problems)
    except NotAllowed as error:
        return list(error.problems)
    except PluginError as error:
        return [Problem(PLUGIN, "; ".join(error.message.splitlines()), name, hint=error.hint)]
    try:
        check_file(kind, path, name)
        return []
    except SpecError as error:
        return list(error.problems)


def _check_spec(name: str, sets: Sequence[str], registry: Registry, trust: bool) -> list[Problem]:
    """Warnings alone.

    Raises:
        SpecError: With every problem, and the warnings.
        PluginError: A stage file may not run, or a plugin breaks its contract.
    """
    from charrun.pipeline.checks import check_cells
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.run import plan_cells

    loaded = load_with(registry, name, sets, trust=trust)
    engine = next(iter(registry.engines.values()))()
    return [
        *loaded.spec.warnings,
        *check_cells(plan_cells(Choice(engine, loaded.spec), loaded.registry, Path("runs"))),
    ]


def _errors(problems: Sequence[Problem]) -> bool:
    return any(problem.severity == "error" for problem in problems)


def _print(format_: Format, problems: Sequence[Problem], valid: dict[str, bool]) -> None:
    if format_ == "json":
        click.echo(problems_document(problems, valid))
    elif format_ == "github":
        for problem in problems:
            click.echo(annotation(problem))
    else:
        for name, sound in valid.items():
            if sound:
                click.echo(f"{name} is valid")
        for problem in problems:
            click.echo(problem.render(), err=True)
