"""Phrases with alternatives: `[a|b|c]` stands for one of its parts, `{t}` for a variable."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeio]\w|u(?!se|ni)\w)")


def expand(phrase: str, rng: random.Random, slots: Mapping[str, str] | None = None) -> str:
    """One reading of a phrase: innermost choices first, then the slots.

    Args:
        phrase: Text with `[a|b]` choices (they nest; an empty part is allowed) and `{name}` slots.
        rng: The only source of choice.
        slots: Text for each `{name}`.

    Returns:
        The text with single spaces.

    Raises:
        KeyError: A slot has no text.
    """
    while (found := _INNERMOST.search(phrase)) is not None:
        part = rng.choice(found.group(1).split("|"))
        phrase = phrase[: found.start()] + part + phrase[found.end() :]
    if slots:
        for name, text in slots.items():
            phrase = phrase.replace("{" + name + "}", text)
    phrase = " ".join(phrase.split())
    return _ARTICLE.sub(r"\1n ", phrase)


def pick(bank: Sequence[str], rng: random.Random, slots: Mapping[str, str] | None = None) -> str:
    """One reading of one phrase of a bank."""
    return expand(bank[rng.randrange(len(bank))], rng, slots)


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    """The text with its first letter in lower case, unless the first word is `I`."""
    return text if re.match(r"I\b", text) else text[:1].lower() + text[1:]
