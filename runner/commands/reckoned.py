"""What is reckoned beside a run: in a process of its own, which takes what the run leaves of the processors."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

_T = TypeVar("_T")
_IDLE = 10
_LOOK_SECONDS = 1.0


class Reckoned(Generic[_T]):
    """What a call will have come to.

    Begin it before there are threads, locks and sessions at the engine: the other process is a copy of this one.

    Args:
        work: Reckons; what it returns must be picklable. Nobody hears of its errors, nor what it prints.
    """

    def __init__(self, work: Callable[[], _T]) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe(duplex=False)
        self._process = context.Process(target=_reckon, args=(theirs, work), daemon=True)
        self._process.start()
        theirs.close()

    def found(self) -> _T | None:
        """What it has come to; None as long as that is not known."""
        if self._pipe.closed or not self._pipe.poll():
            return None
        found: _T | None = None
        with contextlib.suppress(EOFError):  # it has failed
            found = self._pipe.recv()
        self.close()
        return found

    def close(self) -> None:
        """End it, if it goes on."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()


def _reckon(pipe: Connection, work: Callable[[], object]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which removes scratch folders
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.nice(_IDLE)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    with contextlib.suppress(Exception):
        pipe.send(work())


def _end_with(parent: int) -> None:
    """Nothing is left where the run was killed."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
