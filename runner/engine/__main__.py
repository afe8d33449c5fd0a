"""`python -m charrun.engine`: a server whose settings come as one JSON line on stdin, and that ends with its parent.

Prints one JSON line, `{"port": ...}`, when it can answer. Stdin stays open: its end is the parent's end, however the
parent died, and then this process exits at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import warnings

from charrun.engine.folders import describe
from charrun.engine.settings import EngineSettings

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs a server until SIGTERM or the parent's end; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to handle
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        settings = EngineSettings.from_json(sys.stdin.readline())
    except ValueError as error:
        print(f"charrun.engine reads its settings from stdin: {error}", file=sys.stderr)
        return 2
    _end_with_parent()
    warnings.simplefilter("ignore")
    try:
        for name, folder in settings.models.items():
            describe(name, folder)  # a wrong folder should be told before seconds of imports
        return asyncio.run(_serve(settings))
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


async def _serve(settings: EngineSettings) -> int:
    import uvicorn
    from transformers.utils import logging

    from charrun.engine.app import build_app, open_desk

    logging.disable_progress_bar()
    desk = open_desk(settings)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    port = listener.getsockname()[1]
    config = uvicorn.Config(
        build_app(desk, lambda: _announce(port)),
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        backlog=2048,
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # signals are handled here: SIGINT stays ignored

    def stop() -> None:
        desk.office.close()
        server.should_exit = True

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    await server.serve(sockets=[listener])
    print(json.dumps({"busy_seconds": round(desk.worker.busy_seconds, 3)}), file=sys.stderr, flush=True)
    return 0


def _announce(port: int) -> None:
    """Tells the parent the port, then joins stdout to the log: nobody reads the pipe any more."""
    print(json.dumps({"port": port}), flush=True)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _end_with_parent() -> None:
    """Makes this process exit when its parent is gone."""
    parent = os.getppid()

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(0)

    def check(*_: object) -> None:
        # The kernel sends this when the thread that started us ends, which need not be the parent's end.
        if os.getppid() != parent:
            os._exit(0)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    if sys.platform == "linux":
        signal.signal(signal.SIGUSR1, check)
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
