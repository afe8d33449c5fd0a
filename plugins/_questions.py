"""User messages in what a model wrote: the lines of a numbered list, and what of them is no message."""

from __future__ import annotations

import re

_ITEM = re.compile(
    r"\s*(?:[-*•+]\s+)?[*_(\[]*(?:Q(?:uestion)?\s*)?\d{1,4}(?:\s*[.):\]]+[*_]*\s+|\s+[-–—]\s+)(?P<text>\S.*)"
)
_LENGTH = r"[(\[](?:short|medium|long)[^)\]]*[)\]]"
_LABEL = re.compile(rf"^[*_]*{_LENGTH}[*_]*[:.]?\s*|\s*{_LENGTH}$", re.IGNORECASE)
_QUOTES = {'"': '"', "“": "”", "'": "'", "‘": "’", "«": "»", "`": "`"}
_ROLE = re.compile(r"(?:user|human|assistant|ai|system|message|prompt|example)\s*\d*\s*:", re.I)
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[^>]*>|_{3,}|\bX{2,}\b")
_UNFINISHED = (":", ",", ";", "-", "–", "—", "(", "/", "&")
MOST_WORDS = 120
"""Longest message in words: three times what the template calls long. A longer line is a text of another kind."""


def listed(text: str, *, complete: bool = True) -> list[str]:
    """The items of a numbered list, in their order, without numbers, quotation marks and emphasis.

    Numbers may be written `1.`, `1)`, `(1)`, `1:`, `1 -`, `**1.**` or `Q1:`, after a bullet or none; every other line
    is passed over.

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
    words = message.split()
    if len(words) < 2 or not message[0].isalpha():
        return "no message"
    if _ROLE.match(message) or message.endswith(_UNFINISHED):
        return "no message"
    if _PLACEHOLDER.search(message):
        return "placeholder"
    return "too long" if len(words) > MOST_WORDS else ""


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
