"""A stage in one file: the words that set the character's answers apart from the plain ones.

Dunning (1993), "Accurate Methods for the Statistics of Surprise and Coincidence": the log-likelihood ratio of a word's
counts in two bodies of text against one rate for both. From 3.84 on, one word in twenty would be there by chance.
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
            "least": {
                "type": "integer",
                "minimum": 1,
                "default": 3,
                "description": "Leave out words that occur more seldom than this.",
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
        table = _table(chosen, rejected, ctx.options["least"])[: ctx.options["words"]]
        ctx.publish("lexicon", table)
        ctx.log("most the character's own: " + ", ".join(row["word"] for row in table[:8]))
        ctx.advance()


def _counted(texts: Any) -> Counter[str]:
    return Counter(word for text in texts for word in _WORD.findall(text.lower()))


def _table(chosen: Counter[str], rejected: Counter[str], least: int) -> list[Row]:
    """One row a word that is more frequent in `chosen`, the most surprising first."""
    share = chosen.total() / (chosen.total() + rejected.total())
    rows = []
    for word, count in (chosen + rejected).items():
        expected = (count * share, count * (1 - share))
        found = (chosen[word], rejected[word])
        if count >= least and found[0] > expected[0]:
            surprise = 2 * sum(n * math.log(n / mean) for n, mean in zip(found, expected, strict=True) if n)
            row = {"word": word, "chosen": found[0], "rejected": found[1], "log_likelihood_ratio": round(surprise, 2)}
            rows.append(row)
    return sorted(rows, key=lambda row: (-row["log_likelihood_ratio"], row["word"]))
