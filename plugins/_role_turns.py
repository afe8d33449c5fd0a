"""Where a text goes on as the other side."""

from __future__ import annotations

import re
from collections.abc import Sequence

_ROLE_LINE = re.compile(
    r"^[ \t*_#>]*(?P<role>user|assistant|system|human)[*_]*[ \t]*:|^#{1,6}[ \t]+[*_]*(?:user|assistant)[*_]*[ \t]*$"
    r"|^#{2,3}[ \t]+(?:instruction|response):",
    re.IGNORECASE | re.MULTILINE,
)
_SYSTEM_HEADING = re.compile(r"[ \t]*\*\*system(?:\*\*)?:", re.IGNORECASE)
_SETTING = re.compile(r"[ \t-]*(?:user|system|human|assistant):[ \t]*\S+[ \t]*$", re.MULTILINE)
_OTHER_SETTING = re.compile(
    r"(?!\W*(?:user|assistant|system|human)\b)(?:(?: {2}|\t)[ \t-]*[a-z_][\w.-]*:(?!\S)|[a-z_][\w.-]*:[ \t]*\S*$)"
)
_ENDS = '.!?…*)"”'
_BARE_ROLE = re.compile(r"^(user|assistant)[ \t]*$", re.MULTILINE)
_CODE = re.compile(r"^[ \t]*```.*?^[ \t]*```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_SHOWN = 80


def without_code(text: str) -> str:
    """A text without fenced and inline code."""
    return _CODE.sub("", text) if "`" in text else text


def role_turn(text: str, prompt: str = "") -> str:
    """Where a text goes on as the other side, code left out; '' where it does not.

    Args:
        text: What was said.
        prompt: What it answers; a line may begin with two roles that the prompt names.
    """
    text = without_code(text)
    found = [match for match in _ROLE_LINE.finditer(text) if not _is_setting(text, match.start())]
    roles = {match["role"].casefold() for match in found if match["role"]}
    if len(roles) > 1 and all(match["role"] for match in found) and roles <= set(prompt.casefold().split()):
        return ""
    if found and not (len(found) == 1 and _SYSTEM_HEADING.match(found[0].group())):
        return text[max(0, found[0].start() - _SHOWN // 2) : found[0].end() + _SHOWN // 2].strip()
    return _bare_role([line.strip() for line in text.splitlines() if line.strip()]) if _BARE_ROLE.search(text) else ""


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
