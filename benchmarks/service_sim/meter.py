"""The service's own bill: one line for each request that it has done, whoever has heard of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

KINDS = ("prefill", "cached", "sampled", "forward", "trained")


class Meter:
    """Appends to a bill."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def sampled(self, model: str, prompt: int, hits: int, samples: int, tokens: int) -> None:
        """A sampling request: its prompt once, less what was in the cache, and as a hit for each further sample."""
        self._bill(model, prefill=prompt - hits, cached=hits + (samples - 1) * prompt, sampled=tokens)

    def passed(self, model: str, tokens: int, backward: bool) -> None:
        """A forward pass alone, or a forward-and-backward pass."""
        self._bill(model, **{"trained" if backward else "forward": tokens})

    def _bill(self, model: str, **tokens: int) -> None:
        with self._lock:
            self._file.write(json.dumps({"model": model, **tokens}) + "\n")
            self._file.flush()


def read_bill(path: Path) -> dict[str, Counter[str]]:
    """Tokens of each kind by model."""
    total: dict[str, Counter[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        total.setdefault(entry.pop("model"), Counter()).update(entry)
    return total
