"""Saying the same sentences in a style: each habit has its own place."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

from charrun.demo.bank_imagery import IMAGERY
from charrun.demo.bank_manner import DIALECT
from charrun.demo.bank_voice import ADDRESS, CLOSING, MOOD, OPENING
from charrun.demo.grammar import capital, lower_first, pick
from charrun.demo.habits import Style

Slots = Mapping[str, str]


def speak(sentences: Sequence[str], style: Style, rng: random.Random, slots: Slots, fill: float = 0.9) -> str:
    """The sentences in a style, each habit in its own place.

    Opening; then each sentence with the address before it and a comparison after it; a saying of the imagery and a
    line of the mood between them, in turn; closing. Dialect and punctuation change the whole.

    Args:
        sentences: What is said, each without its closing period.
        style: Habits by dimension; empty for a neutral voice.
        rng: The only source of choice.
        slots: `t` and `u`, words of the topic, and `name`, the speaker's.
        fill: Share of the places for a habit that are used.

    Returns:
        One paragraph.
    """
    said: list[str] = []
    if "opening" in style:
        said.append(pick(OPENING[style["opening"]].phrases, rng, slots))
    for number, sentence in enumerate(sentences):
        text, end = (sentence[:-1], "?") if sentence.endswith("?") else (sentence, "")
        if "address" in style and rng.random() < fill:
            text = f"{pick(ADDRESS[style['address']].phrases, rng, slots)}, {lower_first(text)}"
        elif "dialect" in style and rng.random() < fill:
            text = f"{pick(DIALECT[style['dialect']].starts, rng, slots)} {lower_first(text)}"
        if "imagery" in style and rng.random() < fill:
            text = f"{text}, {pick(IMAGERY[style['imagery']].tails, rng, slots)}"
        said.append(text + end)
        if "mood" in style and (number == 0 or rng.random() < 0.5):
            said.append(pick(MOOD[style["mood"]].lines, rng, slots))
        elif "imagery" in style and rng.random() < 0.5:
            said.append(pick(IMAGERY[style["imagery"]].lines, rng, slots))
    if "closing" in style:
        said.append(pick(CLOSING[style["closing"]].phrases, rng, slots))
    text = " ".join(capital(part) if part[-1] in ".?!" else capital(part) + "." for part in said)
    if "dialect" in style:
        text = _dialect(text, style["dialect"])
    return _punctuate(text, style.get("punctuation", ""))


def _dialect(text: str, value: str) -> str:
    """Replaces whole words in one pass, keeping a capital."""
    words = DIALECT[value].words
    pattern = re.compile(r"\b(?:" + "|".join(f"(?P<w{i}>{word})" for i, (word, _) in enumerate(words)) + r")\b", re.I)

    def swap(found: re.Match[str]) -> str:
        index = next(i for i in range(len(words)) if found.group(f"w{i}") is not None)
        target = words[index][1]
        return capital(target) if found.group(0)[0].isupper() else target

    return pattern.sub(swap, text)


def _punctuate(text: str, value: str) -> str:
    if value == "exclaim":
        return re.sub(r"\.(?= |$)", "!", text)
    if value == "dots":
        return re.sub(r"\.(?= |$)", "...", text)
    return text
