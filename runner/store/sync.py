"""Making appended lines durable in the background: one fsync a second for each file that has grown.

Contract:
1. What was appended is on the disk a second later.
2. An append does not wait for the disk.
3. A disk that fails in the background is told at the next append.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Protocol

INTERVAL_SECONDS = 1.0
"""A power cut loses what was appended within this time."""


class Syncable(Protocol):
    """An open file that has grown."""

    failure: OSError | None

    def fileno(self) -> int:
        """Its descriptor; raises ValueError once it is closed."""


class _Syncer:
    """A thread that begins with the first file and ends with the process."""

    def __init__(self) -> None:
        self._grown: set[Syncable] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def grown(self, file: Syncable) -> None:
        """Sync a file within the interval."""
        with self._changed:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="charrun-sync", daemon=True)
                self._thread.start()
            if not self._grown:
                self._changed.notify()
            self._grown.add(file)

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            with self._changed:
                while not self._grown:
                    self._changed.wait()
            pause.wait(INTERVAL_SECONDS / 2)
            with self._changed:
                files, self._grown = self._grown, set()
            for file in files:
                _sync(file)


def _sync(file: Syncable) -> None:
    # A copy of the descriptor: the file may be closed, and its number taken by another file, at any time.
    with contextlib.suppress(ValueError):
        try:
            handle = os.dup(file.fileno())
        except OSError:
            return
        try:
            os.fsync(handle)
        except OSError as error:
            file.failure = error
        finally:
            os.close(handle)


_syncer = _Syncer()
grown = _syncer.grown
