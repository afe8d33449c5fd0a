"""`charrun gc`: delete what no run refers to."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from charrun.commands.options import json_option, no_plugins_option, runs_dir_option
from charrun.errors import EXIT_ENVIRONMENT, EnvironmentProblem

_DAY = 24 * 3600.0


@click.command()
@click.option("-n", "--dry-run", is_flag=True, help="List it, and delete nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask before it is deleted.")
@click.option(
    "--older-than",
    type=click.FloatRange(0),
    default=0.0,
    metavar="DAYS",
    help="Only what has not changed for so many days.",
)
@runs_dir_option
@no_plugins_option
@json_option
def gc(dry_run: bool, yes: bool, older_than: float, runs_dir: Path, plugins: bool, as_json: bool) -> None:
    """Delete what no run refers to.

    That is store folders, what was set aside or left over, and checkpoints. A run keeps what its journal names, also
    where it is not finished; once a run's folder is deleted, what it alone used is garbage. Of checkpoints, those go
    that a training only went on from, when it is done, and copies that were fetched; a final one never. What another
    process writes is left alone.
    """
    from charrun.commands.loading import open_registry
    from charrun.pipeline.garbage import collect, look
    from charrun.report.columns import screen_width
    from charrun.report.garbage import collected_lines, survey_document, survey_lines

    found = look(runs_dir, open_registry(plugins)).before(time.time() - older_than * _DAY)
    if not as_json:
        click.echo("\n".join(survey_lines(found, screen_width())))
    if dry_run or not found.count:
        if as_json:
            click.echo(json.dumps(survey_document(found, None), indent=2, ensure_ascii=False))
        elif dry_run and found.count:
            click.echo("A dry run: nothing was deleted.")
        return
    _confirm(yes, as_json)
    done = collect(found)
    if as_json:
        click.echo(json.dumps(survey_document(found, done), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(collected_lines(done)))
    if done.failed:
        sys.exit(EXIT_ENVIRONMENT)


def _confirm(yes: bool, as_json: bool) -> None:
    """Ask once.

    Raises:
        EnvironmentProblem: There is no terminal to ask at, and no --yes.
        Abort: A person says no.
    """
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise EnvironmentProblem("a deletion must be confirmed, and there is no terminal", "add --yes, or --dry-run")
    click.confirm("Delete it?", abort=True)
