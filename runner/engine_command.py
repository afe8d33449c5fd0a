"""`charrun engine`: the local engine as a server of its own, for any program that speaks Tinker."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from charrun.demo import MODELS
from charrun.engine.folders import ModelFacts, describe, describe_all, parameter_count
from charrun.engine.settings import MEGABYTE, EngineSettings
from charrun.errors import EnvironmentProblem, Interrupted

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


@click.group()
def engine() -> None:
    """The local engine: Tinker on this machine, for any program that uses the Tinker SDK."""


@engine.command()
def models() -> None:
    """List the models that can be served by name."""
    rows = [("name", "parameters", "context", "folder")]
    for name, folder in MODELS.items():
        facts = describe(name, folder)
        rows.append((name, f"{parameter_count(folder):,}", f"{facts.context:,}", str(facts.folder)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, parameters, context, place in rows:
        click.echo(f"{name:<{widths[0]}}  {parameters:>{widths[1]}}  {context:>{widths[2]}}  {place}")


@engine.command()
@click.option(
    "--model",
    "models_",
    multiple=True,
    metavar="NAME|FOLDER|NAME=FOLDER",
    help="A model to serve; may be repeated. By default all that `charrun engine models` lists.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes any free one.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="Precision of the base models; auto is float32 on a CPU and bfloat16 on a GPU.",
)
@click.option(
    "--storage",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/engine"),
    show_default=True,
    help="Where checkpoints are kept, also from one start to the next.",
)
@click.option(
    "--key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"File with the key that clients must send; made where it is missing. Else the variable {KEY_VARIABLE}, "
    "else a new key at each start.",
)
@click.option("--no-key", is_flag=True, help="Ask for no key; needs --insecure.")
@click.option("--allow-remote", is_flag=True, help="Let --host be an address that other machines reach.")
@click.option("--insecure", is_flag=True, help="Confirm --no-key: who reaches the port may do everything.")
@click.option(
    "--drain",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    help="Seconds that requests in flight get to finish when the server is told to stop.",
)
@click.option("--max-runs", type=click.IntRange(1), default=EngineSettings.max_runs, show_default=True)
@click.option("--threads", type=click.IntRange(0), default=0, help="CPU threads; 0 decides by the machine.")
@click.option(
    "--cache-mib",
    type=click.IntRange(0),
    default=0,
    help="Memory for a model's keys and values; 0 decides by the machine.",
)
@click.option(
    "--adapter-mib",
    type=click.IntRange(1),
    default=EngineSettings.sampler_bytes // MEGABYTE,
    show_default=True,
    help="Memory for adapters that are ready to be sampled from.",
)
@click.option("--verbose", is_flag=True, help="Log each request.")
@click.option("--quiet", is_flag=True, help="Log warnings alone.")
def serve(
    models_: Sequence[str],
    host: str,
    port: int,
    device: str,
    dtype: str,
    storage: Path,
    key_file: Path | None,
    no_key: bool,
    allow_remote: bool,
    insecure: bool,
    drain: float,
    max_runs: int,
    threads: int,
    cache_mib: int,
    adapter_mib: int,
    verbose: bool,
    quiet: bool,
) -> None:
    """Serve models until Ctrl-C or SIGTERM.

    Prints the two variables that make a Tinker program use this engine, ready to be pasted into its shell. A model is
    a name from `charrun engine models`, a Hugging Face folder, or NAME=FOLDER; each is also served under its folder's
    absolute path. Nothing is ever downloaded.
    """
    _check_exposure(host, allow_remote, no_key, insecure)
    facts = _models(models_)
    key = Key("", "tml-none") if no_key else _key(key_file)
    listener = _bind(host, port)
    settings = EngineSettings(
        models={each.name: each.folder for each in facts},
        storage=storage,
        api_key=key.value,
        device=device,
        dtype=dtype,
        threads=threads,
        cache_bytes=cache_mib * MEGABYTE,
        sampler_bytes=adapter_mib * MEGABYTE,
        max_runs=max_runs,
        drain_seconds=drain,
    )
    _log(logging.WARNING if quiet else logging.INFO)
    click.echo(f"loading {len(facts)} model{'s' if len(facts) > 1 else ''} ...", err=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is first imported
    from charrun.engine import server

    try:
        ended = server.run(
            settings,
            listener,
            lambda: _announce(facts, host, listener.getsockname()[1], key, storage),
            stops=(signal.SIGINT, signal.SIGTERM),
            preload=True,
            access_log=verbose,
        )
    except ValueError as error:
        raise EnvironmentProblem(str(error)) from error
    if ended.cut_off:
        raise Interrupted(f"stopped; requests that were cut off: {ended.cut_off}", "--drain gives them more time")
    click.echo("stopped; everything that was in flight is done", err=True)


def _check_exposure(host: str, allow_remote: bool, no_key: bool, insecure: bool) -> None:
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


def _models(asked: Sequence[str]) -> list[ModelFacts]:
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


def _key(file: Path | None) -> Key:
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


def _bind(host: str, port: int) -> socket.socket:
    from charrun.engine.server import bind

    try:
        return bind(host, port)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen at {host}, port {port}: {error.strerror or error}", "--port 0 takes any port that is free"
        ) from error


def _announce(facts: Sequence[ModelFacts], host: str, port: int, key: Key, storage: Path) -> None:
    """The two variables on stdout, the rest for people on stderr."""
    everywhere = host in ("", "0.0.0.0", "::")
    address = "127.0.0.1" if everywhere else f"[{host}]" if ":" in host else host
    click.echo("\nserving:", err=True)
    for model in facts:
        alias = "" if model.name == str(model.folder) else f"  (also as {model.folder})"
        click.echo(
            f"  {model.name}  {parameter_count(model.folder):,} parameters, context {model.context}{alias}", err=True
        )
    click.echo(f"checkpoints in {storage.resolve()}", err=True)
    if everywhere:
        click.echo("other machines use this machine's name or address instead of 127.0.0.1", err=True)
    click.echo("for a program that is to use this engine:\n", err=True)
    sys.stderr.flush()
    click.echo(f"export TINKER_BASE_URL=http://{address}:{port}")
    click.echo(f"export TINKER_API_KEY={key.shown}")
    sys.stdout.flush()
    click.echo("\nCtrl-C finishes what is in flight and stops.", err=True)


def _log(level: int) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    for name in ("charrun.engine", "uvicorn"):
        logging.getLogger(name).addHandler(handler)
    logging.getLogger("charrun.engine").setLevel(level)
