"""Whether an answer does what was asked of its form, by rules that need no judge."""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from typing import Any

from charrun.plugins._languages import LANGUAGES, script_of, share

OUT_OF_CHARACTER = "out of character"
_FENCE = re.compile(r"^```[a-z]*\s*\n(.*?)\n?```$", re.DOTALL | re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+|[.,:]\d+)*")
_LEAST_SHARE = 0.15
"""Of running words in a language that many or more are its function words; of another language's hardly any are."""
_LENGTH = re.compile(r"(?:at most )?([1-9]\d*) words?")
_SCRIPTS = {
    "chinese": ("CJK",),
    "japanese": ("HIRAGANA", "KATAKANA", "CJK"),
    "korean": ("HANGUL",),
    "russian": ("CYRILLIC",),
}
"""Everyday names of scripts."""

FORMS = (
    f"'{OUT_OF_CHARACTER}', 'json', 'json KEY, KEY', 'N words', 'in LANGUAGE' ({', '.join(LANGUAGES)}), "
    "or 'script NAME' (of Unicode, such as cyrillic, or chinese, japanese, korean)"
)


def problem_of(check: str) -> str:
    """Why something is no check; empty if it is one."""
    try:
        complies(check, "", in_character=False)
    except ValueError:
        return f"'{check}' is none of {FORMS}"
    return ""


def complies(check: str, text: str, *, in_character: bool) -> bool:
    """Whether an answer passes a check.

    Args:
        check: `out of character`; `json` (an object or a list, also in a code fence); `json KEY, KEY` (an object
            that has at least these keys); `N words` (from 1 to so many, numbers counted, a compound once);
            `in LANGUAGE` (15% or more of its words are function words of the language, and more than of any other that
            charrun knows; a few words such as "París." have none, and are taken for no language);
            `script NAME` (more than half of its letters are of this script).
        text: The answer.
        in_character: What the scorer says of it.

    Raises:
        ValueError: There is no such check.
    """
    if check == OUT_OF_CHARACTER:
        return not in_character
    if check == "json":
        return isinstance(_json(text), dict | list)
    if found := _LENGTH.fullmatch(check):
        return 1 <= len(_WORD.findall(text)) <= int(found[1])
    kind, _, name = check.partition(" ")
    if kind == "json" and all(keys := [key.strip() for key in name.split(",")]):
        value = _json(text)
        return isinstance(value, dict) and value.keys() >= set(keys)
    if kind == "in" and name in LANGUAGES:
        own = share(text, name)
        return own >= _LEAST_SHARE and all(own > share(text, other) for other in LANGUAGES if other != name)
    if kind == "script" and (names := _SCRIPTS.get(name) or (name.upper(),)) and set(names) <= _known_scripts():
        letters = [letter for letter in text if letter.isalpha()]
        return 2 * sum(script_of(each) in names for each in letters) > len(letters)
    raise ValueError(check)


@cache
def _known_scripts() -> frozenset[str]:
    """The first words of all letters' Unicode names."""
    found = {script_of(letter) for letter in map(chr, range(sys.maxunicode + 1)) if letter.isalpha()}
    return frozenset(found - {"UNKNOWN"})


def _json(text: str) -> Any:
    """The value that a text is, also in a code fence; None where it is none."""
    text = text.strip()
    fenced = _FENCE.match(text)
    try:
        return json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return None
