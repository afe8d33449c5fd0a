"""A server from its first breath to its last: opened, announced, stopped by a signal, drained.

To stop: no new work is taken, what was asked for before is finished and can be fetched, for at most
`drain_seconds`; what is still open then is answered with an error. The operation that is being computed, such as a
checkpoint being saved, always gets a moment to end, and a checkpoint is there whole or not at all. A second signal
ends the process at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from charrun.engine.settings import EngineSettings

if TYPE_CHECKING:
    from charrun.engine.desk import Desk

BACKLOG = 2048
M_ARENA_MAX = -8
CUT_OFF = 130
"""Exit code after a second signal."""
DELIVERY_SECONDS = 2.0
"""How long results wait, once all work is done, for their clients to fetch them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ended:
    """How a server ended.

    Attributes:
        cut_off: Requests that were still open.
        busy_seconds: How long it computed in all.
    """

    cut_off: int
    busy_seconds: float


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address that does not listen yet; port 0 takes any that is free.

    Raises:
        OSError: The port is taken or the host is not this machine's.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def run(
    settings: EngineSettings,
    listener: socket.socket,
    ready: Callable[[], None],
    *,
    stops: tuple[signal.Signals, ...] = (signal.SIGTERM,),
    preload: bool = False,
    access_log: bool = False,
    opened: Callable[[EngineSettings], Desk] | None = None,
) -> Ended:
    """Serves until one of the signals `stops` has come and what was in flight is done.

    Args:
        settings: What to serve.
        listener: Where to; a bound socket.
        ready: Called once it can answer.
        stops: Signals that end it.
        preload: Whether the models are loaded before it is ready, rather than when they are first needed.
        access_log: Whether each request is logged.
        opened: Makes the server's parts; by default those that compute on this machine.

    Raises:
        ValueError: A folder that is not a model's, a model that cannot be loaded, or a device that is not there.
        OSError: A storage folder or an address that cannot be used.
    """
    _set_up_process()
    from transformers.utils import logging as transformers_logging

    from charrun.engine.app import open_desk

    transformers_logging.disable_progress_bar()
    desk = (opened or open_desk)(settings)
    if preload:
        desk.shelf.load()
    listener.listen(BACKLOG)
    return asyncio.run(_serve(desk, listener, ready, stops, access_log))


def _set_up_process() -> None:
    """What must be settled before torch is imported and the first thread starts."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning threads take the cores from the clients
    # torch keeps what it prepared for the last 1,024 shapes of matrix product, and each thread its own heap: with
    # shapes that change all the time these grow to gigabytes and save nothing, for oneDNN itself remembers too.
    os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
    # oneDNN's own memory of a shape takes about 0.65 MB, making it anew 0.3 ms; it would keep 1,024.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
    warnings.simplefilter("ignore")


async def _serve(
    desk: Desk,
    listener: socket.socket,
    ready: Callable[[], None],
    stops: tuple[signal.Signals, ...],
    access_log: bool,
) -> Ended:
    import uvicorn

    from charrun.engine.app import build_app

    config = uvicorn.Config(
        build_app(desk, ready),
        log_config=None,
        log_level="info" if access_log else "warning",
        access_log=access_log,
        lifespan="on",
        ws="none",
        backlog=BACKLOG,
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    loop = asyncio.get_running_loop()
    cut_off = 0
    ending: asyncio.Task[None] | None = None

    async def end() -> None:
        nonlocal cut_off
        await _drain(desk)
        cut_off = desk.office.close()
        server.should_exit = True

    def stop() -> None:
        nonlocal ending
        if ending is not None:
            os._exit(CUT_OFF)
        desk.closing.set()
        ending = loop.create_task(end())

    for number in stops:
        loop.add_signal_handler(number, stop)
    await server.serve(sockets=[listener])
    return Ended(cut_off, desk.worker.busy_seconds)


async def _drain(desk: Desk) -> None:
    """Waits until no request is open and every result was fetched, within the limits of time."""
    limit = time.monotonic() + desk.settings.drain_seconds
    if desk.office.open and desk.settings.drain_seconds:
        logger.warning("finishing %d requests; a second signal cuts them off", desk.office.open)
    while desk.office.open and time.monotonic() < limit:
        await asyncio.sleep(0.05)
    limit = min(limit, time.monotonic() + DELIVERY_SECONDS)
    while desk.office.delivering and time.monotonic() < limit:
        await asyncio.sleep(0.05)
