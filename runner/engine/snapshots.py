"""Adapters that samplers hold in memory only: as many as fit; the ones used longest ago make room for new ones."""

from __future__ import annotations

import threading
from collections import OrderedDict

from charrun.engine.lora import Adapter
from charrun.engine.sampling import Weights
from charrun.engine.state import Sampler, Session, Sessions


class Snapshots:
    """The samplers without a checkpoint, over all sessions.

    Args:
        sessions: Where they are entered.
        limit: Bytes that their adapters may hold together; the newest may be larger.
    """

    def __init__(self, sessions: Sessions, limit: int) -> None:
        self._sessions = sessions
        self._limit = limit
        self._held: OrderedDict[str, tuple[Session, int]] = OrderedDict()
        self._lock = threading.Lock()  # made on the compute thread, used and dropped on the event loop

    def add(self, session: Session, sampler: Sampler, adapter: Adapter) -> None:
        """Makes a sampler part of its session, and older ones give way if need be.

        Raises:
            RequestRefused: The session has too many samplers.
        """
        size = sum(tensor.numel() * tensor.element_size() for tensor in adapter.tensors().values())
        with self._lock:
            self._sessions.add_sampler(session, sampler)
            self._held[sampler.id] = (session, size)
            while len(self._held) > 1 and sum(held for _, held in self._held.values()) > self._limit:
                oldest = next(iter(self._held))
                self._release(oldest)

    def use(self, sampler: Sampler) -> Weights:
        """A sampler's weights; marks a snapshot as used."""
        with self._lock:
            if sampler.id in self._held:
                self._held.move_to_end(sampler.id)
        return sampler.weights

    def close(self, session: Session) -> None:
        """Drops the snapshots of a session that is over."""
        with self._lock:
            for key in [key for key, (owner, _) in self._held.items() if owner is session]:
                self._release(key)

    def _release(self, sampler_id: str) -> None:
        session, _ = self._held.pop(sampler_id)
        sampler = session.samplers.pop(sampler_id, None)
        if sampler is not None:
            session.dropped.add(sampler_id)
