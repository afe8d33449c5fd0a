"""`charrun logs`: a run's journal, as lines for people or programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrun.commands.options import runs_dir_option
from charrun.commands.words import run_names, run_stages

if TYPE_CHECKING:
    from charrun.store.journal import Event, Tail
    from charrun.store.runs import Run

_POLL_SECONDS = 0.25
_LEVELS = ("info", "warning", "error")


@click.command()
@click.argument("run", default="", shell_complete=run_names)
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends; Ctrl-C stops the watching, not the run.")
@click.option("--stage", default="", metavar="ID", shell_complete=run_stages, help="Only what concerns this stage.")
@click.option("--level", type=click.Choice(_LEVELS), default="info", show_default=True, help="Leave lesser events out.")
@click.option("--engine", is_flag=True, help="Show the local engine's own log instead.")
@click.option("--json", "as_json", is_flag=True, help="Print events as they are, one JSON object a line.")
@runs_dir_option
def logs(run: str, follow: bool, stage: str, level: str, engine: bool, as_json: bool, runs_dir: Path) -> None:
    """Show what happened in a run, and with -f what happens.

    RUN is a name and number such as pirate-mini/2, a name for its latest run, or a run's folder; without it the
    latest run of all is meant.
    """
    from charrun.report.journal_lines import LEVELS, level_of, line_of
    from charrun.store.journal import Tail
    from charrun.store.runs import JOURNAL, find_run

    found = find_run(runs_dir, run)
    if engine:
        _engine_log(found, follow)
        return
    if stage:
        _check_stage(found, stage)
    several, wanted = len(found.cells) > 1, LEVELS[LEVELS.index(level) :]
    tail = Tail(found.folder / JOURNAL)
    for batch in _batches(tail, follow):
        for event in batch:
            if stage in ("", event.get("stage")) and level_of(event) in wanted:
                click.echo(json.dumps(event, ensure_ascii=False) if as_json else line_of(event, several))
    if tail.damage:
        click.echo(f"note: {tail.damage}", err=True)


def _batches(tail: Tail, follow: bool) -> Iterator[list[Event]]:
    """The events so far, and with `follow` those that come until no process works on the run any more."""
    from charrun.store.replay import RUNNING, Replay

    replay = Replay()
    while True:
        going = replay.status() == RUNNING  # asked before reading, so that the last words of a run are read
        batch = tail.read()
        replay.feed(batch)
        yield batch
        if not follow or not (batch or going):
            return
        if not batch:
            time.sleep(_POLL_SECONDS)


def _engine_log(run: Run, follow: bool) -> None:
    from charrun.report.text import safe
    from charrun.store.journal import Tail
    from charrun.store.runs import JOURNAL

    path = run.folder / "engine.log"
    if not path.exists() and not follow:
        click.echo(f"{run.id} has no engine.log: no local engine was started for it")
        return
    read = _line_reader(path)
    for _ in _batches(Tail(run.folder / JOURNAL), follow):
        for line in read():
            click.echo(safe(line))


def _line_reader(path: Path) -> Callable[[], list[str]]:
    """A function that returns the whole lines since its last call; a log that began anew is read from its start."""
    offset = 0

    def read() -> list[str]:
        nonlocal offset
        if not path.exists():
            return []
        offset = offset if path.stat().st_size >= offset else 0
        with path.open("rb") as file:
            file.seek(offset)
            whole = file.read().rpartition(b"\n")
        offset += len(whole[0]) + len(whole[1])
        return whole[0].decode(errors="replace").splitlines()

    return read


def _check_stage(run: Run, stage: str) -> None:
    from charrun.errors import UsageProblem

    ids = list(dict.fromkeys(each.id for cell in run.cells for each in cell.stages))
    if stage not in ids:
        raise UsageProblem(f"{run.id} has no stage '{stage}'", f"it has {', '.join(ids)}")
