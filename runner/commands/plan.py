"""`charrun plan`: what a run would do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from charrun.commands.money import money_of
from charrun.commands.options import (
    budget_option,
    json_option,
    locked_option,
    plugin_options,
    runs_dir_option,
    set_option,
)
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
@budget_option
@click.option(
    "--probe",
    type=click.IntRange(min=8),
    metavar="N",
    help="First ask for N answers of each stage, which is paid for; their lengths are known then.",
)
@click.option(
    "--exit-code",
    is_flag=True,
    help=f"Exit with {EXIT_WORK} where there is something to do, also where a budget is too small for it.",
)
def plan(
    spec: str,
    sets: Sequence[str],
    locked: bool,
    runs_dir: Path,
    plugins: bool,
    trust: bool,
    as_json: bool,
    plain: bool,
    budget: float | None,
    probe: int | None,
    exit_code: bool,
    **selected: Any,
) -> None:
    """Show what a run of SPEC would do, and why.

    On a hosted engine also what it would use and cost: the stages run dry, in a folder that is thrown away, with nobody
    at the other end. Answers are as long as earlier ones of the same stage and model, else half to twice as long as
    those of the model in other stages, else from 1/32 of max_tokens to all of it. --probe asks for some first: what it
    asks base models is kept, and the run finds it; what a checkpoint will be asked, its base model is asked instead.
    """
    from charrun.pipeline.checks import check_cells, passed_cells
    from charrun.pipeline.choice import choose
    from charrun.pipeline.plan import plan as planned_cells
    from charrun.pipeline.plan import priced
    from charrun.pipeline.run import plan_cells
    from charrun.report.plan import plan_document, print_plan
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
    money = money_of(loaded, choice, runs_dir, cells, budget, probe=probe or 0)
    if money is not None:
        planned = priced(planned, money.foresight)
    if as_json:
        click.echo(json.dumps(plan_document(planned, money), indent=2))
    else:
        console = terminal()
        print_start(console, choice, [cell.spec for cell in cells])
        print_plan(console, choice, planned, plain, money)
    if exit_code and any(stage.state == "to do" for cell in planned for stage in cell.stages):
        raise click.exceptions.Exit(EXIT_WORK)
