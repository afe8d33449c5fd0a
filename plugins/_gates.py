"""Gates that any sampled text passes before it is trained on."""

from __future__ import annotations

import re
from collections import Counter

_ROLE_LINE = re.compile(r"^\s*(user|assistant|system|human)\s*:", re.IGNORECASE | re.MULTILINE)
_WORDS_FOR_LOOP = 60
_LOOP_SHARE = 0.2
_LINES_FOR_LOOP = 8
_LINE_SHARE = 0.5


def fault_of(text: str, *, complete: bool) -> str:
    """Why a text is not trained on: empty, cut by length, a hallucinated turn, or a loop; '' if it is sound."""
    if not complete:
        return "cut by length"
    if not text.strip():
        return "empty"
    if "<|im_" in text or "<think>" in text or _ROLE_LINE.search(text):
        return "hallucinated turn"
    return "loop" if loops(text) else ""


def loops(text: str) -> bool:
    """Whether one trigram of words makes up a fifth of a longer text, or one line half of many."""
    words = text.lower().split()
    if len(words) >= _WORDS_FOR_LOOP:
        trigrams = Counter(zip(words, words[1:], words[2:], strict=False))
        if trigrams.most_common(1)[0][1] >= _LOOP_SHARE * len(words):
            return True
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return len(lines) >= _LINES_FOR_LOOP and Counter(lines).most_common(1)[0][1] >= _LINE_SHARE * len(lines)
