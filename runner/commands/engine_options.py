"""What the options of `charrun engine serve` stand for: models, the key, and how open the server may be."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from charrun.demo import MODELS
from charrun.engine.folders import ModelFacts, describe_all
from charrun.errors import EnvironmentProblem

KEY_VARIABLE = "CHARRUN_ENGINE_KEY"
_NAME = re.compile(r"[A-Za-z0-9][\w.:@/-]{0,199}")
_KEY = re.compile(r"tml-[\x21-\x7e]{4,200}")


@dataclass(frozen=True)
class Key:
    """The key that clients must send.

    Attributes:
        value: The key; empty where none is asked for.
        shown: The same as a word for a shell: a key that came from a file or a variable is not printed.
    """

    value: str
    shown: str


def check_exposure(host: str, allow_remote: bool, no_key: bool, insecure: bool) -> None:
    """Refuses to be open to others, unless told so twice.

    Raises:
        UsageError: It was not told so.
        EnvironmentProblem: The host is no address of this machine.
    """
    try:
        addresses = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise EnvironmentProblem(f"--host {host} is not an address: {error}") from error
    if not all(ipaddress.ip_address(address).is_loopback for address in addresses) and not allow_remote:
        raise click.UsageError(
            f"--host {host} can be reached from other machines, over unencrypted HTTP; add --allow-remote if that is "
            "meant."
        )
    if no_key and not insecure:
        raise click.UsageError(
            "--no-key lets every program that reaches the port use the models and delete checkpoints; add --insecure "
            "if that is meant."
        )


def models_of(asked: Sequence[str]) -> list[ModelFacts]:
    """What is to be served.

    Raises:
        UsageError: A name that cannot be one, or two models of one name.
        EnvironmentProblem: A folder that is not a model's; all of them at once.
    """
    folders: dict[str, Path] = {}
    missing = []
    for word in asked or MODELS:
        name, folder = _model(word)
        if folder is None:
            missing.append(
                f"{word}: neither a shipped model nor a folder; nothing is downloaded here, so fetch it first:\n"
                f"    hf download {word} --local-dir models/{word.rpartition('/')[2]}\n"
                f"    charrun engine serve --model {word}=models/{word.rpartition('/')[2]}"
            )
        elif folders.get(name, folder) != folder:
            raise click.UsageError(f"two folders are to be served as {name}: {folders[name]} and {folder}.")
        else:
            folders[name] = folder
    try:
        facts = describe_all(folders)
    except ValueError as error:
        missing += str(error).splitlines()
    if missing:
        raise EnvironmentProblem("\n".join(missing))
    return facts


def _model(word: str) -> tuple[str, Path | None]:
    """Name and folder of one --model; a folder without a name is served under its absolute path."""
    if word in MODELS:
        return word, MODELS[word]
    if not Path(word).exists() and "=" in word:
        name, _, place = word.partition("=")
        if not _NAME.fullmatch(name):
            raise click.UsageError(f"{name!r} cannot name a model: use letters, digits, and . _ - : @ / within.")
        return name, Path(place).expanduser().resolve()
    folder = Path(word).expanduser()
    plain = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", word) and not word.startswith(".")
    return (word, None) if plain and not folder.exists() else (str(folder.resolve()), folder.resolve())


def key_of(file: Path | None) -> Key:
    """The key of the file, else of the environment, else a new one.

    Raises:
        EnvironmentProblem: It is not a key.
    """
    if file is None and KEY_VARIABLE not in os.environ:
        value = f"tml-{secrets.token_hex(24)}"
        return Key(value, value)
    if file is None:
        value, source, shown = os.environ[KEY_VARIABLE], KEY_VARIABLE, f'"${KEY_VARIABLE}"'
    else:
        if not file.exists():
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w") as new:
                new.write(f"tml-{secrets.token_hex(24)}\n")
        value, source = file.read_text(errors="replace").strip(), str(file)
        shown = f'"$(cat {shlex.quote(str(file.resolve()))})"'
    if not _KEY.fullmatch(value):
        raise EnvironmentProblem(
            f"{source} does not hold a key",
            "a key is tml- and 4 to 200 letters, digits or signs: the SDK takes no other",
        )
    return Key(value, shown)
