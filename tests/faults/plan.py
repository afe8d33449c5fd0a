"""Faults as data: which request meets which one."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["status", "drop", "reset", "reset-mid-body", "slow", "never", "silence", "reorder", "duplicate"]

SAMPLE, RETRIEVE, STEP = "/api/v1/asample", "/api/v1/retrieve_future", "/api/v1/optim_step"
PASS, SAVE, SAVE_SAMPLER = "/api/v1/forward_backward", "/api/v1/save_weights", "/api/v1/save_weights_for_sampler"
SESSION, CAPABILITIES = "/api/v1/create_session", "/api/v1/get_server_capabilities"
CONFIG = "/api/v1/client/config"
LOAD, CREATE_SAMPLER = "/api/v1/load_weights", "/api/v1/create_sampling_session"
FOR_EVER = 10**9


@dataclass(frozen=True)
class Fault:
    """What happens to the nth request of a path, and to so many after it.

    Attributes:
        path: Path of the requests that it counts.
        kind: `status` answers with one; `drop` resets the connection before the engine sees the request; `reset`
            afterwards, before the answer's first byte, `reset-mid-body` in the middle of its body; `slow` sends the
            answer a byte at a time; `never` answers that there is no result yet, for ever, to who asks for this
            future; `silence` answers nothing; `reorder` holds `times` answers back and releases them last to first;
            `duplicate` sends the request to the engine twice and gives the second answer.
        nth: The first request that meets it, from 1.
        times: How many do.
        status: Of the answer.
        headers: Of the answer.
        body: Of the answer.
        request_type: Only requests with this `X-Tinker-Request-Type`, such as `Sample`.
        model: Only requests whose body has this text.
        seen: Whether the engine sees the request although its answer is lost (of `status`).
        seconds: How long a `slow` answer takes, a `never` one waits, a `reorder` one is held at most.
    """

    path: str
    kind: Kind
    nth: int = 1
    times: int = 1
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"detail": "a fault was injected here"}'
    request_type: str = ""
    model: str = ""
    seen: bool = False
    seconds: float = 1.0


class Plan:
    """Counts requests and says which of them meet a fault. Used from the proxy's thread, read from others."""

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self._lock = threading.Lock()
        self._counted = [0] * len(self.faults)
        self._met = [0] * len(self.faults)

    def meet(self, path: str, request_type: str, body: bytes) -> Fault | None:
        """The fault that this request meets, if any."""
        found: Fault | None = None
        with self._lock:
            for index, fault in enumerate(self.faults):
                if fault.path != path or fault.request_type not in ("", request_type):
                    continue
                if fault.model and fault.model.encode() not in body:
                    continue
                self._counted[index] += 1
                if found is None and fault.nth <= self._counted[index] < fault.nth + fault.times:
                    self._met[index] += 1
                    found = fault
        return found

    @property
    def met(self) -> int:
        """How many requests met a fault."""
        with self._lock:
            return sum(self._met)

    @property
    def over(self) -> bool:
        """Whether every fault that ends has ended."""
        with self._lock:
            pairs = zip(self.faults, self._met, strict=True)
            return all(met >= fault.times or math.isinf(fault.times) for fault, met in pairs)
