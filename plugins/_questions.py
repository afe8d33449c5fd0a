"""User messages in what a model wrote: the lines of a numbered list, and what of them is no message."""

from __future__ import annotations

import re

_ITEM = re.compile(
    r"\s*(?:[-*•+]\s+)?[*_(\[（]*(?:Q(?:uestion)?\s*)?\d{1,4}"
    r"(?:\s*[.):：\]]+[*_]*\s+|\s*[、．）]+[*_]*\s*|\s+[-–—]\s+)(?P<text>\S.*)"
)
_LENGTH = r"[(\[](?:short|medium|long)[^)\]]*[)\]]"
_LABEL = re.compile(rf"^[*_]*{_LENGTH}[*_]*[:.]?\s*|\s*{_LENGTH}$", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "`": "`", "「": "」", "『": "』"}
_BEFORE = "".join(_QUOTES) + "„¿¡"
"""What may stand before the first word of a message."""
_SPACELESS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
"""A letter of a script without spaces between words: Chinese, Japanese, Thai, Lao, Burmese, Khmer."""
_ROLE = re.compile(r"(?:user|human|assistant|ai|system|message|prompt|example)\s*\d*\s*:", re.I)
_HTML = "body|br|button|div|form|h[1-6]|head|html|img|input|li|link|ol|p|script|span|style|t[dhr]|table|ul"
_PLACEHOLDER = re.compile(rf"\[[^\]]*\]|\{{[^}}]*\}}|<(?!/?(?:{_HTML})\b)[^>]*>|_{{3,}}|\bX{{2,}}\b(?! chromosome)")
_UNFINISHED = (":", ",", ";", "-", "–", "—", "(", "/", "&", "：", "，", "、", "；")
MOST_WORDS = 120
"""Longest message in words: three times what the template calls long. A longer line is a text of another kind."""


def listed(text: str, *, complete: bool = True) -> list[str]:
    """The items of a numbered list, in their order, without numbers, quotation marks and emphasis.

    Numbers may be written `1.`, `1)`, `(1)`, `1:`, `1 -`, `1、`, `**1.**` or `Q1:`, after a bullet or none; every other
    line is passed over.

    Args:
        text: What the model wrote.
        complete: Whether it ended by itself; of an answer that was cut the last line is left out.
    """
    lines = text.splitlines()
    if not complete:
        lines = lines[:-1]
    found = (_ITEM.fullmatch(line) for line in lines)
    return [item for each in found if each and (item := _bare(each["text"]))]


def fault_of(message: str) -> str:
    """Why a line is nothing that a user would write to an assistant, or an empty text."""
    words = sum(map(_words_in, message.split()))
    if words < 2 or not message.lstrip(_BEFORE)[:1].isalnum():
        return "no message"
    if _ROLE.match(message) or message.endswith(_UNFINISHED):
        return "no message"
    if _PLACEHOLDER.search(message):
        return "placeholder"
    return "too long" if words > MOST_WORDS else ""


def _words_in(stretch: str) -> int:
    """Words between two spaces: one, or of a script without spaces one for two letters."""
    return max(1, len(_SPACELESS.findall(stretch)) // 2)


def _bare(text: str) -> str:
    """Without what lists put around an item."""
    before = ""
    while text != before:
        before = text
        text = _LABEL.sub("", text.strip())
        for mark in ("**", "__", "*", "_"):
            if len(text) > 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
                text = text[len(mark) : -len(mark)]
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
            text = text[1:-1]
    return " ".join(text.split())
