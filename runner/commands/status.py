"""`charrun status`: what a run has done, does, and needs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from charrun.commands.options import json_option, runs_dir_option
from charrun.commands.words import run_cells, run_names
from charrun.errors import UsageProblem


@click.command()
@click.argument("run", default="", shell_complete=run_names)
@click.option("--cell", default="", metavar="NAME", shell_complete=run_cells, help="Show this cell alone, in full.")
@runs_dir_option
@json_option
def status(run: str, cell: str, runs_dir: Path, as_json: bool) -> None:
    """Show how far a run is.

    RUN is a name and number such as pirate-mini/2, a name for its latest run, or a run's folder; without it the
    latest run of all is shown. A run that goes on is not disturbed.
    """
    from charrun.report.columns import screen_width
    from charrun.report.run_json import run_document
    from charrun.report.run_views import status_lines
    from charrun.store.runs import find_run

    found = find_run(runs_dir, run)
    names = [each.name for each in found.cells]
    if cell and cell not in names:
        raise UsageProblem(f"{found.id} has no cell '{cell}'", f"it has {', '.join(names[:12])}")
    if as_json:
        document = run_document(found)
        document["cells"] = [each for each in document["cells"] if cell in ("", each["name"])]
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(status_lines(found, screen_width(), cell)))
