"""Whether the engine still answers: requests that wait, and when the last answer came."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator


class Pulse:
    """Counts of this process.

    Attributes:
        waiting: Requests that are sent, or about to be, and not answered.
        unpaid: What the service says of billing while it refuses requests; empty while it takes them.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.unpaid = ""
        self._last = time.monotonic()

    @contextlib.contextmanager
    def beat(self) -> Iterator[None]:
        """Around the wait for one answer; an error is an answer too."""
        if not self.waiting:
            self._last = time.monotonic()
        self.waiting += 1
        try:
            yield
            self.unpaid = ""  # somebody may have paid; where nobody has, the SDK says so again a minute later
        finally:
            self.waiting -= 1
            self._last = time.monotonic()

    def silent_seconds(self) -> float:
        """For how long requests have been waiting without any answer, on a clock that is never set."""
        return time.monotonic() - self._last if self.waiting else 0.0


pulse = Pulse()


class BillingNews(logging.Filter):
    """Takes from the SDK's log that the service wants to be paid: the SDK itself would ask in silence for an hour."""

    PAUSED = "The job is paused due to billing status. Error: "
    LOGGER = "tinker.lib.internal_client_holder"

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the message for the run, which tells it."""
        text = record.getMessage()
        if not text.startswith(self.PAUSED):
            return True
        pulse.unpaid = text.removeprefix(self.PAUSED)
        return False


def listen() -> None:
    """Hear of billing from now on."""
    logger = logging.getLogger(BillingNews.LOGGER)
    if not any(isinstance(each, BillingNews) for each in logger.filters):
        logger.addFilter(BillingNews())
