"""How many sequences are asked for at once: more as long as the engine takes them, fewer where it turns some away."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

FIRST, FEWEST, MOST = 400, 16, 2048
"""Sequences at once: as many as the SDK sends requests before it holds them back, and the service's own limit."""
_GROWTH, _SHARE = 0.1, 0.9
_STILL_SECONDS = 30.0


class Slots:
    """Lets requests pass in their order, as many as fit.

    The SDK sends a request again, a second later at the soonest, that the engine has turned away (429), and holds back
    all others meanwhile. So a limit above the engine's own costs more than one below it: after a refusal it is lowered
    to below what was in flight, and stays there for a while before it grows again.

    Attributes:
        limit: Sequences at once.
        taken: Those that are asked for now.
    """

    def __init__(self) -> None:
        self.limit = float(FIRST)
        self.taken = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._refusals: dict[int, float] = {}
        self._still_until = 0.0

    @asynccontextmanager
    async def of(self, sequences: int) -> AsyncIterator[None]:
        """Room for a request of so many sequences, as soon as those before it have theirs."""
        if self._waiting or not self._fits(sequences):
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((sequences, place))
            try:
                await place
            except asyncio.CancelledError:
                if place.done() and not place.cancelled():
                    self._give(sequences)  # it had been let in
                raise
        else:
            self.taken += sequences
        try:
            yield
        finally:
            self._give(sequences)

    def answered(self, client: Any, sequences: int) -> None:
        """A request was answered; the SDK's client tells whether the engine has turned others away meanwhile."""
        backoff = getattr(getattr(client, "holder", None), "_sample_backoff_until", None)
        if backoff is not None and self._refusals.get(id(client.holder)) != backoff:
            self._refusals[id(client.holder)] = backoff
            self.limit = max(float(FEWEST), self.limit / 2, min(self.limit, self.taken * _SHARE))
            self._still_until = time.monotonic() + _STILL_SECONDS
        elif time.monotonic() >= self._still_until:
            self.limit = min(float(MOST), self.limit + sequences * _GROWTH)

    def _fits(self, sequences: int) -> bool:
        return not self.taken or self.taken + sequences <= self.limit

    def _give(self, sequences: int) -> None:
        self.taken -= sequences
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            number, place = self._waiting.popleft()
            if not place.done():
                self.taken += number
                place.set_result(None)
