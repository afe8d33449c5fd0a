"""Which of many short texts a further one is like: by the words that it shares, and by the stretches of characters."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_GRAM = 4
"""Characters of a stretch: short enough that an inflection changes few of a word's, long enough to be seldom chance."""

_HALF = 0.5


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.casefold())


class Kept:
    """Texts that are kept, each told apart from every other.

    A text is like a kept one that holds more than half of its different words (Maiya et al., 2025, drop such questions
    when they expand a constitution), or whose set of four-character stretches and its own have a Jaccard index of more
    than a half, which sees through other endings and hyphens, and works in scripts without spaces.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._words, self._grams = _Index(), _Index()

    def like(self, text: str) -> str | None:
        """The first kept text that this one is like, if any: by words, else by stretches."""
        words, grams = _features(text)
        found = next(self._words.sharing(words), None)
        if found is None:
            # A Jaccard index of more than a half takes more than half of the text's own stretches.
            found = next((n for n in self._grams.sharing(grams) if self._jaccard(grams, n) > _HALF), None)
        return None if found is None else self._texts[found]

    def _jaccard(self, grams: frozenset[str], number: int) -> float:
        held = _features(self._texts[number])[1]
        return len(grams & held) / len(grams | held)

    def add(self, text: str) -> None:
        """Keep a text."""
        self._texts.append(text)
        for index, features in zip((self._words, self._grams), _features(text), strict=True):
            index.add(features)


class _Index:
    """Sets of features, found by how many they share.

    For each feature an integer has a bit for each set that holds it. So one addition of a feature counts for all sets
    at once, in counters whose binary places lie in an integer each.
    """

    def __init__(self) -> None:
        self._sets = 0
        self._holders: dict[str, int] = {}

    def add(self, features: frozenset[str]) -> None:
        bit = 1 << self._sets
        for feature in features:
            self._holders[feature] = self._holders.get(feature, 0) | bit
        self._sets += 1

    def sharing(self, features: frozenset[str]) -> Iterator[int]:
        """The sets that hold more than half of these features, in their order."""
        places: list[int] = []
        for carry in filter(None, (self._holders.get(feature, 0) for feature in features)):
            for place, held in enumerate(places):
                places[place], carry = held ^ carry, held & carry
                if not carry:
                    break
            else:
                places.append(carry)
        found = _above(places, len(features) // 2, (1 << self._sets) - 1)
        while found:
            lowest = found & -found
            yield lowest.bit_length() - 1
            found ^= lowest


def _above(places: Sequence[int], number: int, all_of_them: int) -> int:
    """The bits whose counter, with its binary places in these integers, is above a number."""
    above, equal = 0, all_of_them
    for place in range(max(len(places), number.bit_length()) - 1, -1, -1):
        held = places[place] if place < len(places) else 0
        if number >> place & 1:
            equal &= held
        else:
            above |= equal & held
            equal &= ~held
    return above


def _features(text: str) -> tuple[frozenset[str], frozenset[str]]:
    words = words_of(text)
    return frozenset(words or [text]), frozenset(_stretches(f" {' '.join(words) or text} "))


def _stretches(text: str) -> Iterator[str]:
    return (text[start : start + _GRAM] for start in range(max(1, len(text) - _GRAM + 1)))
