"""A stage in one file: the words that set the character's answers apart from the plain ones.

Monroe, Colaresi and Quinn (2008), "Fightin' Words": the log-odds ratio of a word between two bodies of text, with the
words of both together as the prior, divided by its standard deviation. Beyond 1.96 it is more than chance.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage

if TYPE_CHECKING:
    from charrun import StageContext

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")


class LexiconStage(Stage):
    """Counts the words of both sides of the pairs and publishes those that are most the character's own."""

    name: ClassVar[str] = "lexicon"
    summary: ClassVar[str] = "the words that set the character's answers apart"
    consumes: ClassVar[tuple[str, ...]] = ("pairs",)
    produces: ClassVar[tuple[str, ...]] = ("lexicon",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "words": {
                "type": "integer",
                "minimum": 1,
                "default": 20,
                "description": "Words in the table.",
            },
            "prior": {
                "type": "number",
                "exclusiveMinimum": 0,
                "default": 500,
                "description": "Words that the prior weighs; more of them pull rare words towards nothing.",
            },
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One row a word; no requests."""
        return Estimate(rows=ctx.options["words"])

    async def run(self, ctx: StageContext) -> None:
        """Count, compare, publish."""
        pairs = await ctx.rows("pairs")
        ctx.total(1)
        chosen, rejected = (_counted(pair[side] for pair in pairs) for side in ("chosen", "rejected"))
        table = _table(chosen, rejected, ctx.options["prior"])[: ctx.options["words"]]
        ctx.publish("lexicon", table)
        ctx.log("most the character's own: " + ", ".join(row["word"] for row in table[:8]))
        ctx.advance()


def _counted(texts: Any) -> Counter[str]:
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


def _table(chosen: Counter[str], rejected: Counter[str], prior: float) -> list[Row]:
    """One row a word, the most typical of `chosen` first; `z` is in standard deviations."""
    both = chosen + rejected
    total = both.total()
    rows = []
    for word, count in both.items():
        weight = prior * count / total
        odds, variance = [], 0.0
        for side in (chosen, rejected):
            occurred = side[word] + weight
            odds.append(math.log(occurred / (side.total() + prior - occurred)))
            variance += 1 / occurred
        z = (odds[0] - odds[1]) / math.sqrt(variance)
        rows.append({"word": word, "chosen": chosen[word], "rejected": rejected[word], "z": round(z, 2)})
    return sorted(rows, key=lambda row: (-row["z"], row["word"]))
