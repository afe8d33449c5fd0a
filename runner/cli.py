"""The command line: a table of commands that are imported when they run, and what every one of them may end with."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from charrun import __version__
from charrun.commands.words import COMPLETING, looks_like_spec, paths, specs
from charrun.errors import EXIT_ENVIRONMENT, EXIT_INTERRUPTED, EXIT_PIPE, EXIT_SPEC, CharrunError, SpecError
from charrun.secrets import guarded_streams, hide_message

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from charrun.plugin_metadata import Offer

DEFAULT = "run"

COMMANDS = {
    "run": ("charrun.commands.run:run", "Run SPEC, or continue its run."),
    "resume": ("charrun.commands.resume:resume", "Go on with RUN from its frozen spec, whatever became of the file."),
    "plan": ("charrun.commands.plan:plan", "Show what a run of SPEC would do, and why."),
    "validate": ("charrun.commands.validate:validate", "Check specs; every problem at once."),
    "show": ("charrun.commands.show:show", "Print SPEC as it is run, and where its values come from."),
    "lock": ("charrun.commands.lock:lock", "Write SPEC.lock, which says what a run of SPEC is made with."),
    "schema": ("charrun.commands.schema:schema", "Write the JSON Schema of specs, for editors."),
    "stages": ("charrun.commands.stages:stages", "List the stages, or the options of one."),
    "plugins": ("charrun.commands.plugins:plugins", "List the plugins; nothing of them is imported."),
    "characters": ("charrun.commands.characters:characters", "List the characters, or the traits of one."),
    "import-character": (
        "charrun.commands.import_character:import_character",
        "Make a character of a constitution in another format.",
    ),
    "lint": ("charrun.commands.lint:lint", "Check characters for what is known to go wrong."),
    "prices": ("charrun.commands.prices:prices", "Show what models cost at the hosted service."),
    "cost": ("charrun.commands.cost:cost", "Show what RUN has used, and what that costs."),
    "runs": ("charrun.commands.runs:runs", "List runs, the latest last."),
    "status": ("charrun.commands.status:status", "Show how far a run is."),
    "logs": ("charrun.commands.logs:logs", "Show what happened in a run, and with -f what happens."),
    "evidence": (
        "charrun.commands.evidence:evidence",
        "Show the rates of a run's arms and seeds, and how they differ.",
    ),
    "diff": ("charrun.commands.diff:diff", "Compare two runs: spec, versions, data, results."),
    "verify": ("charrun.commands.verify:verify", "Check every file of a run against its checksum."),
    "gc": ("charrun.commands.gc:gc", "Delete what no run refers to."),
    "chat": ("charrun.commands.chat:chat", "Talk with a checkpoint of a run."),
    "new": ("charrun.commands.new:new", "Start a spec, a character or a plugin."),
    "doctor": ("charrun.commands.doctor:doctor", "Check this machine, and SPEC on it."),
    "engine": ("charrun.commands.engine:engine", "The local engine: Tinker on this machine."),
    "completion": ("charrun.commands.completion:completion", "Print or install completion for a shell."),
}
"""Each command's home and one-line help. A test holds them to the commands' own docstrings."""


class Commands(click.Group):
    """charrun's own commands and those of plugins; `run` is meant where the first word is a spec."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own commands in the table's order, then those of plugins, read from metadata alone."""
        return [*COMMANDS, *(name for name in _further() if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command, imported now.

        Raises:
            PluginError: A plugin's command cannot be imported, or two plugins have one of this name.
        """
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name][0].partition(":")
            own: click.Command = getattr(importlib.import_module(module), attribute)
            return own
        if ctx.resilient_parsing:  # a shell asks what may follow the name, and nothing of a plugin is imported for that
            return click.Command(name, params=[click.Argument(["words"], nargs=-1, type=click.Path())])
        found = _further().get(name)
        if not found:
            return None
        from charrun.commands.further import load_command

        return load_command(name, found)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click, which does not say of an option before the command that its place is behind it."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from charrun.commands.mistakes import misplaced_option

            raise misplaced_option(error, words, self.list_commands(ctx)) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put `run` before a word that looks like a file; anything else must be a command.

        Raises:
            UsageError: It is none; names what was probably meant.
        """
        if looks_like_spec(args[0]) and args[0] not in self.list_commands(ctx):
            args = [DEFAULT, *args]
        command = self.get_command(ctx, args[0])
        if command is None:
            from charrun.commands.mistakes import unknown_command

            raise unknown_command(ctx, args[0], self.list_commands(ctx))
        return args[0], command, args[1:]

    def invoke(self, ctx: click.Context) -> Any:
        """As click, which ends with 1 where the reader has left; that is for stages that fail."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(EXIT_PIPE)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the first word: commands, those of plugins by name alone, and specs."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        rows = [(name, COMMANDS[name][1] if name in COMMANDS else None) for name in self.list_commands(ctx)]
        found = [CompletionItem(name, help=text) for name, text in rows if name.startswith(incomplete)]
        return [*found, *map(CompletionItem, specs(incomplete))] or [*map(CompletionItem, paths(incomplete, None))]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List names with their one-line help; a plugin's command is not imported for that."""
        rows = [(name, text) for name, (_, text) in COMMANDS.items()]
        owners = {name: " and of ".join(offer.owner for offer in found) for name, found in _further().items()}
        rows += [(name, f"(of {owner})") for name, owner in owners.items() if name not in COMMANDS]
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        refused = [(name, f"(of {owner}: charrun has its own)") for name, owner in owners.items() if name in COMMANDS]
        if refused:
            with formatter.section("Left out"):
                formatter.write_dl(refused)


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
    with guarded_streams():
        code = _ended(args)
    sys.exit(code)


def run() -> None:
    """The command as a process of its own: `main`, and no waiting for threads that never end.

    The SDK's threads go on until the process is gone. One that comes back from compiled code while the interpreter is
    being taken down aborts the process, once in about a thousand ends, and its exit code is lost.
    """
    try:
        main()
    except SystemExit as ended:
        if not any(thread.daemon for thread in threading.enumerate()):
            raise
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it any more
                stream.flush()
        os._exit(code)


def _ended(args: Sequence[str] | None) -> int:
    """Run the command line; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if COMPLETING in os.environ:
        importlib.import_module("charrun.commands.shells")
    try:
        # Outside of its own mode click gives back what a command exits with, or what its function returns.
        ended = cli.main(args=list(args) if args is not None else None, prog_name="charrun", standalone_mode=False)
        code = ended if isinstance(ended, int) else 0
    except click.Abort:
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption):
            from charrun.commands.mistakes import stand_in

            click.echo(stand_in(error.option_name), err=True, nl=False)
        code = error.exit_code
    except SpecError as error:
        click.echo(error.render(), err=True)
        count = sum(problem.severity == "error" for problem in error.problems)
        click.echo(f"{count} problem{'s' if count > 1 else ''}; nothing was run", err=True)
        code = EXIT_SPEC
    except CharrunError as error:
        click.echo(f"error: {hide_message(error.render())}", err=True)
        code = error.exit_code
    except OSError as error:
        click.echo(f"error: {error.strerror or error}: {error.filename or 'the file system'}", err=True)
        code = EXIT_ENVIRONMENT
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        code = EXIT_INTERRUPTED
    return code


def _further() -> dict[str, list[Offer]]:
    """What plugins offer, by the command's name."""
    from charrun.commands.further import further_commands

    found: dict[str, list[Offer]] = {}
    for offer in further_commands():
        found.setdefault(offer.name, []).append(offer)
    return found
