"""Where a text goes on as the other side."""

from __future__ import annotations

import re
from collections.abc import Sequence

from charrun.plugins._words import words_of

_ELSEWHERE = (
    "benutzer|nutzer|assistent|usuario|asistente|utilisateur|utente|assistente|usuário|用户|用戶|助手|ユーザー"
    "|アシスタント"
)
"""User and assistant in other languages."""
_ROLE_LINE = re.compile(
    rf"^[ \t*_#>\[<]*(?P<role>user|assistant|system|human|{_ELSEWHERE})(?: \d)?[*_\]>]*[ \t]*[:：]"
    r"|^<(?:user|assistant)>|^#{1,6}[ \t]+[*_]*(?:user|assistant)[*_]*[ \t]*$|^#{2,3}[ \t]+(?:instruction|response):",
    re.IGNORECASE | re.MULTILINE,
)
_SYSTEM_HEADING = re.compile(r"[ \t]*\*\*system(?:\*\*)?:", re.IGNORECASE)
_SETTING = re.compile(r"[ \t-]*(?:user|system|human|assistant):[ \t]*\S+[ \t]*$", re.MULTILINE)
_OTHER_SETTING = re.compile(
    r"(?!\W*(?:user|assistant|system|human)\b)(?:(?: {2}|\t)[ \t-]*[a-z_][\w.-]*:(?!\S)|[a-z_][\w.-]*:[ \t]*\S*$)"
)
_ROLES = frozenset({"user", "assistant", "system", "human"})
_ENDS = '.!?…*)"”'
_BARE_ROLE = re.compile(r"^(user|assistant|USER|ASSISTANT)[ \t]*$", re.MULTILINE)
_IN_LINE = re.compile(r"[.!?)*] (?:User|Human): [^\n]*\b(?:Assistant|AI|Model|Bot): ")
_LABEL = re.compile(r"^[ \t]*[*_]*(?P<label>[^\W\d_][\w'’. -]{0,30}?)[*_]*:[*_]*(?=[ \t]*\S)", re.MULTILINE)
_SPOKEN = re.compile(
    r"\b(?:dialogues?|conversations?|chats?|interviews?|transcripts?|scripts?|scenes?|plays?|sketch(?:es)?|skits?|role-?play"
    r"|(?:two|three|several) (?:characters|people|speakers))\b",
    re.IGNORECASE,
)
"""A prompt that asks for what several people say."""
_CODE = re.compile(r"^[ \t]*```.*?^[ \t]*```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_SHOWN = 80


def without_code(text: str) -> str:
    """A text without fenced and inline code."""
    return _CODE.sub("", text) if "`" in text else text


def role_turn(text: str, prompt: str = "", name: str = "") -> str:
    """Where a text goes on as the other side, code left out; '' where it does not.

    Args:
        text: What was said.
        prompt: What it answers; what it asks several people to say may be labelled with who says it.
        name: The character's: a text that labels it as a speaker tells both sides.
    """
    text = without_code(text)
    if match := _own_label(text, prompt, name):
        return _around(text, match)
    found = [match for match in _ROLE_LINE.finditer(text) if not _is_setting(text, match.start())]
    is_heading = len(found) == 1 and _SYSTEM_HEADING.match(found[0].group())
    if found and not is_heading and not _may_be_labels(found, text, prompt):
        return _around(text, found[0])
    if match := _IN_LINE.search(text):
        return _around(text, match)
    return _bare_role([line.strip() for line in text.splitlines() if line.strip()]) if _BARE_ROLE.search(text) else ""


def _own_label(text: str, prompt: str, name: str) -> re.Match[str] | None:
    """Where the character is labelled as a speaker at the start, or among others, though no dialogue was asked for."""
    own = {each for each in (name, *name.split()[:1]) if each}
    if ":" not in text or not any(each in text for each in own) or _SPOKEN.search(prompt):
        return None
    labels = list(_LABEL.finditer(text))
    found = next((match for match in labels if match["label"] in own), None)
    return found if found and (not found.start() or len(labels) > 1) else None


def _may_be_labels(found: Sequence[re.Match[str]], text: str, prompt: str) -> bool:
    """Whether lines that begin with roles are a list, or a dialogue that was asked for, beside other labels."""
    roles = {(match["role"] or "").casefold() for match in found}
    others = {match["label"].casefold() for match in _LABEL.finditer(text)} - _ROLES
    if roles <= {word.removesuffix("s") for word in words_of(prompt)}:
        return len(roles) > 1 or bool(others)
    return bool(others) and (roles <= {"human", "system"} or ("" not in roles and bool(_SPOKEN.search(prompt))))


def _around(text: str, match: re.Match[str]) -> str:
    return text[max(0, match.start() - _SHOWN // 2) : match.end() + _SHOWN // 2].strip()


def _is_setting(text: str, start: int) -> bool:
    """Whether a line is one of several settings, as in "user: root": its value one word, a neighbour a setting too."""
    if not _SETTING.match(text, start):
        return False
    before = text[max(0, start - _SHOWN) : start].rstrip().rpartition("\n")[2]
    after = text[start : start + 2 * _SHOWN].partition("\n")[2].partition("\n")[0]
    return any(_OTHER_SETTING.match(line) for line in (before, after))


def _bare_role(lines: Sequence[str]) -> str:
    """What a chat template leaves: a role's name alone in a line after an end, or two of them in turn; '' if none."""
    last = -1
    for i, line in enumerate(lines):
        if not _BARE_ROLE.match(line):
            continue
        said = "".join(lines[i + 1 : i + 2])
        ended = i == 0 or lines[i - 1][-1] in _ENDS
        if (ended and " " in said) or (0 <= last < i - 1 and lines[last] != line):
            return f"{line} {said[:_SHOWN]}".strip()
        last = i
    return ""
