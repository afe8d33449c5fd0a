"""`charrun resume`: go on with a run from its own frozen spec."""

from __future__ import annotations

from pathlib import Path

import click

from charrun.commands.loading import load_document, open_registry
from charrun.commands.options import no_plugins_option, runs_dir_option
from charrun.commands.run import go
from charrun.commands.run_options import Way, way_options
from charrun.commands.words import run_names


@click.command()
@click.argument("run", default="", shell_complete=run_names)
@runs_dir_option
@no_plugins_option
@way_options
def resume(
    run: str,
    runs_dir: Path,
    plugins: bool,
    way: Way,
) -> None:
    """Go on with RUN from its frozen spec, whatever became of the file.

    RUN is a name and number such as pirate-mini/2, a name for its latest run, or a run's folder; without it the
    latest run of all is meant. The same engine, stand-ins and part of the spec are taken as last time.
    """
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.frozen import thaw
    from charrun.pipeline.selection import Selection
    from charrun.spec.emit import emit
    from charrun.spec.layers import read_text
    from charrun.store.run import SPEC, RunFolder
    from charrun.store.runs import find_run

    found = find_run(runs_dir, run)
    frozen = thaw(found)
    document = read_text(emit(frozen.data), frozen.path, str(found.folder / SPEC))
    loaded = load_document(open_registry(plugins), document, lambda file: file.digest in frozen.allowed)
    spec = frozen.placed(loaded.spec)
    choice = Choice(loaded.registry.engines[spec.engine.uses](), spec, frozen.stand_ins)
    selection = Selection.from_dict(found.selection)
    go(loaded, choice, found.runs_dir, selection, way, RunFolder(found.folder))
