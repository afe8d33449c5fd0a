"""How long answers will be: as rows of earlier runs say, else by a stated default."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean, pstdev
from typing import Any

from charrun.store.files import read_json
from charrun.store.items import ANSWERS, ITEMS
from charrun.store.lines import read_lines

_MOST = 4000
"""Earlier answers that are looked at, for each stage and model."""
_FEWEST = 8
SHORTEST, LONGER = 1 / 32, 1 / 8
"""Shares of `max_tokens`, where nothing is known: the least that is expected, and what more is extrapolated from."""
_SURE = 0.02


@dataclass(frozen=True)
class Lengths:
    """Lengths of a stage's answers, in tokens.

    Attributes:
        seen: Those of earlier answers; empty where there are too few.
    """

    seen: tuple[int, ...] = ()

    @property
    def basis(self) -> str:
        """What an estimate rests on, in a few words."""
        return f"{len(self.seen):,} earlier answers" if self.seen else "answers of 1/32 of max_tokens to all of it"

    @property
    def slack(self) -> float:
        """How far the mean may be off, as a share of it: two standard errors, and a little for good measure."""
        if not self.seen:
            return 0.0
        return _SURE + 2 * pstdev(self.seen) / (mean(self.seen) * math.sqrt(len(self.seen)))

    def draw(self, rng: random.Random, longest: int, share: float) -> int:
        """One answer's length; where nothing is known, this share of the longest."""
        wanted = rng.choice(self.seen) if self.seen else round(longest * share)
        return max(1, min(longest, wanted))


class EarlierLengths:
    """Looks them up in a store; nothing is written, and each file is read once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self.of = cache(self._of)

    def _of(self, stage: str, model: str, identity: str) -> Lengths:
        """Lengths of what a stage's answers by a model were.

        Args:
            stage: Name of the stage.
            model: Name of the base model.
            identity: The same as fingerprints have it.
        """
        seen: list[int] = []
        for length in self._lengths(stage, model, identity):
            seen.append(length)
            if len(seen) == _MOST:
                break
        return Lengths(tuple(seen) if len(seen) >= _FEWEST else ())

    def _lengths(self, stage: str, model: str, identity: str) -> Iterator[int]:
        for folder in sorted(self._store.glob(f"{stage}-*")):
            models = (read_json(folder / "stage.json") or {}).get("models", {})
            if any(each.get("model") == identity for each in models.values()):
                yield from _answers(folder / ITEMS, "", "")
        for folder in sorted(self._store.glob(f"{ANSWERS}*")):
            yield from _answers(folder / ITEMS, model, f"{stage}-")


def _answers(path: Path, model: str, work: str) -> Iterator[int]:
    for line in read_lines(path):
        record: dict[str, Any] = line.value
        if model in ("", record["model"]) and str(record["work"]).startswith(work):
            yield from (len(sequence["tokens"]) for sequence in record["sequences"])
