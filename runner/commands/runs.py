"""`charrun runs`: the runs of a folder, one line each."""

from __future__ import annotations

import json
from pathlib import Path

import click

from charrun.commands.options import json_option, runs_dir_option


@click.command()
@runs_dir_option
@json_option
def runs(runs_dir: Path, as_json: bool) -> None:
    """List runs, the latest last."""
    from charrun.report.columns import screen_width
    from charrun.report.run_json import runs_document
    from charrun.report.run_views import runs_lines
    from charrun.store.runs import find_runs

    found = find_runs(runs_dir)
    if as_json:
        click.echo(json.dumps(runs_document(found, runs_dir), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(runs_lines(found, runs_dir, screen_width())))
