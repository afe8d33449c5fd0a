"""The command line: a table of commands that are imported when they run, and what every one of them may end with."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint
from typing import Any

import click

from charrun import __version__
from charrun.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, EXIT_SPEC, CharrunError, PluginError, SpecError

DEFAULT = "run"
COMMANDS_GROUP = "charrun.commands"

COMMANDS = {
    "run": ("charrun.commands.run:run", "Run SPEC, or continue its run."),
    "validate": ("charrun.commands.validate:validate", "Check specs; every problem at once."),
    "engine": ("charrun.commands.engine:engine", "The local engine: Tinker on this machine."),
}
"""Each command's home and one-line help. A test holds them to the commands' own docstrings."""


class Commands(click.Group):
    """charrun's own commands and those of plugins; `run` is meant where the first word is a spec."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own commands in the table's order, then those of plugins, read from metadata alone."""
        return [*COMMANDS, *sorted(point.name for point in _further_commands() if point.name not in COMMANDS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, imported now.

        Raises:
            PluginError: A plugin's command cannot be imported, or two plugins have one of this name.
        """
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name][0].partition(":")
            own: click.Command = getattr(importlib.import_module(module), attribute)
            return own
        points = [point for point in _further_commands() if point.name == name]
        return _plugin_command(name, points) if points else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put `run` before a word that looks like a file; anything else must be a command."""
        if args and args[0] not in self.list_commands(ctx) and _looks_like_spec(args[0]):
            args = [DEFAULT, *args]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names with their one-line help; a plugin's command is not imported for that."""
        rows = [(name, text) for name, (_, text) in COMMANDS.items()]
        rows += [(point.name, f"(of {_owner(point)})") for point in _further_commands() if point.name not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`charrun SPEC` is short for `charrun run SPEC`.",
)
@click.version_option(__version__, prog_name="charrun")
def cli() -> None:
    """Train a character into a language model from one YAML file."""


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


def _further_commands() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points

    return entry_points(group=COMMANDS_GROUP)


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else point.value


def _plugin_command(name: str, points: Sequence[EntryPoint]) -> click.Command:
    if len(points) > 1:
        owners = " and ".join(sorted(_owner(point) for point in points))
        raise PluginError(f"the command '{name}' is registered by both {owners}", "uninstall one of them")
    try:
        loaded: Any = points[0].load()
    except Exception as error:  # whatever a stranger's module raises is told, not thrown
        raise PluginError(
            f"the command '{name}' of {_owner(points[0])} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, click.Command):
        raise PluginError(f"the command '{name}' of {_owner(points[0])} is no click command")
    return loaded
