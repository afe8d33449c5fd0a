"""Numbers and untrusted text as a terminal should show them."""

from __future__ import annotations

import re
import unicodedata

PART = " (a part of it)"
"""At the end of the title of a report that tells of a part of a run."""
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[@-_]")


def safe(text: str) -> str:
    """Model text for a terminal: one line, no escape sequences and no control characters."""
    return _printable(" ".join(_ESCAPES.sub("", text).split()))


def safe_lines(text: str) -> str:
    """Model text for a terminal with its line breaks: like `safe` otherwise."""
    lines = _ESCAPES.sub("", text).expandtabs(4).replace("\r\n", "\n").split("\n")
    return "\n".join(_printable(line).rstrip() for line in lines)


def _printable(line: str) -> str:
    return "".join(c for c in line if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co"))


def duration(seconds: float) -> str:
    """Seconds as `8 s`, `3:05` or `2:03:05`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(tokens: int, seconds: float) -> str:
    """Tokens a second, or a dash where nothing was computed."""
    return f"{tokens / seconds:,.0f}" if tokens and seconds > 0 else "-"


def counted(rows: dict[str, int]) -> str:
    """`250 pairs`, `1 checkpoint`: rows by kind."""
    return ", ".join(f"{n:,} {kind[:-1] if n == 1 and kind.endswith('s') else kind}" for kind, n in rows.items())
