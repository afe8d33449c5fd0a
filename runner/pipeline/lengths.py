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
        cut: Of each that was seen whether `max_tokens` ended it; empty where none was.
    """

    seen: tuple[int, ...] = ()
    same: bool = True
    cut: tuple[bool, ...] = ()

    @property
    def basis(self) -> str:
        """What an estimate rests on, in a few words."""
        if not self.seen:
            return f"answers of 1/{_SHORTEST} of max_tokens to all of it"
        earlier = f"{len(self.seen):,} earlier answers"
        if self.same and self.cut:
            return f"{earlier}, {sum(self.cut):,} of them cut by length"
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

    def spread(self) -> float:
        """How far the number of answers may be off that are asked for, as a share: such as are cut are made up for."""
        cut = sum(self.cut) / len(self.cut) if self.same and self.cut else 0.0
        return 2 * math.sqrt(cut / (1 - cut) / len(self.cut)) if 0 < cut < 1 else 0.0

    def draw(self, rng: random.Random, longest: int, share: float) -> tuple[int, bool]:
        """One answer's length, and whether it is known to be cut.

        Args:
            rng: Chooses among those that were seen.
            longest: The most that it may have.
            share: Where something is guessed, how far between the least (0) and the most (1) that is expected.
        """
        cut = False
        if self.seen:
            n = rng.randrange(len(self.seen))
            low = high = float(self.seen[n])
            if self.same:
                cut = low > longest or (low == longest and bool(self.cut) and self.cut[n])
            else:
                low, high = low * _SHORTER, min(high * _LONGER, longest)
        else:
            low, high = longest / _SHORTEST, float(longest)
        return max(1, min(longest, round(low + (high - low) * share))), cut


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
            cut = tuple(is_cut for _, is_cut in same[:_MOST])
            return Lengths(tuple(length for length, _ in same[:_MOST]), cut=cut if any(cut) else ())
        other = [length for lengths in found.values() for length, _ in lengths[:_MOST]]
        return Lengths(tuple(other[:_MOST]), same=False) if len(other) >= _FEWEST else Lengths()

    def _read(self, model: str, identity: str) -> dict[str, list[tuple[int, bool]]]:
        """Lengths of all of a model's answers, and whether they were cut, by the stage that asked for them."""
        found: dict[str, list[tuple[int, bool]]] = {}
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
                    lengths = ((len(each["tokens"]), each["stop_reason"] == "length") for each in record["sequences"])
                    found.setdefault(asked, []).extend(lengths)
        return found


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in read_lines(path):
        yield line.value
