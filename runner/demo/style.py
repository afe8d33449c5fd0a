"""Saying the same sentences in a style: habits are applied one after another, each on its own."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence

from charrun.demo.bank_imagery import IMAGERY
from charrun.demo.bank_manner import DIALECT, FORM
from charrun.demo.bank_voice import ADDRESS, CLOSING, MOOD, OPENING, SELF
from charrun.demo.grammar import capital, lower_first, pick
from charrun.demo.habits import Style

Slots = Mapping[str, str]
Maker = Callable[[], str]


def speak(sentences: Sequence[str], style: Style, rng: random.Random, slots: Slots, fill: float = 0.75) -> str:
    """The sentences in a style.

    Args:
        sentences: What is said, each without its closing period.
        style: Habits by dimension; empty for a neutral voice.
        rng: The only source of choice.
        slots: `t` and `u`, words of the topic, and `name`, the speaker's.
        fill: Share of the places for a habit that are used.

    Returns:
        One paragraph.
    """
    body = list(sentences)
    if style.get("form") == "clipped":
        body = [
            part for sentence in body for part in re.split(r"(?:,|:) (?:and |because |which |then )?", sentence) if part
        ]
    if style:
        body = _weave(body, style, rng, slots, fill)
    if style.get("form") == "flowing" and len(body) > 1:
        joined = body[0]
        for sentence in body[1:]:
            joined = f"{joined.rstrip('.')}{pick(FORM['flowing'].phrases, rng)} {lower_first(sentence)}"
        body = [joined]
    if "opening" in style:
        body.insert(0, pick(OPENING[style["opening"]].phrases, rng, slots))
    if "closing" in style:
        body.append(pick(CLOSING[style["closing"]].phrases, rng, slots))
    text = " ".join(capital(sentence) if sentence[-1] in ".?!" else capital(sentence) + "." for sentence in body)
    if "dialect" in style:
        text = _dialect(text, style["dialect"])
    return _punctuate(text, style.get("punctuation", ""), rng)


def _cycle(makers: list[Maker], rng: random.Random) -> Callable[[], str]:
    """Takes turns between habits that want the same place, in random order."""
    order = list(makers)
    rng.shuffle(order)
    state = {"next": 0}

    def take() -> str:
        maker = order[state["next"] % len(order)]
        state["next"] += 1
        return maker()

    return take


def _weave(body: list[str], style: Style, rng: random.Random, slots: Slots, fill: float) -> list[str]:
    """Puts words before, after and between sentences: one habit per place, all habits in turn."""
    before: list[Maker] = []
    after: list[Maker] = []
    between: list[Maker] = []
    if "imagery" in style:
        imagery = IMAGERY[style["imagery"]]
        after += [lambda: pick(imagery.tails, rng, slots)]
        between += [lambda: pick(imagery.lines, rng, slots)]
    if "mood" in style:
        mood = MOOD[style["mood"]]
        before += [lambda: pick(mood.starts, rng, slots)]
        between += [lambda: pick(mood.lines, rng, slots)]
    if "address" in style:
        address = ADDRESS[style["address"]]
        before += [lambda: pick(address.phrases, rng, slots) + ","]
        after += [lambda: pick(address.phrases, rng, slots)]
    if "self" in style:
        own = SELF[style["self"]]
        after += [lambda: pick(own.phrases, rng, slots)]
    if "dialect" in style:
        dialect = DIALECT[style["dialect"]]
        before += [lambda: pick(dialect.starts, rng, slots)]
    form = style.get("form", "")
    if form == "clipped":
        between += [lambda: pick(FORM[form].phrases, rng, slots)]
    take_before, take_after, take_between = (_cycle(m, rng) if m else None for m in (before, after, between))
    woven: list[str] = []
    for sentence in body:
        question = sentence.endswith("?")
        text = sentence.rstrip("?")
        if form == "qa" and rng.random() < fill:
            woven.append(pick(FORM["qa"].phrases, rng, slots))
        if take_before is not None and rng.random() < fill:
            text = f"{take_before()} {lower_first(text)}"
        if take_after is not None and rng.random() < fill:
            text = f"{text}, {take_after()}"
        woven.append(text + "?" if question else text)
        if take_between is not None and rng.random() < fill * 0.8:
            woven.append(take_between())
    return woven


def _dialect(text: str, value: str) -> str:
    """Replaces whole words in one pass, keeping a capital."""
    words = DIALECT[value].words
    pattern = re.compile(r"\b(?:" + "|".join(f"(?P<w{i}>{word})" for i, (word, _) in enumerate(words)) + r")\b", re.I)

    def swap(found: re.Match[str]) -> str:
        index = next(i for i in range(len(words)) if found.group(f"w{i}") is not None)
        target = words[index][1]
        return capital(target) if found.group(0)[0].isupper() else target

    return pattern.sub(swap, text)


def _punctuate(text: str, value: str, rng: random.Random) -> str:
    if value == "exclaim":
        return re.sub(r"\.(?= |$)", lambda found: "!" if rng.random() < 0.85 else ".", text)
    if value == "dots":
        text = re.sub(r"\.(?= |$)", lambda found: "..." if rng.random() < 0.85 else ".", text)
        return re.sub(r", ", lambda found: "... " if rng.random() < 0.2 else ", ", text)
    return text
