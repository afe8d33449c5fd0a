"""Neutral content of an answer: the form of a message, the words it is about, sentences on them."""

from __future__ import annotations

import random
import re
from typing import Final

from charrun.demo.bank_content import CHAT_MORE, FIRST, GREETINGS, MORE, NEUTRAL_SELF, REFLECTION, SUBJECTS
from charrun.demo.bank_prompts import ACTIONS, PEOPLE, PROMPTS, QUALITIES, THINGS
from charrun.demo.grammar import pick
from charrun.demo.habits import Style, trait

_KNOWN: Final = frozenset({*THINGS, *SUBJECTS})
_LEADS: Final[tuple[tuple[str, str], ...]] = (
    (r"(hello|hi|hey|good (morning|evening|afternoon|to meet)|greetings|nice to see)\b", "greeting"),
    (r"how\b", "how"),
    (r"(why|what makes|how come)\b", "why"),
    (r"(which|compare|what('s| is) the difference)\b", "which"),
    (r"(what|what's|when|who|where|whose)\b", "what"),
    (r"(should|is|are|can|could|do|does|did|would|will|am|was|has|have)\b", "should"),
    (
        r"(list|name|give|suggest|ideas|tips|recommend|plan|help me plan|three|five|best|organise|ask)\b",
        "list",
    ),
    (r"(write|draft|compose|rewrite|make|turn|put|help me write|create|finish|translate|short)\b", "write"),
    (r"(explain|describe|tell|teach|define|summarise|walk|show|imagine)\b", "describe"),
    (r"(i|i'm|i've|i'd|my|our|we|we're|we've|the|a|an|someone|two|last|every|it)\b", "statement"),
)


def form_of(message: str) -> str:
    """Which kind of message this is, by how it begins and ends: a key of `FIRST`."""
    text = message.strip().lower()
    if text.endswith("?") and not re.match(r"(how|why|which|what|should|is|are|can|could|do|does)\b", text):
        tail = re.split(r"[.!,:] ", text)[-1]
        text = tail if len(tail.split()) > 2 else text
    for pattern, form in _LEADS:
        if re.match(pattern, text):
            return "fragment" if form == "statement" and len(text.split()) < 4 else form
    return "statement" if len(text.split()) > 7 else "fragment"


def topics_of(message: str) -> list[str]:
    """Nouns of the grammar that a message names, in its order: what an answer of such a small model can take up."""
    words = re.findall(r"[a-z]+", message.lower())
    singular = (word if word in _KNOWN else word.removesuffix("s") for word in words)
    return list(dict.fromkeys(word for word in singular if word in _KNOWN))


def slots_for(message: str, name: str, rng: random.Random) -> dict[str, str]:
    """The slots `t`, `u` and `name` for an answer to a message."""
    topics = topics_of(message)
    spare = ["the rest", "the details", "the time"]
    rng.shuffle(topics)
    words = (topics or ["this"]) + spare[: 2 if len(topics) < 2 else 0]
    return {"t": words[0], "u": words[1], "name": name}


def answer(message: str, form: str, style: Style, name: str, rng: random.Random) -> tuple[list[str], dict[str, str]]:
    """Sentences that answer a message, with the slots that they used.

    Args:
        message: The text that is answered.
        form: A key of `FIRST`.
        style: Only its size matters here: habits add words, so a rich style gets fewer sentences.
        name: The speaker's name.
        rng: The only source of choice.
    """
    slots = slots_for(message, name, rng)
    sentences = [pick(FIRST[form], rng, slots)]
    if form == "greeting":
        return sentences, {**slots, "t": "this day", "u": "our talk"}
    extra = rng.choices((0, 1, 2), (0.25, 0.5, 0.25))[0] if len(style) < 4 else rng.choices((0, 1), (0.5, 0.5))[0]
    bank = CHAT_MORE if form == "chat" else MORE
    for phrase in rng.sample(bank, extra):
        sentences.append(pick([phrase], rng, slots))
    return sentences, slots


def reflection(kind: str, style: Style, rng: random.Random) -> list[str]:
    """Sentences about oneself: an opening by kind, then one's own habits, or plain ones without any."""
    sentences = [pick(REFLECTION[kind], rng)]
    if style:
        shown = rng.sample(sorted(style), min(len(style), rng.choice((2, 2, 3))))
        sentences += [trait(name, style[name], rng).rstrip(".") for name in shown]
    else:
        sentences += [pick([phrase], rng) for phrase in rng.sample(NEUTRAL_SELF, rng.choice((3, 4)))]
    return sentences


def prompt(rng: random.Random) -> tuple[str, str]:
    """A user message of the grammar, with its form."""
    if rng.random() < 0.05:
        return pick(GREETINGS, rng), "greeting"
    form = rng.choice(sorted(PROMPTS))
    x, y = rng.sample(THINGS, 2)
    slots = {"x": x, "y": y, "q": rng.choice(QUALITIES), "v": rng.choice(ACTIONS), "p": rng.choice(PEOPLE)}
    text = pick(PROMPTS[form], rng, slots)
    return (text, form) if form == "fragment" or text[0].islower() else (text[0].upper() + text[1:], form)
