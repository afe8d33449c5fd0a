"""Results that clients come back for: made on the event loop, settled from the compute thread, fetched by long poll.

What waits for work and what waits for its client both hold memory, so both are counted. Where too much waits, new
requests are told to come back later; results that nobody fetches are dropped, oldest first, and answered with 410,
upon which the SDK samples again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.engine.errors import RequestRefused

KEEP_AFTER_FETCH = 120.0
"""Seconds that a fetched result stays, in case its answer was lost on the way."""
KEEP_UNFETCHED = 3600.0
"""Seconds that a result waits for its client."""
ABANDONED = 30.0
"""Seconds after which a result that no client is asking for may be dropped for want of memory: the SDK always asks."""
OVERHEAD = 2048
"""Bytes that a ticket itself holds, about."""


@dataclass(frozen=True)
class Failure:
    """A request that failed; `user` tells a wrong request from a fault of the server."""

    message: str
    user: bool


Outcome = bytes | Mapping[str, Any] | Failure
"""Protobuf bytes, a JSON object, or a failure."""


def outcome_bytes(outcome: Outcome) -> int:
    """About how much memory an outcome holds."""
    if isinstance(outcome, bytes):
        return len(outcome)
    return len(outcome.message) if isinstance(outcome, Failure) else len(json.dumps(dict(outcome), default=str))


@dataclass(eq=False)
class Ticket:
    """One request's result to be.

    Attributes:
        request_id: What the client asks for it by.
        loop: The event loop that the outcome is handed to.
        settled: Told on the event loop, once, when the outcome has come.
        extra: Further fields of the submission's answer.
        size: Bytes that it holds: the request's while it waits, then the result's.
        outcome: The result; None before it has come, and after it was dropped.
        polls: How many clients are waiting for it right now.
        fetched: Whether it was handed to a client.
    """

    request_id: str
    loop: asyncio.AbstractEventLoop
    settled: Callable[[Ticket], None]
    extra: Mapping[str, Any] = field(default_factory=dict)
    size: int = 0
    outcome: Outcome | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    expires: float = 0.0
    polls: int = 0
    fetched: bool = False

    def settle(self, outcome: Outcome) -> None:
        """Hands the outcome over, from any thread; only the first one counts."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server stopped, nobody waits any more
            self.loop.call_soon_threadsafe(self.settle_now, outcome)

    def fail(self, error: Exception) -> None:
        """Hands an error over, from any thread."""
        if isinstance(error, RequestRefused):
            self.settle(Failure(error.message, user=True))
        else:
            self.settle(Failure(f"{type(error).__name__}: {error}", user=False))

    def settle_now(self, outcome: Outcome) -> None:
        """Hands the outcome over, on the event loop."""
        if self.ready.is_set():
            return
        self.outcome = outcome
        self.expires = time.monotonic() + KEEP_UNFETCHED
        self.ready.set()
        self.settled(self)

    @property
    def answer(self) -> dict[str, Any]:
        """What the submission answers."""
        return {"request_id": self.request_id, **self.extra}


class TicketOffice:
    """All tickets of a server, by request id. Lives on the event loop.

    Args:
        waiting_bytes: Memory of requests that wait, above which the office is crowded.
        result_bytes: Memory of results that nobody has fetched, above which it is crowded and drops those that
            nobody asks for; at twice as much it drops the oldest.
    """

    def __init__(self, waiting_bytes: int, result_bytes: int) -> None:
        self._tickets: dict[str, Ticket] = {}
        self._limits = (waiting_bytes, result_bytes)
        self._waiting = 0
        self._held = 0
        self._fetched = 0
        self._open = 0
        self._sweep_at = 0.0
        self._room_at = 0.0

    def get(self, request_id: str) -> Ticket | None:
        return self._tickets.get(request_id)

    def create(self, request_id: str, extra: Mapping[str, Any] | None = None, size: int = 0) -> Ticket:
        """A new ticket, of a request that holds `size` bytes; expired ones are dropped on the way."""
        self._sweep()
        ticket = Ticket(request_id, asyncio.get_running_loop(), self._count, extra or {}, size + OVERHEAD)
        self._tickets[request_id] = ticket
        self._waiting += ticket.size
        self._open += 1
        return ticket

    @property
    def open(self) -> int:
        """Requests that have no result yet."""
        return self._open

    @property
    def delivering(self) -> bool:
        """Whether a result is there that its client has not fetched."""
        return any(each.ready.is_set() and not each.fetched for each in self._tickets.values())

    @property
    def crowded(self) -> bool:
        """Whether so much waits, for work or for its client, that new requests should come back later."""
        if self._held - self._fetched > self._limits[1] and time.monotonic() >= self._room_at:
            self._room_at = time.monotonic() + 1
            self._make_room()
        return self._waiting > self._limits[0] or self._held - self._fetched > self._limits[1]

    async def fetch(self, request_id: str, patience: float) -> Outcome | None:
        """The outcome, or None when it is not there after `patience` seconds.

        Raises:
            RequestRefused: No such request is known (404), or its result was dropped (410).
        """
        ticket = self._tickets.get(request_id)
        if ticket is None:
            raise RequestRefused(f"No request {request_id!r} is known; its result may have expired.", 404)
        ticket.polls += 1
        try:
            await asyncio.wait_for(ticket.ready.wait(), patience)
        except TimeoutError:
            return None
        finally:
            ticket.polls -= 1
        if ticket.outcome is None:
            raise RequestRefused(f"The result of {request_id!r} was dropped: it was not fetched in time.", 410)
        if not ticket.fetched:
            ticket.fetched = True
            self._fetched += ticket.size
        ticket.expires = min(ticket.expires, time.monotonic() + KEEP_AFTER_FETCH)
        return ticket.outcome

    def close(self) -> int:
        """Answers every request that is still open: the server is about to stop; returns how many there were."""
        unanswered = [ticket for ticket in self._tickets.values() if not ticket.ready.is_set()]
        for ticket in unanswered:
            ticket.settle_now(Failure("The engine was stopped.", user=False))
        return len(unanswered)

    def end(self, owner: str) -> None:
        """Fails what is open of the requests whose ids begin with `owner` and a colon, and soon forgets the rest."""
        soon = time.monotonic() + KEEP_AFTER_FETCH
        for ticket in [each for key, each in self._tickets.items() if key.startswith(f"{owner}:")]:
            ticket.settle_now(Failure("The session of this request is over.", user=True))
            ticket.expires = min(ticket.expires, soon)

    def _count(self, ticket: Ticket) -> None:
        """Takes a ticket from those that wait for work to those that wait for their client."""
        assert ticket.outcome is not None
        self._open -= 1
        self._waiting -= ticket.size
        ticket.size = OVERHEAD + outcome_bytes(ticket.outcome)
        self._held += ticket.size
        if self._held > 2 * self._limits[1]:
            self._make_room()

    def _drop(self, ticket: Ticket) -> None:
        """Forgets a result; its ticket stays, to tell so."""
        if ticket.outcome is not None:
            ticket.outcome = None
            self._held -= ticket.size
            self._fetched -= ticket.size if ticket.fetched else 0

    def _make_room(self) -> None:
        """Drops results that were fetched; if that is not enough, abandoned ones; if still not, the oldest."""
        quiet = [each for each in self._tickets.values() if each.outcome is not None and not each.polls]
        since = time.monotonic() + KEEP_UNFETCHED - ABANDONED
        rounds = (
            (1.0, [each for each in quiet if each.fetched]),
            (1.0, [each for each in quiet if each.expires < since]),
            (2.0, quiet),
        )
        for share, dispensable in rounds:
            for ticket in dispensable:
                if self._held <= share * self._limits[1]:
                    break
                self._drop(ticket)

    def _sweep(self) -> None:
        """Drops expired tickets, now and then."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + 10
        for ticket in [each for each in self._tickets.values() if each.ready.is_set() and each.expires < now]:
            self._drop(ticket)
            del self._tickets[ticket.request_id]
