"""`python -m charrun.engine`: a server whose settings come as one JSON line on stdin, and that ends with its parent.

Prints one JSON line, `{"port": ...}`, when it can answer. Stdin stays open: its end is the parent's end, however the
parent died, and then this process exits at once.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading

from charrun import secrets
from charrun.engine import server
from charrun.engine.folders import describe_all
from charrun.engine.settings import EngineSettings

PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs a server until SIGTERM or the parent's end; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the runner's to handle
    try:
        settings = EngineSettings.from_json(sys.stdin.readline())
    except ValueError as error:
        print(f"charrun.engine reads its settings from stdin: {error}", file=sys.stderr)
        return 2
    _end_with_parent()
    secrets.learn(settings.api_key)
    with secrets.guarded_streams():
        return _serve(settings)


def _serve(settings: EngineSettings) -> int:
    try:
        describe_all(settings.models)  # a wrong folder should be told before seconds of imports
        listener = server.bind("127.0.0.1", 0)
        ended = server.run(settings, listener, lambda: _announce(listener.getsockname()[1]))
    except (ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"busy_seconds": round(ended.busy_seconds, 3)}), file=sys.stderr, flush=True)
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
