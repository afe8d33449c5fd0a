"""How many sequences are asked for at once: more as long as the engine takes them, fewer where it turns some away."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

FIRST, FEWEST, MOST = 400, 16, 2048
"""Sequences at once: as many as the SDK sends requests before it holds them back, and the service's own limit."""
_GROWTH, _SHARE = 0.05, 0.99
"""What a sequence that is answered adds to the limit, and what of it is left after a refusal."""
_STILL_SECONDS, _LONGEST_STILL = 60.0, 600.0


class Slots:
    """Lets requests pass, as many as fit: those of a stage in their order, and the stage's first that has the least.

    So a stage whose requests wait for each other's answers, as a conversation's do, moves on beside one that has asked
    for everything at once, and they end together.

    The SDK sends a request again, a second later at the soonest, that the engine has turned away (429), and holds back
    all others meanwhile. So a limit above the engine's own costs more than one below it: after a refusal it is lowered
    to below what was in flight, and stays there for a while before it grows again, each time twice as long. It grows
    only while it holds something back.

    Attributes:
        limit: Sequences at once.
        taken: Those that are asked for now.
    """

    def __init__(self) -> None:
        self.limit = float(FIRST)
        self.taken = 0
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}
        self._held: Counter[str] = Counter()
        self._refusals: dict[int, float] = {}
        self._still_until = 0.0
        self._still = _STILL_SECONDS

    @asynccontextmanager
    async def of(self, sequences: int, stage: str = "") -> AsyncIterator[None]:
        """Room for a stage's request of so many sequences, as soon as it is its turn."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(stage, deque()).append((sequences, place))
        self._let_in()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._give(sequences, stage)  # it had been let in
            raise
        try:
            yield
        finally:
            self._give(sequences, stage)

    def answered(self, client: Any, sequences: int) -> None:
        """A request was answered; the SDK's client tells whether the engine has turned others away meanwhile."""
        backoff = getattr(getattr(client, "holder", None), "_sample_backoff_until", None)
        if backoff is not None and self._refusals.get(id(client.holder)) != backoff:
            self._refusals[id(client.holder)] = backoff
            self.limit = max(float(FEWEST), self.limit / 2, min(self.limit, self.taken * _SHARE))
            now = time.monotonic()
            if now >= self._still_until:  # one spell: several clients may be turned away at once
                self._still_until = now + self._still
                self._still = min(2 * self._still, _LONGEST_STILL)
        elif self._waiting and time.monotonic() >= self._still_until:
            self.limit = min(float(MOST), self.limit + sequences * _GROWTH)

    def _give(self, sequences: int, stage: str) -> None:
        self._take(-sequences, stage)
        self._let_in()

    def _take(self, sequences: int, stage: str) -> None:
        self.taken += sequences
        self._held[stage] += sequences

    def _let_in(self) -> None:
        while (stage := self._next()) is not None:
            sequences, place = self._waiting[stage].popleft()
            self._take(sequences, stage)
            place.set_result(None)

    def _next(self) -> str | None:
        """The stage whose first request is let in now.

        While there is no room yet for that of the stage that has the least, others fill what there is, as long as they
        have no more than it will have.
        """
        for stage, waiting in list(self._waiting.items()):
            while waiting and waiting[0][1].done():  # it was cancelled
                waiting.popleft()
            if not waiting:
                del self._waiting[stage]
        if not self._waiting:
            return None
        first = min(self._waiting, key=self._held.__getitem__)
        if self._fits(self._size(first)):
            return first
        most = self._held[first] + self._size(first)
        others = [s for s in self._waiting if self._held[s] + self._size(s) <= most and self._fits(self._size(s))]
        return min(others, key=self._held.__getitem__, default=None)

    def _size(self, stage: str) -> int:
        return self._waiting[stage][0][0]

    def _fits(self, sequences: int) -> bool:
        return not self.taken or self.taken + sequences <= self.limit
