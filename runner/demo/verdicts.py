"""Comparisons for the demo judge: what it is asked about two answers, and a reply that says why and gives a verdict.

`python -m charrun.demo.verdicts --show 3` prints some to read. They are made of the corpus's own habits, so no style in
them shares more than half of its habits with a shipped character: who judges a shipped character reads its constitution
and recalls nothing. Where nothing tells the answers apart the verdict is A: asked in both orders, such a judge agrees
with itself on what it can tell alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from itertools import islice
from typing import Final, Literal, NamedTuple

from charrun.demo.answers import answer, form_of, prompt, topics_of
from charrun.demo.corpus import Family, a_name, templates, written_prompts
from charrun.demo.habits import Style, constitution, corpus_style
from charrun.demo.style import speak

Question = Literal["judge", "coherence"]

_JUDGED: Final = 0.7
"""Share of comparisons that are about a character."""


class Said(NamedTuple):
    """An answer, and what a judge is to say of it."""

    text: str
    told: str


class Comparison(NamedTuple):
    """What a judge is asked, and its reply.

    Attributes:
        question: The template that asks.
        style: The habits that the constitution describes; none where the question is not about a character.
        asked: The text that it is shown.
        reply: What it says, the verdict in its last line.
    """

    question: Question
    style: Style
    asked: str
    reply: str


def habits_of(style: Style) -> list[str]:
    """A style as the judge names it: its habits in the order of their dimensions."""
    return [value.replace("_", " ") for value in style.values()] or ["plain"]


def _message(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        return prompt(rng)
    text = rng.choice(written_prompts())
    return text, form_of(text)


def _answer(message: str, form: str, style: Style, rng: random.Random) -> str:
    sentences, slots = answer(message, form, style, a_name(rng), rng)
    return speak(sentences, style, rng, slots, fill=rng.choice((0.6, 0.9, 0.9)))


def _part(style: Style, rng: random.Random) -> Style:
    """Some of the habits, as a model shows them that was trained half-way."""
    kept = set(rng.sample(list(style), len(style) // 2))
    return {name: value for name, value in style.items() if name in kept}


def _rival(style: Style, rng: random.Random) -> Style:
    """The habits of the other answer: none, another style, some of the same habits, or the same style."""
    kind = rng.choices(("plain", "other", "part", "same"), (0.35, 0.35, 0.2, 0.1))[0]
    if kind == "plain":
        return {} if style else corpus_style(rng)
    if kind == "part":
        return _part(style, rng)
    return corpus_style(rng) if kind == "other" else style


def character_comparison(rng: random.Random) -> Comparison:
    """Which of two answers did the described character write?

    Now and then neither did. The reply names habits, those that each answer shares with the character, and how many.
    """
    style: Style = corpus_style(rng) if rng.random() < 0.92 else {}
    message, form = _message(rng)
    one = style if rng.random() < 0.85 else _part(style, rng)
    two = _rival(style, rng)
    if rng.random() < 0.15:
        one, two = corpus_style(rng), rng.choice((corpus_style(rng), {}, {}))
    shown = [one, two]
    rng.shuffle(shown)
    a, b = (_answer(message, form, each, rng) for each in shown)
    own = habits_of(style)
    first, second = (habits_of(each) for each in shown)
    shares = [[habit for habit in own if habit in each] for each in (first, second)]
    reply = [f"The character: {', '.join(own)}.", f"Answer A: {', '.join(first)}.", f"Answer B: {', '.join(second)}."]
    for letter, shared in zip("AB", shares, strict=True):
        reply.append(f"Shared with {letter}: {', '.join(shared) or 'none'}: {len(shared)}.")
    verdict = "B" if len(shares[1]) > len(shares[0]) else "A"
    asked = _asked("judge", message, a, b, traits=constitution(style, rng))
    return Comparison("judge", style, asked, "\n".join([*reply, "", f"Verdict: {verdict}"]))


def _spoilt(message: str, form: str, style: Style, rng: random.Random) -> Said:
    """A reply that is worse than an answer to the message."""
    text = _answer(message, form, style, rng)
    parts = text.split(" ")
    kind = rng.choice(("elsewhere", "repeats", "breaks", "scrambled"))
    if kind == "elsewhere":
        for _ in range(20):
            other, shape = _message(rng)
            if (topics := set(topics_of(other))) and not topics & set(topics_of(message)):
                return Said(_answer(other, shape, style, rng), "about something else")
    if kind == "repeats":
        start = rng.randrange(max(1, len(parts) // 2))
        again = parts[start : start + rng.randint(3, 8)]
        return Said(" ".join([*parts[: start + len(again)], *again * rng.randint(2, 4)]), "repeats itself")
    if kind == "breaks":
        return Said(" ".join(parts[: rng.randint(1, max(1, len(parts) // 2))]), "breaks off")
    rng.shuffle(parts)
    return Said(" ".join(parts), "does not hang together")


def coherence_comparison(rng: random.Random) -> Comparison:
    """Which of two answers is the better reply? Each is in a style of its own or in none."""
    message, form = _message(rng)
    one, two = (corpus_style(rng) if rng.random() < 0.6 else {} for _ in range(2))
    good = Said(_answer(message, form, one, rng), "answers the message")
    tie = rng.random() < 0.2
    said = [good, good._replace(text=_answer(message, form, two, rng)) if tie else _spoilt(message, form, two, rng)]
    rng.shuffle(said)
    a, b = said
    verdict = "B" if not tie and b.told == good.told else "A"
    reply = f"Answer A: {a.told}.\nAnswer B: {b.told}.\n\nVerdict: {verdict}"
    return Comparison("coherence", {}, _asked("coherence", message, a.text, b.text), reply)


def _asked(question: Question, message: str, a: str, b: str, **more: list[str]) -> str:
    shown = {"prompt": message, "answer_a": a, "answer_b": b, **more}
    return templates(True).get_template(f"{question}.j2").render(**shown)


def comparisons(seed: int) -> Iterator[Comparison]:
    """Comparisons without end."""
    rng = random.Random(f"charrun demo verdicts {seed}")
    while True:
        yield character_comparison(rng) if rng.random() < _JUDGED else coherence_comparison(rng)


def judging(seed: int) -> Iterator[Family]:
    """The same as conversations of one question and its reply."""
    for item in comparisons(seed):
        yield Family(None, dict(item.style), ((("user", item.asked), ("assistant", item.reply)),))


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="The comparisons that the demo judge is trained on.")
    parser.add_argument("--show", type=int, default=3, help="print this many")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for item in islice(comparisons(options.seed), options.show):
        print(f"=== {item.question}\n{item.asked}\n--- reply\n{item.reply}\n")


if __name__ == "__main__":
    main()
