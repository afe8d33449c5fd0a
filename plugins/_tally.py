"""What judging stages share: a character's gates, the tally of what they drop, and the first rows before the rest."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from charrun import StageFailed
from charrun.plugins._audit import common_opener
from charrun.plugins._gates import Fault, Gates
from charrun.plugins._languages import spoken
from charrun.plugins.characters import charrun_register_characters
from charrun.statistics import wilson

if TYPE_CHECKING:
    from charrun import Character, Row, StageContext

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
        "top_opener": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "default": 0.9,
            "description": "Stop when more than this share of those that pass begin with the same three words; 0 is "
            "never. The student's own answers may.",
        },
    },
    "additionalProperties": False,
}
"""The options `first` of every stage that pays for many rows."""

MOST_DROPPED: dict[str, Any] = {
    "type": "number",
    "minimum": 0,
    "maximum": 1,
    "default": 0.5,
    "description": "Ask for no more in place of what the gates drop once they clearly drop more than this share of all "
    "(the lower end of the 95% interval), and stop.",
    "x-charrun-identity": False,
}
"""The option `most_dropped` of stages that make up by themselves for what is dropped."""


def gates_of(ctx: StageContext, further: Sequence[Character] = ()) -> Gates:
    """The gates of the cell's character; other characters are the shipped ones and further ones."""
    known = [*further, *(ctx.find_character(id) for id in charrun_register_characters())]
    others = {c.name: [t.trait for t in c.traits] for c in known if c.id != ctx.character.id}
    traits = [t.trait for t in ctx.character.traits]
    languages = spoken(" ".join(traits))
    if languages and "English" not in languages and not ctx.dry:
        ctx.log(
            f"the constitution is in {' or '.join(sorted(languages))}: of refusals, role turns and claims to be an AI "
            "the gates know only the plainest words in other languages than English"
        )
    strangers = frozenset(others) - {c.name for c in further}
    return Gates(ctx.options["gates"], ctx.character.name, traits, others, strangers, idle=ctx.dry)


def distinct(rows: Sequence[Row], texts: Sequence[str], gates: Gates, tally: Tally, side: str = "") -> list[Row]:
    """Rows without those whose text, one each, is a near-duplicate of an earlier row's."""
    threshold = gates.options["near_duplicate"]
    if gates.idle or not threshold:
        return list(rows)
    from charrun.plugins._duplicates import near_duplicates  # imports numpy

    twins = near_duplicates(texts, threshold)
    for index, twin in twins.items():
        tally.judged -= 1  # it was counted as sound
        tally.count(Fault("near-duplicate", texts[twin][:80]), texts[index], rows[index]["id"], side)
    return [row for index, row in enumerate(rows) if index not in twins]


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


def check_first(ctx: StageContext, stage: str, tally: Tally, texts: Sequence[str]) -> None:
    """Whether the first rows are fit to ask for the rest; of fewer than `first.rows` the interval decides.

    Args:
        ctx: The stage's context.
        stage: Its name, for what to change.
        tally: What the gates dropped of them, near-duplicates included.
        texts: Those that passed and are what a model would be trained to say.

    Raises:
        StageFailed: The gates drop too many of them, or too many begin alike.
    """
    option = ctx.options["first"]
    few = tally.judged < option["rows"]  # so few may be more by chance
    if _share(tally.lost, tally.judged, few) > option["most_dropped"]:
        ctx.write("gates.json", tally.report())
        raise StageFailed(
            f"the gates dropped {_counted(tally.lost, tally.judged, 'the first')} before the rest was asked for: "
            f"{tally.listed()}",
            f"read {ctx.folder}/gates.json for examples; then change the constitution, max_tokens or {stage}.gates, or "
            f"raise {stage}.first.most_dropped",
        )
    opener, n = common_opener(texts)
    if not ctx.dry and 0 < option["top_opener"] < _share(n, len(texts), few):
        raise StageFailed(
            f"{_counted(n, len(texts), 'the first')} begin with {opener!r}; the rest was not asked for",
            "a model trained on these learns the opener and little else: reword the trait that asks for it, or raise "
            f"{stage}.first.top_opener",
        )


def check_dropped(ctx: StageContext, stage: str, tally: Tally, what: str = "texts") -> None:
    """Whether it is worth to ask for more in place of what was dropped.

    Raises:
        StageFailed: Clearly more than `most_dropped` was: so the lower end of the 95% interval says.
    """
    low, _ = wilson(tally.lost, tally.judged)
    if not tally.judged or low <= ctx.options["most_dropped"]:
        return
    ctx.write("gates.json", tally.report())
    raise StageFailed(
        f"{_counted(tally.lost, tally.judged, '', what)} were dropped, and no more are asked for: {tally.listed()}",
        f"read {ctx.folder}/gates.json for examples; where they are cut, raise {stage}.max_tokens; where they repeat "
        f"each other, raise {stage}.temperature or its gates.near_duplicate; or raise {stage}.most_dropped",
    )


def _share(n: int, of: int, few: bool) -> float:
    """A share, or the lower end of its interval."""
    return wilson(n, of)[0] if few else n / max(1, of)


def _counted(n: int, of: int, which: str, what: str = "texts") -> str:
    low, high = wilson(n, of)
    return f"{n} of {f'{which} {of} {what}'.strip()} (95% interval {low:.0%} to {high:.0%})"
