"""`charrun plan`: what a run would do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from charrun.commands.options import json_option, locked_option, plugin_options, runs_dir_option, set_option
from charrun.commands.run_options import PLAIN_VARIABLE, load_selected, selection_of, selection_options
from charrun.commands.run_shown import terminal
from charrun.commands.words import spec_files
from charrun.errors import render_problems

EXIT_WORK = 10


@click.command()
@click.argument("spec", type=click.Path(path_type=str), shell_complete=spec_files)
@selection_options
@set_option
@locked_option
@runs_dir_option
@plugin_options
@json_option
@click.option("--plain", is_flag=True, envvar=PLAIN_VARIABLE, help="Lines instead of tables.")
@click.option("--exit-code", is_flag=True, help=f"Exit with {EXIT_WORK} where there is something to do.")
def plan(
    spec: str,
    sets: Sequence[str],
    locked: bool,
    runs_dir: Path,
    plugins: bool,
    trust: bool,
    as_json: bool,
    plain: bool,
    exit_code: bool,
    **selected: Any,
) -> None:
    """Show what a run of SPEC would do, and why."""
    from charrun.pipeline.checks import check_cells, passed_cells
    from charrun.pipeline.choice import choose
    from charrun.pipeline.plan import plan as planned_cells
    from charrun.pipeline.run import plan_cells
    from charrun.report.plan import print_plan
    from charrun.report.summary import print_start

    selection = selection_of(**selected)
    loaded = load_selected(spec, sets, selection, plugins=plugins, trust=trust)
    choice = choose(loaded.spec, loaded.registry)
    if locked:
        from charrun.commands.lock import require_locked

        require_locked(spec, sets, loaded, choice)
    cells = plan_cells(choice, loaded.registry, runs_dir.absolute(), selection)
    warnings = [*choice.warnings, *check_cells(cells)]
    if warnings:
        click.echo(render_problems(warnings), err=True)
    if selection.after:
        cells, left = passed_cells(cells, selection.after)
        click.echo("\n".join(left), err=True, nl=bool(left))
    planned = planned_cells(cells)
    if as_json:
        click.echo(json.dumps({"cells": [asdict(cell) for cell in planned]}, indent=2))
    else:
        console = terminal()
        print_start(console, choice, [cell.spec for cell in cells])
        print_plan(console, choice, planned, plain)
    if exit_code and any(stage.state == "to do" for cell in planned for stage in cell.stages):
        raise click.exceptions.Exit(EXIT_WORK)
