"""Whether the engine still answers: requests that wait, and when the last answer came."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from charrun.errors import EnvironmentProblem

PATIENCE_SECONDS = 2 * 3600.0
"""As long as the SDK itself waits for the progress of samples."""
SHORT_PATIENCE_SECONDS = 300.0
"""For questions that cost nothing, outside a run: as long as the SDK itself asks again."""
_LAST_ANSWERS_SECONDS = 5.0
"""After the service refused a request for want of credit: answers to earlier ones are still stored."""


class Pulse:
    """Counts of this process.

    Attributes:
        waiting: Requests that are sent, or about to be, and not answered.
        unpaid: What the service says of billing while it refuses requests; empty while it takes them.
        patience: Seconds without any answer while requests wait, after which the engine counts as gone.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.unpaid = ""
        self.patience = SHORT_PATIENCE_SECONDS
        self._last = time.monotonic()

    @contextlib.contextmanager
    def beat(self) -> Iterator[None]:
        """Around the wait for one answer; an error is an answer too."""
        if not self.waiting:
            self._last = time.monotonic()
        self.waiting += 1
        try:
            yield
            self.unpaid = ""  # somebody may have paid; where nobody has, the next refusal says so again
        finally:
            self.waiting -= 1
            self._last = time.monotonic()

    def silent_seconds(self) -> float:
        """For how long requests have been waiting without any answer, on a clock that is never set."""
        return time.monotonic() - self._last if self.waiting else 0.0

    def trouble(self) -> EnvironmentProblem | None:
        """What a person should know instead of waiting on, if anything."""
        silent = self.silent_seconds()
        if self.unpaid and silent > _LAST_ANSWERS_SECONDS:
            return unpaid(self.unpaid)
        if silent > self.patience:
            return EnvironmentProblem(
                f"the engine has answered none of {self.waiting:,} requests for {_duration(silent)}",
                "what is recorded stays; run the same command again, with a longer --patience if it was only slow",
            )
        return None


pulse = Pulse()


def unpaid(told: str) -> EnvironmentProblem:
    """The service wants to be paid."""
    return EnvironmentProblem(
        f"the service wants to be paid: {told}",
        "what is recorded stays; add credit, then run the same command again",
    )


def _duration(seconds: float) -> str:
    """Minutes, or seconds where it is less than two of them."""
    return f"{seconds / 60:,.0f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"


class News(logging.Filter):
    """Takes from the SDK's log what the run tells, and that the service wants to be paid.

    The SDK itself would ask such a service in silence for an hour.
    """

    PAUSED = "The job is paused due to billing status. Error: "
    FAILED = "Request failed with non-retryable error: "
    LOGGERS = ("tinker.lib.internal_client_holder", "tinker.lib.retry_handler")

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a message for the run; the others are printed."""
        text = record.getMessage()
        if text.startswith(self.PAUSED):
            pulse.unpaid = text.removeprefix(self.PAUSED)
        return not text.startswith((self.PAUSED, self.FAILED))


def listen() -> None:
    """Hear of billing from now on, of every refusal: the SDK tells of one in a minute."""
    from tinker.lib import internal_client_holder

    internal_client_holder.BILLING_EXCEPTION_LOGGING_INTERVAL_SEC = 0
    for logger in map(logging.getLogger, News.LOGGERS):
        if not any(isinstance(each, News) for each in logger.filters):
            logger.addFilter(News())
