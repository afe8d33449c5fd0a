"""`charrun completion`: what makes a shell complete charrun's commands, specs, stages and runs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Literal

import click

from charrun.home import home

Name = Literal["bash", "zsh", "fish"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.option("--install", is_flag=True, help="Write it where new shells find it; safe to repeat.")
def completion(shell: Name, install: bool) -> None:
    """Print or install completion for a shell.

    To try it in the shell at hand: source <(charrun completion bash), the same for zsh, and for fish:
    charrun completion fish | source
    """
    script = script_of(shell)
    if not install:
        click.echo(script, nl=False)
        return
    if shell == "fish":
        path = _home("XDG_CONFIG_HOME", ".config") / "fish/completions/charrun.fish"
        _write(path, script)
    else:
        path = _home("XDG_DATA_HOME", ".local/share") / f"charrun/completion.{shell}"
        _write(path, script)
        _add_line(_startup_file(shell), f"source {shlex.quote(str(path))}")
    click.echo("new shells complete charrun from now on")


def script_of(shell: Name) -> str:
    """The script that a shell evaluates to complete the command `charrun`."""
    from charrun.commands import shells
    from charrun.commands.words import COMPLETING

    classes = {"bash": shells.Bash, "zsh": shells.Zsh, "fish": shells.Fish}
    return classes[shell](click.Command("charrun"), {}, "charrun", COMPLETING).source()


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or home() / default)


def _startup_file(shell: Name) -> Path:
    return home() / ".bashrc" if shell == "bash" else Path(os.environ.get("ZDOTDIR") or home()) / ".zshrc"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}")


def _add_line(path: Path, line: str) -> None:
    """Add a line to a file of the user's, unless it is there."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
    if line in text.splitlines():
        return
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{'' if not text or text.endswith(chr(10)) else chr(10)}{line}\n")
    click.echo(f"added to {path}: {line}")
