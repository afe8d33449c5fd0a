"""`charrun validate`: every problem of specs and of the files that they name, at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from charrun.commands.loading import open_registry, resolve
from charrun.errors import SpecError


@click.command()
@click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=str))
def validate(specs: Sequence[str]) -> None:
    """Check specs; every problem at once."""
    from charrun.commands.run import Silent
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.run import check_cells, plan_cells

    registry = open_registry()
    engine = next(iter(registry.engines.values()))()
    problems = []
    for name in specs:
        try:
            spec = resolve(name, (), registry)
            check_cells(plan_cells(Choice(engine, spec), registry, Path("runs"), Silent()))
        except SpecError as error:
            problems += list(error.problems)
        else:
            click.echo(f"{name} is valid")
    if problems:
        raise SpecError(problems)
