"""The command line: `charrun SPEC`, `charrun run`, `charrun validate`, `charrun engine`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrun import __version__
from charrun.engine_command import engine
from charrun.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, EXIT_SPEC, CharrunError, EnvironmentProblem, SpecError

if TYPE_CHECKING:
    from charrun.plugin_manager import Registry
    from charrun.spec import Spec


class SpecGroup(click.Group):
    """A group whose default command is `run` where the first word is a spec, not a command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put `run` before a word that looks like a file; anything else must be a command."""
        if args and self.get_command(ctx, args[0]) is None and _looks_like_spec(args[0]):
            args = ["run", *args]
        return super().resolve_command(ctx, args)


@click.group(
    cls=SpecGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`charrun SPEC` is short for `charrun run SPEC`.",
)
@click.version_option(__version__, prog_name="charrun")
def cli() -> None:
    """Train a character into a language model from one YAML file."""


@cli.command()
@click.argument("spec", type=click.Path(path_type=str))
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where runs and their rows are kept.",
)
@click.option("--yes", is_flag=True, help="Do not ask before a run on a hosted engine.")
def run(spec: str, runs_dir: Path, yes: bool) -> None:
    """Run SPEC, or continue its run.

    SPEC is a file, or builtin:NAME for a spec that ships with charrun. Without Tinker credentials a spec's stand-ins
    run on this machine.
    """
    from charrun.pipeline.choice import choose
    from charrun.pipeline.run import check_cells, plan_cells, run_choice
    from charrun.report.console import ConsoleReporter
    from charrun.report.summary import print_plan, print_start, print_summary, report_markdown
    from charrun.store.files import write_atomic

    registry = _registry()
    choice = choose(_load(spec, registry), registry)
    cells = plan_cells(choice, registry, runs_dir, _Silent())
    check_cells(cells)
    console = _console()
    print_start(console, choice)
    if choice.engine.hosted:
        print_plan(console, choice, cells)
        _confirm(yes)
    with ConsoleReporter(console) as reporter:
        result = run_choice(choice, registry, runs_dir, reporter)
    write_atomic(result.folder / "report.md", report_markdown(result))
    print_summary(console, result)


@cli.command()
@click.argument("specs", nargs=-1, required=True, type=click.Path(path_type=str))
def validate(specs: Sequence[str]) -> None:
    """Check specs and the files that they name; every problem at once."""
    registry = _registry()
    problems = []
    for spec in specs:
        try:
            _check(_load(spec, registry), registry)
        except SpecError as error:
            problems += list(error.problems)
        else:
            click.echo(f"{spec} is valid")
    if problems:
        raise SpecError(problems)


cli.add_command(engine)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; an error that a user can meet is text, not a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cli.main(args=list(args) if args is not None else None, prog_name="charrun", standalone_mode=False)
        code = 0
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SpecError as error:
        click.echo(error.render(), err=True)
        count = len(error.problems)
        click.echo(f"{count} problem{'s' if count > 1 else ''}; nothing was run", err=True)
        code = EXIT_SPEC
    except CharrunError as error:
        click.echo(f"error: {error.render()}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        click.echo(f"error: {error.strerror or error}: {error.filename or 'the file system'}", err=True)
        code = EXIT_ENVIRONMENT
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    sys.exit(code)


def _looks_like_spec(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) or os.sep in word or "/" in word or word.startswith("builtin:")


def _registry() -> Registry:
    from charrun.plugin_manager import load_registry

    registry = load_registry()
    for warning in registry.warnings:
        click.echo(f"warning: {warning}", err=True)
    return registry


def _load(path: str, registry: Registry) -> Spec:
    from charrun.spec import StageInfo, load_spec

    return load_spec(
        path,
        stages={
            name: StageInfo(stage.options_schema, stage.consumes, stage.optional, stage.produces)
            for name, stage in registry.stages.items()
        },
        engines={name: engine.options_schema for name, engine in registry.engines.items()},
        templates=set(registry.templates),
    )


def _check(spec: Spec, registry: Registry) -> None:
    """What the stages say of a spec; the engine does not matter to it."""
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.run import check_cells, plan_cells

    engine = next(iter(registry.engines.values()))()
    check_cells(plan_cells(Choice(engine, spec), registry, Path("runs"), _Silent()))


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


class _Silent:
    """A reporter that shows nothing."""

    def message(self, text: str) -> None: ...

    def stage_started(self, cell: str, id: str, summary: str) -> None: ...

    def progress(self, cell: str, id: str, done: int, total: int, usage: Any) -> None: ...

    def stage_finished(self, cell: str, result: Any) -> None: ...


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
