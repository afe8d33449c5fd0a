"""Where a text repeats itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from charrun.plugins._words import words_of

_WORDS = 60
_LETTERS = 200
_LETTER_NGRAM = 16
"""Longer than what strands of few letters, such as DNA or binary digits, repeat by chance."""
_LINES = 8
_NGRAM = 4
_LOOP_WORDS, _LOOP_TIMES, _LOOP_SHARE = 24, 3, 1 / 3
_SUNG_TIMES, _SUNG_SHARE = 12, 1 / 2
_WHOLE = 0.9
_LOOP_TRIGRAMS = 0.25
"""A text with a loop has at least this share of trigrams that were there before: most have not, and need no search."""
_LONGEST = 1_000
_REPEATING = re.compile(
    r"\b(?:songs?|sing|lyrics?|chorus|refrain|shant(?:y|ies)|chants?|hymns?|carols?|lullab(?:y|ies)|rhymes?|poems?|verses?"
    r"|ballads?|anthems?|mantras?|villanelle|pantoum|rap|prayers?|litany"
    r"|schedules?|timetables?|calendars?|(?:meal|training|workout|weekly|daily|study) (?:plans?|routines?))\b",
    re.IGNORECASE,
)
"""A prompt that asks for what repeats itself by its nature."""
_SHOWN = 80


def repeats(text: str, share: float, prompt: str = "") -> str:
    """What shows that a text or a long word repeats itself as much as a share of its n-grams; '' if it does not."""
    words, most = text.lower().split(), _most(share, prompt)
    for word in words:
        if len(word) >= _LETTERS:
            n = len(word) - _LETTER_NGRAM + 1
            again = 1 - len({word[i : i + _LETTER_NGRAM] for i in range(n)}) / n
            if again >= share:
                return f"{again:.0%} of a word of {len(word)} characters: {word[:_SHOWN]}"
    if len(words) < _WORDS:
        return ""
    grams = Counter(zip(*(words[i:] for i in range(_NGRAM)), strict=False))
    again = 1 - len(grams) / grams.total()
    top = " ".join(grams.most_common(1)[0][0])
    return f"{again:.0%} of the 4-grams were there before, such as: {top}" if again >= most else ""


def top_trigram(text: str, share: float, prompt: str = "") -> str:
    """The trigram that comes as often a word as a share, and how often; '' if none does."""
    words = text.lower().split()
    if len(words) < _WORDS:
        return ""
    gram, count = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0]
    return f"{count} times: {' '.join(gram)}" if count >= _most(share, prompt) * len(words) else ""


def top_line(text: str, share: float, prompt: str = "") -> str:
    """The line that is a share of all, and how often it comes; '' if none is."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < _LINES:
        return ""
    line, count = Counter(lines).most_common(1)[0]
    return f"{count} lines: {line[:_SHOWN]}" if count >= _most(share, prompt) * len(lines) else ""


def loop(text: str, prompt: str = "") -> str:
    """A passage that comes several times in a row and is much of the text, and how often; '' if none is."""
    words = text.lower().split()
    if len(words) < _LOOP_WORDS <= len(text):
        words = words_of(text)  # a script without spaces
    words = words[-_LONGEST:]
    n = len(words)
    if n < _LOOP_WORDS or len(set(zip(words, words[1:], words[2:], strict=False))) > (1 - _LOOP_TRIGRAMS) * (n - 2):
        return ""
    sung = _REPEATING.search(prompt) is not None
    times, share = (_SUNG_TIMES, _SUNG_SHARE) if sung else (_LOOP_TIMES, _LOOP_SHARE)
    for length in range(1, n // 2 + 1):
        start, same = _longest_run(words, length)
        looped = same + length
        often = looped // length
        if (looped >= max(_LOOP_WORDS, share * n) and often >= times) or (
            not sung and looped >= _WHOLE * n and often >= 2
        ):
            return f"{often} times in a row: {' '.join(words[start : start + length])[:_SHOWN]}"
    return ""


def _longest_run(words: Sequence[str], length: int) -> tuple[int, int]:
    """Where the longest stretch of words begins that are those some places later, and its length."""
    best, where, run = 0, 0, 0
    for i in range(len(words) - length):
        run = run + 1 if words[i] == words[i + length] else 0
        if run > best:
            best, where = run, i - run + 1
    return where, best


def _most(share: float, prompt: str) -> float:
    return (1 + share) / 2 if _REPEATING.search(prompt) else share
