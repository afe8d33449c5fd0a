"""`charrun diff`: two runs side by side."""

from __future__ import annotations

import json
from pathlib import Path

import click

from charrun.commands.options import json_option, runs_dir_option
from charrun.commands.words import run_names


@click.command()
@click.argument("run_a", shell_complete=run_names)
@click.argument("run_b", shell_complete=run_names)
@runs_dir_option
@json_option
def diff(run_a: str, run_b: str, runs_dir: Path, as_json: bool) -> None:
    """Compare two runs: spec, versions, data, results.

    RUN_A and RUN_B are names and numbers such as pirate-mini/2, names for their latest runs, or runs' folders. The
    last line says whether B did better than A, as far as the evaluations can tell.
    """
    from charrun.report.columns import screen_width
    from charrun.report.comparison import compare
    from charrun.report.diff_lines import diff_lines
    from charrun.store.runs import find_run

    found = compare(find_run(runs_dir, run_a), find_run(runs_dir, run_b))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(diff_lines(found, screen_width())))
