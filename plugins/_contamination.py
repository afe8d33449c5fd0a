"""Whether evaluation prompts, or much of their wording, stand in the rows that the models were trained on."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from charrun import Row
from charrun.statistics import wilson

if TYPE_CHECKING:
    from charrun import StageContext

NGRAM = 8
"""Words of an n-gram; a shorter prompt counts as a whole. Of a script without spaces each letter is a word."""
FEWEST = 3
"""A prompt of fewer words is compared as a whole text alone: so few words stand in any text."""
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:'[^\W{_UNSPACED}]+)*")
_SHOWN = 3

KINDS = ("pairs", "reflections", "interactions")
"""Kinds whose rows a run trains on."""


@dataclass
class TrainingTexts:
    """What was said in training rows.

    Attributes:
        asked: Texts of users.
        answered: Texts of assistants; of a pair both.
        unknown: Named checkpoints whose training rows nobody here knows.
    """

    asked: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, kind: str, row: Row) -> None:
        """Add the texts of a row."""
        if kind == "interactions":
            for message in row["messages"]:
                {"user": self.asked, "assistant": self.answered}.get(message["role"], []).append(message["content"])
            return
        self.asked.append(row["prompt"])
        self.answered += [row["chosen"], row["rejected"]] if kind == "pairs" else [row["text"]]


async def training_rows(ctx: StageContext) -> TrainingTexts:
    """The texts of every training row of earlier stages, and of those behind the checkpoints that are named."""
    found = TrainingTexts()
    for kind in KINDS:
        for rows in await ctx.every(kind):
            for row in rows:
                found.add(kind, row)
    for name, written in ctx.options.get("checkpoints", {}).items():
        behind = [(kind, row) for kind in KINDS for rows in ctx.rows_behind(written, kind) for row in rows]
        for kind, row in behind:
            found.add(kind, row)
        if not behind:
            found.unknown.append(name)
    return found


def contamination(prompts: Sequence[str], texts: TrainingTexts, left_out: int) -> Row:
    """How much of the prompts stands in the training rows; time grows with the length of both, added.

    A prompt that equals a whole training text is `exact`. Else its word n-grams are looked up in all texts: n is 8, or
    the number of its words where it has fewer (down to 3).

    Args:
        prompts: Each as the model sees it.
        texts: The training rows.
        left_out: Prompts that were dropped before because a user says them in training.

    Returns:
        `prompts`, `texts`, `left_out`, `exact`, `shared` (prompts with an n-gram in common) with `low` and `high`,
        `mean_share` of a prompt's n-grams that were found, the `worst` prompts, and `unknown` checkpoints.
    """
    unique = list(dict.fromkeys(prompts))
    known = {plain(text) for text in (*texts.asked, *texts.answered)}
    exact = {prompt for prompt in unique if plain(prompt) in known}
    grams = {prompt: ngrams(prompt) for prompt in unique}
    met = _met({gram for found in grams.values() for gram in found}, (*texts.asked, *texts.answered))
    shares = {p: sum(gram in met for gram in found) / len(found) if found else 0.0 for p, found in grams.items()}
    shared = [prompt for prompt in unique if shares[prompt] > 0]
    low, high = wilson(len(shared), len(unique))
    worst = sorted(shared, key=lambda prompt: (prompt not in exact, -shares[prompt], prompt))[:_SHOWN]
    return {
        "prompts": len(unique),
        "texts": len(texts.asked) + len(texts.answered),
        "ngram": NGRAM,
        "left_out": left_out,
        "exact": len(exact),
        "shared": len(shared),
        "low": low,
        "high": high,
        "mean_share": sum(shares.values()) / max(1, len(unique)),
        "worst": [
            {"prompt": p, "share": shares[p], "met": " ".join(next(gram for gram in grams[p] if gram in met))}
            for p in worst
        ],
        "unknown": texts.unknown,
    }


def contamination_line(found: Row) -> str:
    """One sentence of it, for the log."""
    if not found["texts"]:
        return f"contamination: no training rows are known; {found['prompts']} prompts are not checked"
    told = (
        f"contamination: {found['left_out']} prompts that training rows use are left out; of {found['prompts']} "
        f"prompts against {found['texts']:,} training texts {found['exact']} are equal to one and {found['shared']} "
        f"share {found['ngram']} words in a row, or all of fewer "
        f"({100 * found['low']:.1f} to {100 * found['high']:.1f}%)"
    )
    if found["worst"]:
        worst = found["worst"][0]
        told += f"; most, {100 * worst['share']:.0f}%: '{worst['prompt'][:80]}' shares '{worst['met']}'"
    return told + (f"; not known of {', '.join(found['unknown'])}" if found["unknown"] else "")


def plain(text: str) -> str:
    """A text as it is compared: lower case, compatible letters alike (NFKC), straight apostrophes, single blanks."""
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").casefold().split())


def ngrams(text: str) -> list[tuple[str, ...]]:
    """Its word n-grams, each once; n is less than 8 where it has fewer words, none where it has fewer than 3."""
    words = _WORD.findall(plain(text))
    n = min(NGRAM, len(words))
    return list(dict.fromkeys(tuple(words[i : i + n]) for i in range(len(words) - n + 1))) if n >= FEWEST else []


def _met(wanted: set[tuple[str, ...]], texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Which n-grams stand in the texts: one pass, in which most places end at a look for the first three words."""
    lengths: defaultdict[tuple[str, ...], set[int]] = defaultdict(set)
    for gram in wanted:
        lengths[gram[:FEWEST]].add(len(gram))
    met: set[tuple[str, ...]] = set()
    for text in texts:
        words = _WORD.findall(plain(text))
        for i, start in enumerate(zip(words, words[1:], words[2:], strict=False)):
            if start in lengths:
                met.update(gram for n in lengths[start] if (gram := tuple(words[i : i + n])) in wanted)
    return met
