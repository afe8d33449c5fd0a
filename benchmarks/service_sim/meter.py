"""The service's own bill: one line for each request that it has done, whoever has heard of it."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

KINDS = ("prefill", "cached", "sampled", "forward", "trained")
CACHED_SHARE = 0.2
"""What a prompt's token costs that was in the cache, as a share of one that was not."""
_HOUR = 3600
_EVENTS: dict[str, dict[str, Any]] = {
    "prefill": {"type": "sampling_prefill", "cached": False},
    "cached": {"type": "sampling_prefill", "cached": True},
    "sampled": {"type": "sampling_sample"},
    "forward": {"type": "training"},
    "trained": {"type": "training"},
}


class Meter:
    """Appends to a bill, and tells of it as the service's billing rows do; forward passes are billed as training.

    Args:
        path: The bill.
        note: What a session carries.
        prices: US dollars per million tokens by model, as `dollars` takes them; rows of others tell no estimate.
    """

    def __init__(
        self, path: Path, note: Callable[[str], dict[str, str]], prices: Mapping[str, Mapping[str, float]]
    ) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._hours: dict[tuple[int, str, str], Counter[str]] = {}
        self._note = cache(note)
        self._prices = prices

    def sampled(self, session: str, model: str, prompt: int, hits: int, samples: int, tokens: int) -> None:
        """A sampling request: its prompt once, less what was in the cache, and as a hit for each further sample."""
        self._bill(session, model, prefill=prompt - hits, cached=hits + (samples - 1) * prompt, sampled=tokens)

    def passed(self, session: str, model: str, tokens: int, backward: bool) -> None:
        """A forward pass alone, or a forward-and-backward pass."""
        self._bill(session, model, **{"trained" if backward else "forward": tokens})

    def events(self, start: float, end: float) -> dict[str, Any]:
        """What was billed in a span of hours, as the billing rows have it."""
        data, sessions = [], {}
        with self._lock:
            hours = {key: Counter(count) for key, count in self._hours.items()}
        for (hour, session, model), counts in sorted(hours.items()):
            if not start <= hour < end:
                continue
            sessions[session] = {"user_metadata": self._note(session)}
            for kind, tokens in counts.items():
                about: dict[str, Any] = {"bucket_start": _told(hour), "bucket_end": _told(hour + _HOUR)}
                about |= {"base_model": model, "session_id": session}
                if model in self._prices:
                    about["estimated_cost_usd"] = dollars(self._prices[model], {kind: tokens})
                data.append({**about, "event_info": {**_EVENTS[kind], "token_count": tokens}})
        return {"data": data, "sessions": sessions}

    def _bill(self, session: str, model: str, **tokens: int) -> None:
        self._note(session)  # while the session is known
        hour = int(time.time()) // _HOUR * _HOUR
        with self._lock:
            self._hours.setdefault((hour, session, model), Counter()).update(tokens)
            self._file.write(json.dumps({"model": model, **tokens}) + "\n")
            self._file.flush()


def _told(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def read_bill(path: Path) -> dict[str, Counter[str]]:
    """Tokens of each kind by model."""
    total: dict[str, Counter[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        total.setdefault(entry.pop("model"), Counter()).update(entry)
    return total


def dollars(price: Mapping[str, float], tokens: Mapping[str, int]) -> float:
    """What tokens of each kind cost by the `prefill`, `sample` and `train` of a million; forward passes as training."""
    prefill, train = price["prefill"], price.get("train", 0.0)
    rates = {"prefill": prefill, "cached": prefill * CACHED_SHARE, "sampled": price["sample"]}
    rates |= {"forward": train, "trained": train}
    return sum(rates[kind] * count for kind, count in tokens.items()) / 1e6
