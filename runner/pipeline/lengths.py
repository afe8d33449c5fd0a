"""How long answers will be: as rows of earlier runs say, of the same stage or of others, else by a stated default."""

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
_SHORTEST = 32
"""Where nothing is known, answers have at least this part of `max_tokens`."""
_SHORTER, _LONGER = 0.5, 2.0
"""How the answers of a stage may differ from those of others by the same model."""
_SURE = 0.02


@dataclass(frozen=True)
class Lengths:
    """Lengths of a stage's answers, in tokens.

    Attributes:
        seen: Those of earlier answers; empty where there are too few.
        same: Whether the same stage made them.
    """

    seen: tuple[int, ...] = ()
    same: bool = True

    @property
    def basis(self) -> str:
        """What an estimate rests on, in a few words."""
        if not self.seen:
            return f"answers of 1/{_SHORTEST} of max_tokens to all of it"
        earlier = f"{len(self.seen):,} earlier answers"
        return earlier if self.same else f"half to twice the length of {earlier} of the same model in other stages"

    @property
    def guessed(self) -> bool:
        """Whether nothing of the same stage is known."""
        return not self.seen or not self.same

    def slack(self, answers: int = 0) -> float:
        """How far the mean may be off, as a share of it: two standard errors, and a little for good measure.

        Args:
            answers: Of so many answers, whose lengths a dry run has drawn; 0 for the mean of any number.
        """
        if not self.seen:
            return 0.0
        drawn = 2 / answers if answers else 0.0  # the answers' own mean, and that of what was drawn for them
        return _SURE + 2 * pstdev(self.seen) / mean(self.seen) * math.sqrt(1 / len(self.seen) + drawn)

    def draw(self, rng: random.Random, longest: int, share: float) -> int:
        """One answer's length.

        Args:
            rng: Chooses among those that were seen.
            longest: The most that it may have.
            share: Where something is guessed, how far between the least (0) and the most (1) that is expected.
        """
        if self.seen:
            low = high = float(rng.choice(self.seen))
            if not self.same:
                low, high = low * _SHORTER, min(high * _LONGER, longest)
        else:
            low, high = longest / _SHORTEST, float(longest)
        return max(1, min(longest, round(low + (high - low) * share)))


class EarlierLengths:
    """Looks them up in a store; nothing is written, and each file is read once."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self.of = cache(self._of)
        self._found = cache(self._read)

    def _of(self, stage: str, model: str, identity: str) -> Lengths:
        """Lengths of what a stage's answers by a model were.

        Args:
            stage: Name of the stage.
            model: Name of the base model.
            identity: The same as fingerprints have it.
        """
        found = self._found(model, identity)
        same = found.get(stage, [])
        if len(same) >= _FEWEST:
            return Lengths(tuple(same[:_MOST]))
        other = [length for lengths in found.values() for length in lengths[:_MOST]]
        return Lengths(tuple(other[:_MOST]), same=False) if len(other) >= _FEWEST else Lengths()

    def _read(self, model: str, identity: str) -> dict[str, list[int]]:
        """Lengths of all of a model's answers, by the stage that asked for them."""
        found: dict[str, list[int]] = {}
        for path in sorted(self._store.glob(f"*/{ITEMS}")):
            stage, _, _ = path.parent.name.rpartition("-")
            shared = path.parent.name.startswith(ANSWERS)
            if not shared:
                models = (read_json(path.parent / "stage.json") or {}).get("models", {})
                if identity not in {each.get("model") for each in models.values()}:
                    continue
            for record in _records(path):
                # A stage with several models says in each record which it was; a checkpoint goes by its path.
                if record["model"] == model or (not shared and record["model"].startswith("tinker://")):
                    asked = str(record["work"]).partition("/")[0].rpartition("-")[0] if shared else stage
                    found.setdefault(asked, []).extend(len(each["tokens"]) for each in record["sequences"])
        return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in read_lines(path):
        yield line.value
