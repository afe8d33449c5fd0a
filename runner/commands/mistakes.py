"""What a command line that fits nothing was probably meant to be."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path

import click

from charrun.commands.words import looks_like_spec
from charrun.spec import builtin_specs
from charrun.spec.words import nearest

_ELSEWHERE = {
    "--dry-run": "`charrun plan SPEC` shows what a run would do",
    "--resume": "`charrun SPEC` always continues what it finds",
    "--config": "the spec is an argument: charrun SPEC",
}
"""Options that other programs have, and what stands for them here."""


def unknown_command(ctx: click.Context, word: str, names: Sequence[str]) -> click.UsageError:
    """The error for a first word that is neither a command nor looks like a spec."""
    shipped = builtin_specs()
    if os.path.isdir(word):
        inside = sorted(path.name for path in Path(word).glob("*.y*ml"))
        example = os.path.join(word, next((name for name in inside if name != "scales.yaml"), "SPEC.yaml"))
        return click.UsageError(f"{word!r} is a folder, not a command or a spec. Name a spec in it: {example}", ctx)
    if os.path.isfile(word):
        return click.UsageError(
            f"No such command {word!r}. To run a file whose name does not end in .yaml: charrun run {word}", ctx
        )
    meant = _spec(word, shipped)
    if not meant and (near := nearest(word, names)):
        meant = near
    elif not meant and (near := nearest(word, shipped)):
        meant = _spec(near, shipped)
    told = f"Did you mean {meant!r}?" if meant else "A spec is named by its file, such as specs/pirate-mini.yaml."
    return click.UsageError(f"No such command {word!r}. {told}", ctx)


def _spec(name: str, shipped: Collection[str]) -> str:
    """The command for a spec of this name: a file at hand, else the shipped one; empty where there is none."""
    files = (f"{folder}{name}.yaml" for folder in ("", "specs/"))
    found = next((file for file in files if os.path.isfile(file)), f"builtin:{name}" if name in shipped else "")
    return f"charrun {found}" if found else ""


def misplaced_option(error: click.NoSuchOption, words: Sequence[str], names: Collection[str]) -> click.UsageError:
    """The error for an option before the command or the spec; only `--help` and `--version` may stand there.

    Args:
        error: What click says.
        words: The command line.
        names: The commands.
    """
    option = error.option_name
    at = next((i for i, word in enumerate(words) if word in names or looks_like_spec(word)), None)
    if option in _ELSEWHERE or at is None:
        return error
    what = "command" if words[at] in names else "spec"
    order = shlex.join(["charrun", words[at], *words[:at], *words[at + 1 :]])
    return click.UsageError(f"{option!r} stands before the {what}. Options follow it: {order}", error.ctx)


def stand_in(option: str) -> str:
    """A line on what stands for an option that other programs have; empty for any other option."""
    return f"{_ELSEWHERE[option]}\n" if option in _ELSEWHERE else ""
