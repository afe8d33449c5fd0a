"""Whether the engine still answers: requests that wait, and when the last answer came."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


class Pulse:
    """Counts of this process.

    Attributes:
        waiting: Requests that are sent, or about to be, and not answered.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._last = time.monotonic()

    @contextlib.contextmanager
    def beat(self) -> Iterator[None]:
        """Around the wait for one answer; an error is an answer too."""
        if not self.waiting:
            self._last = time.monotonic()
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self._last = time.monotonic()

    def silent_seconds(self) -> float:
        """For how long requests have been waiting without any answer, on a clock that is never set."""
        return time.monotonic() - self._last if self.waiting else 0.0


pulse = Pulse()
