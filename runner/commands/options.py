"""Options that several commands share, each under one name and one help text."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from charrun.commands.words import folders, set_keys

_Command = TypeVar("_Command", bound=Callable[..., Any])


def plugin_options(command: _Command) -> _Command:
    """`--no-plugins` and `--trust`, as the parameters `plugins` and `trust`."""
    command = click.option(
        "--trust", is_flag=True, help="Run the stage files that a spec names without asking; for CI."
    )(command)
    return no_plugins_option(command)


def no_plugins_option(command: _Command) -> _Command:
    """`--no-plugins`, as the parameter `plugins`: False where it is given."""
    return click.option(
        "--no-plugins",
        "plugins",
        is_flag=True,
        flag_value=False,
        default=True,
        help="Load no installed plugin, only what ships with charrun.",
    )(command)


def set_option(command: _Command) -> _Command:
    """`--set KEY=VALUE`, any number of times, as the parameter `sets`."""
    return click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        shell_complete=set_keys,
        help="Change a value of the spec, such as stages.dpo.with.beta=0.2; may be repeated.",
    )(command)


def runs_dir_option(command: _Command) -> _Command:
    """`--runs-dir`, as the parameter `runs_dir`."""
    return click.option(
        "--runs-dir",
        type=click.Path(path_type=Path),
        default=Path("runs"),
        shell_complete=folders,
        show_default=True,
        help="Where runs and their rows are kept.",
    )(command)


def locked_option(command: _Command) -> _Command:
    """`--locked`, as the parameter `locked`."""
    return click.option(
        "--locked", is_flag=True, help="Refuse whatever differs from SPEC.lock, which `charrun lock` writes."
    )(command)


class Dollars(click.FloatRange):
    """A sum of money: a number above 0."""

    def __init__(self) -> None:
        super().__init__(0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """As click, which takes infinity and nan for numbers."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value} is no sum of money.", param, ctx)
        return found


def budget_option(command: _Command) -> _Command:
    """`--budget USD`, as the parameter `budget`: None where it is not given."""
    return click.option(
        "--budget", type=Dollars(), metavar="USD", help="What the run may cost in all, instead of what the spec says."
    )(command)


def json_option(command: _Command) -> _Command:
    """`--json`, as the parameter `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(command)
