"""What judging stages share: a character's gates, the tally of what they drop, and the first rows before the rest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from charrun import StageFailed
from charrun.plugins._gates import Fault, Gates
from charrun.plugins.characters import charrun_register_characters
from charrun.statistics import wilson

if TYPE_CHECKING:
    from charrun import Character, StageContext

_EXAMPLES = 3
_MOST_LOST = 0.5

FIRST: dict[str, Any] = {
    "type": "object",
    "default": {},
    "description": "The first rows are judged before the rest is asked for.",
    "x-charrun-identity": False,
    "properties": {
        "rows": {
            "type": "integer",
            "minimum": 0,
            "default": 100,
            "description": "How many; a stage that makes no more than these is not divided; 0 judges none.",
        },
        "most_dropped": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.5,
            "description": "Stop when the gates drop more than this share of them.",
        },
    },
    "additionalProperties": False,
}
"""The options `first` of every stage that pays for many rows."""


def gates_of(ctx: StageContext, further: Sequence[Character] = ()) -> Gates:
    """The gates of the cell's character; other characters are the shipped ones and further ones."""
    known = [*further, *(ctx.find_character(id) for id in charrun_register_characters())]
    others = {c.name: [t.trait for t in c.traits] for c in known if c.id != ctx.character.id}
    traits = [t.trait for t in ctx.character.traits]
    return Gates(ctx.options["gates"], ctx.character.name, traits, others, idle=ctx.dry)


class Tally:
    """How many texts were judged, and how many dropped by reason, with examples."""

    def __init__(self) -> None:
        self.judged = 0
        self.dropped: Counter[str] = Counter()
        self._examples: dict[str, list[dict[str, str]]] = {}

    def count(self, fault: Fault | None, text: str, id: str = "", side: str = "") -> bool:
        """Whether a text passed; it is counted either way."""
        self.judged += 1
        if fault is None:
            return True
        reason = f"{side} {fault.reason}".strip()
        self.dropped[reason] += 1
        shown = self._examples.setdefault(reason, [])
        if len(shown) < _EXAMPLES:
            shown.append({"id": id, "shown": fault.shown, "text": text[:300]})
        return False

    def add(self, other: Tally) -> None:
        """Count what another one has counted."""
        self.judged += other.judged
        self.dropped.update(other.dropped)
        for reason, shown in other._examples.items():
            self._examples[reason] = (self._examples.get(reason, []) + shown)[:_EXAMPLES]

    @property
    def lost(self) -> int:
        """How many were dropped."""
        return self.dropped.total()

    def to_get(self, n: int) -> int:
        """How many more to ask for, so that most likely n of them pass: what was dropped is dropped again as often.

        Three standard deviations are added: a text too many costs less than the wait for a further round, and the more
        texts there are, the more of the next are near-duplicates. Where more than half was dropped, something is wrong,
        and no more are asked for than are needed.
        """
        share = self.lost / max(1, self.judged)
        if share > _MOST_LOST:
            return n
        return math.ceil((n + 3 * math.sqrt(n * share * (1 - share))) / (1 - share))

    def listed(self) -> str:
        """Counts by reason, the commonest first."""
        return ", ".join(f"{count} {reason}" for reason, count in self.dropped.most_common()) or "none"

    def report(self) -> dict[str, Any]:
        """What a gates file holds: counts, the share with its 95% interval (Wilson), and examples by reason."""
        low, high = wilson(self.lost, self.judged)
        return {
            "judged": self.judged,
            "dropped": dict(self.dropped.most_common()),
            "share": {"dropped": self.lost / max(1, self.judged), "n": self.judged, "interval": [low, high]},
            "examples": self._examples,
        }


def first_of(ctx: StageContext, wanted: int, texts_each: int = 1) -> int:
    """How many of the items come first: those with the first rows; all where there are no more."""
    return min(wanted, -(-int(ctx.options["first"]["rows"]) // texts_each))


def check_first(ctx: StageContext, stage: str, tally: Tally) -> None:
    """Whether the first rows are fit to ask for the rest; of fewer than `first.rows` the interval decides.

    Raises:
        StageFailed: The gates drop too many of them.
    """
    low, high = wilson(tally.lost, tally.judged)
    few = tally.judged < ctx.options["first"]["rows"]  # so few may be more by chance
    if (low if few else tally.lost / max(1, tally.judged)) <= ctx.options["first"]["most_dropped"]:
        return
    ctx.write("gates.json", tally.report())
    raise StageFailed(
        f"the gates dropped {tally.lost} of the first {tally.judged} texts (95% interval {low:.0%} to {high:.0%}) "
        f"before the rest was asked for: {tally.listed()}",
        f"read {ctx.folder}/gates.json for examples; then change the constitution, max_tokens or {stage}.gates, or "
        f"raise {stage}.first.most_dropped",
    )
