"""The words of a text, as gates, audits and near-duplicates count them."""

from __future__ import annotations

import re

_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Scripts that write no spaces between words: Thai and Lao, Burmese, Khmer, kana, Chinese characters."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’][^\W_{_UNSPACED}]+)*")
_ALONE = re.compile(f"[{_UNSPACED}]")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; in a script without spaces each character is one."""
    return _WORD.findall(text.casefold())


def is_unspaced(text: str) -> bool:
    """Whether most words of a text are single characters of a script without spaces."""
    words = words_of(text)
    return 2 * sum(_ALONE.match(word) is not None for word in words) > len(words)
