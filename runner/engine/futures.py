"""Results that clients come back for: made on the event loop, settled from the compute thread, fetched by long poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.engine.errors import RequestRefused

KEEP_AFTER_FETCH = 120.0
"""Seconds that a fetched result stays, in case its answer was lost on the way."""
KEEP_UNFETCHED = 3600.0
"""Seconds that a result waits for its client."""


@dataclass(frozen=True)
class Failure:
    """A request that failed; `user` tells a wrong request from a fault of the server."""

    message: str
    user: bool


Outcome = bytes | Mapping[str, Any] | Failure
"""Protobuf bytes, a JSON object, or a failure."""


@dataclass
class Ticket:
    """One request's result to be.

    Attributes:
        request_id: What the client asks for it by.
        extra: Further fields of the submission's answer.
    """

    request_id: str
    loop: asyncio.AbstractEventLoop
    extra: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    expires: float = 0.0

    def settle(self, outcome: Outcome) -> None:
        """Hands the outcome over, from any thread."""
        self.loop.call_soon_threadsafe(self._settle, outcome)

    def fail(self, error: Exception) -> None:
        """Hands an error over, from any thread."""
        if isinstance(error, RequestRefused):
            self.settle(Failure(error.message, user=True))
        else:
            self.settle(Failure(f"{type(error).__name__}: {error}", user=False))

    def _settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.expires = time.monotonic() + KEEP_UNFETCHED
        self.ready.set()

    @property
    def answer(self) -> dict[str, Any]:
        """What the submission answers."""
        return {"request_id": self.request_id, **self.extra}


class TicketOffice:
    """All tickets of a server, by request id. Lives on the event loop."""

    def __init__(self) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._sweep_at = 0.0

    def get(self, request_id: str) -> Ticket | None:
        return self._tickets.get(request_id)

    def create(self, request_id: str, extra: Mapping[str, Any] | None = None) -> Ticket:
        """A new ticket; expired ones are dropped on the way."""
        self._sweep()
        ticket = Ticket(request_id, asyncio.get_running_loop(), extra or {})
        self._tickets[request_id] = ticket
        return ticket

    async def fetch(self, request_id: str, patience: float) -> Outcome | None:
        """The outcome, or None when it is not there after `patience` seconds.

        Raises:
            RequestRefused: No such request is known.
        """
        ticket = self._tickets.get(request_id)
        if ticket is None:
            raise RequestRefused(f"No request {request_id!r} is known; its result may have expired.", 404)
        try:
            await asyncio.wait_for(ticket.ready.wait(), patience)
        except TimeoutError:
            return None
        ticket.expires = min(ticket.expires, time.monotonic() + KEEP_AFTER_FETCH)
        return ticket.outcome

    def close(self) -> None:
        """Answers every request that is still open: the server is about to stop."""
        for ticket in self._tickets.values():
            if not ticket.ready.is_set():
                ticket._settle(Failure("The engine was stopped.", user=False))

    def _sweep(self) -> None:
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + 10
        for request_id in [key for key, each in self._tickets.items() if each.ready.is_set() and each.expires < now]:
            del self._tickets[request_id]
