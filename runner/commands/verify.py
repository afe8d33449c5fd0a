"""`charrun verify`: a run's files against their checksums."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from charrun.commands.options import json_option, no_plugins_option, runs_dir_option
from charrun.commands.words import run_names
from charrun.errors import EXIT_STAGE_FAILED


@click.command()
@click.argument("run", default="", shell_complete=run_names)
@runs_dir_option
@no_plugins_option
@json_option
def verify(run: str, runs_dir: Path, plugins: bool, as_json: bool) -> None:
    """Check every file of a run against its checksum.

    RUN is a name and number such as pirate-mini/2, a name for its latest run, or a run's folder; without it the
    latest run of all is meant. The store folders that it uses are checked too, and its checkpoints where they lie on
    this machine. What is damaged is named, with what the next run does about it; nothing is changed. Ends with 1
    where something is damaged.
    """
    from charrun.commands.loading import open_registry
    from charrun.pipeline.verify import verify as verified
    from charrun.report.verified import verified_document, verified_lines
    from charrun.store.runs import find_run

    found = find_run(runs_dir, run)
    result, unseen = verified(found, open_registry(plugins))
    if as_json:
        click.echo(json.dumps(verified_document(found, result, unseen), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(verified_lines(found, result, unseen)))
    if result.damage:
        sys.exit(EXIT_STAGE_FAILED)
