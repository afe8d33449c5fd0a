"""`charrun run`: run a spec, or continue its run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from charrun.commands.loading import Loaded, load
from charrun.commands.options import locked_option, plugin_options, runs_dir_option, set_option
from charrun.commands.words import character_ids, model_ids, scale_names, spec_files, stage_ids
from charrun.errors import EnvironmentProblem, UsageProblem, render_problems
from charrun.spec.words import suggest

if TYPE_CHECKING:
    from rich.console import Console

    from charrun.pipeline.cell import Cell
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.results import RunResult
    from charrun.pipeline.selection import Selection
    from charrun.store.run import RunFolder

PLAIN_VARIABLE = "CHARRUN_PLAIN"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def selection_options(command: _Command) -> _Command:
    """`--character --model --scale --after --from --until --only --force`."""
    options = [
        click.option(
            "--character",
            "characters",
            multiple=True,
            metavar="ID",
            shell_complete=character_ids,
            help="Only this character's cells.",
        ),
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="ID",
            shell_complete=model_ids,
            help="Only the cells of this models entry.",
        ),
        click.option(
            "--scale",
            "scales",
            multiple=True,
            metavar="NAME",
            shell_complete=scale_names,
            help="Only this scale, listed or not.",
        ),
        click.option(
            "--after",
            metavar="SCALE",
            default="",
            shell_complete=scale_names,
            help="Only cells whose evaluation passed at SCALE.",
        ),
        click.option(
            "--from",
            "first",
            metavar="ID",
            default="",
            shell_complete=stage_ids,
            help="Begin with this stage; earlier ones are done.",
        ),
        click.option(
            "--until", "last", metavar="ID", default="", shell_complete=stage_ids, help="End with this stage."
        ),
        click.option(
            "--only", metavar="ID", default="", shell_complete=stage_ids, help="This stage alone: --from ID --until ID."
        ),
        click.option(
            "--force",
            "forced",
            multiple=True,
            metavar="ID",
            shell_complete=stage_ids,
            help="Make this stage anew though it is done.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def manner_options(command: _Command) -> _Command:
    """How a run is done and told: `--jobs --wait --patience --yes --json --plain --verbose --quiet`."""
    options = [
        click.option(
            "-j", "--jobs", type=click.IntRange(1), default=4, show_default=True, help="Cells that run at once."
        ),
        click.option(
            "--wait", is_flag=True, help="Wait for what another process writes, instead of ending with exit code 7."
        ),
        click.option(
            "--patience",
            type=click.FloatRange(0, min_open=True),
            default=120,
            show_default=True,
            metavar="MINUTES",
            help="End, resumable, when the engine has answered nothing for so long.",
        ),
        click.option("-y", "--yes", is_flag=True, help="Do not ask before a run on a hosted engine."),
        click.option(
            "--json", "as_json", is_flag=True, help="Events as JSON, one a line, instead of what a person reads."
        ),
        click.option("--plain", is_flag=True, envvar=PLAIN_VARIABLE, help="Lines instead of bars and tables."),
        click.option("-v", "--verbose", is_flag=True, help="Tell every optimiser step too."),
        click.option("-q", "--quiet", is_flag=True, help="Tell only what fails, and the results."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def selection_of(
    characters: Sequence[str],
    models: Sequence[str],
    scales: Sequence[str],
    after: str,
    first: str,
    last: str,
    only: str,
    forced: Sequence[str],
) -> Selection:
    """What `selection_options` gave.

    Raises:
        UsageError: `--only` beside `--from` or `--until`.
    """
    from charrun.pipeline.selection import Selection

    if only and (first or last):
        raise click.UsageError("--only cannot be used with --from or --until")
    return Selection(tuple(characters), tuple(models), tuple(scales), only or first, only or last, tuple(forced), after)


def load_selected(path: str, sets: Sequence[str], selection: Selection, *, plugins: bool, trust: bool) -> Loaded:
    """The spec; a scale that the options name and the spec does not list takes the place of those that it lists.

    Raises:
        SpecError: With every problem.
        PluginError: Two plugins register the same name, or a stage file may not run.
        UsageProblem: There is no such scale.
    """
    loaded = load(path, sets, plugins=plugins, trust=trust)
    listed = {scale.name: scale for scale in loaded.spec.scales}
    if set(selection.scales) <= set(listed):
        return loaded
    known = {**loaded.registry.scales, **listed}
    for name in selection.scales:
        if name not in known:
            raise UsageProblem(f"--scale {name}: there is no such scale", suggest(name, known, "scales"))
    scales = tuple(known[name] for name in dict.fromkeys(selection.scales))
    # The spec's own scales stay known by name: --after may name one.
    return Loaded(replace(loaded.spec, scales=scales), replace(loaded.registry, scales=known))


@click.command()
@click.argument("spec", type=click.Path(path_type=str), shell_complete=spec_files)
@selection_options
@set_option
@locked_option
@runs_dir_option
@plugin_options
@manner_options
def run(
    spec: str,
    sets: Sequence[str],
    locked: bool,
    runs_dir: Path,
    plugins: bool,
    trust: bool,
    jobs: int,
    wait: bool,
    patience: float,
    yes: bool,
    as_json: bool,
    plain: bool,
    verbose: bool,
    quiet: bool,
    **selected: Any,
) -> None:
    """Run SPEC, or continue its run.

    SPEC is a file, or builtin:NAME for a spec that ships with charrun. Without Tinker credentials a spec's stand-ins
    run on this machine.
    """
    from charrun.pipeline.choice import choose

    show = shown(as_json, plain, verbose, quiet)
    selection = selection_of(**selected)
    loaded = load_selected(spec, sets, selection, plugins=plugins, trust=trust)
    choice = choose(loaded.spec, loaded.registry)
    if locked:
        from charrun.commands.lock import require_locked

        require_locked(spec, sets, loaded, choice)
    go(loaded, choice, runs_dir, selection, show, Way(jobs, wait, patience, yes))


@dataclass(frozen=True)
class Way:
    """How a command was told to run: cells at once, waiting for others, minutes of patience, no question."""

    jobs: int
    wait: bool
    patience: float
    yes: bool


def shown(as_json: bool, plain: bool, verbose: bool, quiet: bool) -> _Json | _Person:
    """Who is told what happens.

    Raises:
        UsageError: Options that exclude each other.
    """
    if verbose and quiet:
        raise click.UsageError("--verbose and --quiet exclude each other")
    return _Json(verbose) if as_json else _Person(plain, 0 if quiet else 2 if verbose else 1)


def go(
    loaded: Loaded,
    choice: Choice,
    runs_dir: Path,
    selection: Selection,
    show: _Json | _Person,
    way: Way,
    folder: RunFolder | None = None,
) -> None:
    """Look, ask, run, and show what was made; `folder` is a run that is continued as it is."""
    selection = _prepare(loaded, choice, runs_dir, selection, show, way.yes)
    _go(loaded, choice, runs_dir, selection, show, way, folder)


def _prepare(
    loaded: Loaded, choice: Choice, runs_dir: Path, selection: Selection, show: _Json | _Person, yes: bool
) -> Selection:
    """Everything before the first write: stages' own checks, `--after`, and the question."""
    from charrun.pipeline.checks import check_cells, passed_cells
    from charrun.pipeline.run import plan_cells

    cells = plan_cells(choice, loaded.registry, runs_dir, selection)
    warnings = [*choice.warnings, *check_cells(cells)]
    if warnings:
        click.echo(render_problems(warnings), err=True)
    if selection.after:
        cells, left = passed_cells(cells, selection.after)
        for line in left:
            click.echo(line, err=True)
        selection = replace(selection, names=tuple(cell.name for cell in cells))
    show.begin(choice, cells)
    if choice.engine.hosted:
        _confirm(yes)
    return selection


def _go(
    loaded: Loaded,
    choice: Choice,
    runs_dir: Path,
    selection: Selection,
    show: _Json | _Person,
    way: Way,
    folder: RunFolder | None,
) -> None:
    from charrun.pipeline.results import CellsFailed
    from charrun.pipeline.run import Manner, run_choice
    from charrun.report.summary import report_markdown
    from charrun.store.files import write_atomic

    failed: CellsFailed | None = None
    manner = Manner(way.jobs, way.wait, way.patience * 60)
    with show.watching() as watcher:
        try:
            result = run_choice(choice, loaded.registry, runs_dir, [watcher], selection, manner, folder)
        except CellsFailed as error:  # what the others have made is shown nevertheless
            failed, result = error, error.result
    if result.cells:
        report = result.folder / "report.md"
        if not selection.is_part or not report.exists():  # a part's results do not take the place of the whole's
            write_atomic(report, report_markdown(result))
        show.end(result)
    if failed:
        raise failed


def _write(stdout: TextIO, line: str) -> None:
    """One line, until nobody reads them: a run does not end for that."""
    if stdout.closed:
        return
    try:
        click.echo(line, file=stdout)
    except OSError as error:
        reason = error.strerror or str(error)
        click.echo(f"warning: no more events can be written ({reason}); the run goes on", err=True)
        with suppress(OSError):
            stdout.close()


class _Json:
    """Events on stdout, one a line; nothing else is printed there."""

    def __init__(self, verbose: bool) -> None:
        self._verbose = verbose

    def begin(self, choice: Choice, cells: Sequence[Cell]) -> None: ...

    @contextmanager
    def watching(self) -> Iterator[object]:
        from charrun.report.event_lines import EventLines

        stdout = sys.stdout
        with redirect_stdout(sys.stderr):  # what stages and observers print
            yield EventLines(partial(_write, stdout), self._verbose)

    def end(self, result: RunResult) -> None: ...


class _Person:
    """What a person reads, on a terminal or not."""

    def __init__(self, plain: bool, verbosity: int) -> None:
        self.plain = plain or os.environ.get("TERM") == "dumb"
        self.verbosity = verbosity
        self.console = terminal("nobody reads this any more; the run goes on: charrun status tells how far it is")

    def begin(self, choice: Choice, cells: Sequence[Cell]) -> None:
        from charrun.pipeline.plan import plan
        from charrun.report.plan import print_plan
        from charrun.report.summary import print_start

        if self.verbosity:
            print_start(self.console, choice, [cell.spec for cell in cells])
        if choice.engine.hosted:
            print_plan(self.console, choice, plan(cells), self.plain)

    def watching(self) -> AbstractContextManager[object]:
        from charrun.report.console import ConsoleWatcher

        return ConsoleWatcher(self.console, self.plain, self.verbosity)

    def end(self, result: RunResult) -> None:
        from charrun.report.summary import print_summary

        print_summary(self.console, result, self.plain)


def _confirm(yes: bool) -> None:
    """Ask once.

    Raises:
        EnvironmentProblem: There is no terminal to ask at, and no --yes.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise EnvironmentProblem("a run on a hosted engine must be confirmed, and there is no terminal", "add --yes")
    click.confirm("Run it?", abort=True)


def terminal(left: str = "") -> Console:
    """Where a person reads.

    Args:
        left: What to say on stderr where the reader has left, such as `head`; nothing more is written then.
    """
    from rich.console import Console

    class Terminal(Console):
        def on_broken_pipe(self) -> None:  # rich's own would end the process, and with it a run
            self.quiet = True
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if left:
                click.echo(left, err=True)

    return Terminal(highlight=False)
