"""What in a prompt would tell whose prompt it is: a character's name, and words that are its constitution's own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache

from charrun.plugins._general import general_prompts
from charrun.plugins._likeness import words_of

LIFT = 30.0
"""A word is a constitution's own where it stands in its traits this many times as often as in general prompts."""
_SHORTEST = 4
_COMMON = 1 / 500
"""A word in so many of the general prompts, such as `the` or `will`, is nobody's name, whoever has it in theirs."""
_ENDINGS = ("ings", "ing", "ers", "er", "ed", "es", "s")


class Cues:
    """Finds a character's cues in a text.

    A prompt that carries them asks for the character in its own words: the student learns to answer the cue, and where
    one character's cues are in every prompt, all characters learn them. A cue is a word of the character's name as it
    is written, but for common ones, or a word of at least four letters, whatever its ending, whose share among the
    traits is at least `LIFT` times its share among the general prompts (one more than were counted, so that unseen
    words have one).

    Args:
        name: The character's name.
        traits: Its traits; `also` are further texts about it, such as its id.
    """

    def __init__(self, name: str, traits: Sequence[str], also: Iterable[str] = ()) -> None:
        rare, prompts = _counted(), len(general_prompts())
        words = re.findall(r"[^\W\d_]{2,}", name)
        self.names = frozenset(word for word in words if _used()[word.casefold()] < _COMMON * prompts)
        held = Counter(stem for trait in traits for stem in _stems(trait))
        held.update({stem for text in also for stem in _stems(text)} - set(held))
        share = {stem: n / max(1, len(traits)) for stem, n in held.items()}
        self.stems = frozenset(stem for stem, each in share.items() if each >= LIFT * (rare[stem] + 1) / prompts)

    def of(self, text: str) -> str:
        """The first cue of a text as it stands there in lower case, or an empty text."""
        if named := next((word for word in re.findall(r"[^\W\d_]+", text) if word in self.names), ""):
            return named
        return next((word for word in words_of(text) if len(word) >= _SHORTEST and _stem(word) in self.stems), "")


@cache
def _counted() -> Counter[str]:
    """In how many of the general prompts each stem stands."""
    return Counter(stem for prompt in general_prompts() for stem in _stems(prompt))


@cache
def _used() -> Counter[str]:
    """In how many of the general prompts each word stands."""
    return Counter(word for prompt in general_prompts() for word in set(words_of(prompt)))


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in words_of(text) if len(word) >= _SHORTEST}


def _stem(word: str) -> str:
    """A word without its ending, as far as three letters stay: `pirate` is `pirates`, and `story` is `stories`."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    return word.removesuffix("e").removesuffix("y").removesuffix("i")
