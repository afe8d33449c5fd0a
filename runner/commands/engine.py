"""`charrun engine`: the local engine as a server of its own, for any program that speaks Tinker."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from charrun.commands.engine_options import KEY_VARIABLE, Key, check_exposure, key_of, models_of
from charrun.demo import MODELS
from charrun.engine.folders import ModelFacts, describe, parameter_count
from charrun.engine.settings import MEGABYTE, EngineSettings
from charrun.errors import EnvironmentProblem, Interrupted


@click.group()
def engine() -> None:
    """The local engine: Tinker on this machine.

    It serves any program that uses the Tinker SDK.
    """


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
@click.option(
    "--session-seconds",
    type=click.FloatRange(30),
    default=EngineSettings.session_seconds,
    show_default=True,
    help="A client that gave no sign of life for so long is gone, and its runs give their memory back.",
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
    session_seconds: float,
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
    check_exposure(host, allow_remote, no_key, insecure)
    facts = models_of(models_)
    key = Key("", "tml-none") if no_key else key_of(key_file)
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
        session_seconds=session_seconds,
        drain_seconds=drain,
    )
    _log(logging.WARNING if quiet else logging.INFO)
    click.echo(f"loading {len(facts)} model{'s' if len(facts) > 1 else ''} ...", err=True)
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
