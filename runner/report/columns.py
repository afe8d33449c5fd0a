"""Plain text in columns: aligned, cut to a width with …, no colours and no boxes, so that pipes and readers like it."""

from __future__ import annotations

import shutil
import time
import unicodedata
from collections.abc import Sequence

from charrun.report.text import safe

_GAP = "  "
_ELLIPSIS = "…"
WIDTHS = (60, 160)


def screen_width() -> int:
    """Columns of the terminal (or of `COLUMNS`), 80 where there is none."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, WIDTHS[0]), WIDTHS[1])


def wide(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, width: int) -> str:
    """The text, or its beginning and … where it is wider."""
    if wide(text) <= width:
        return text
    kept = ""
    for character in text:
        if wide(kept + character) > width - 1:
            break
        kept += character
    return kept + _ELLIPSIS if width > 0 else ""


def table(rows: Sequence[Sequence[str]], align: str, width: int, shrink: int = 0) -> list[str]:
    """Rows as aligned lines; untrusted text is made safe.

    Args:
        rows: The heading first.
        align: `<` or `>` for each column.
        width: Columns of the terminal.
        shrink: Index of the column that is cut where the lines would be wider.
    """
    shown = [[safe(cell) for cell in row] for row in rows]
    widths = [max(wide(row[column]) for row in shown) for column in range(len(align))]
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    if over > 0:
        widths[shrink] = max(widths[shrink] - over, 8)
    return [
        _GAP.join(_pad(cell, side, size) for cell, side, size in zip(row, align, widths, strict=True)).rstrip()
        for row in shown
    ]


def figures(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Rows of a name and figures; where they are too wide, each name has a line of its own above its figures.

    Args:
        rows: The heading first.
        width: Columns of the terminal.
    """
    align = "<" + ">" * (len(rows[0]) - 1)
    whole = sum(max(wide(safe(row[column])) for row in rows) + len(_GAP) for column in range(len(align))) - len(_GAP)
    if whole <= width:
        return table(rows, align, width)
    numbers = table([["", *row[1:]] for row in rows], align, width)
    return [line for row, line in zip(rows, numbers, strict=True) for line in (fit(safe(row[0]), width), line)]


def _pad(text: str, side: str, width: int) -> str:
    cut = fit(text, width)
    blank = " " * (width - wide(cut))
    return blank + cut if side == ">" else cut + blank


def wrapped(items: Sequence[str], width: int, indent: str = "  ") -> list[str]:
    """Words, comma-separated, in lines of at most a width; a longer word has its own line."""
    lines: list[str] = []
    for index, item in enumerate(items):
        piece = safe(item) + ("," if index + 1 < len(items) else "")
        if lines and wide(lines[-1]) + 1 + wide(piece) <= width:
            lines[-1] += f" {piece}"
        else:
            lines.append(indent + piece)
    return lines


def moment(seconds: float, precise: bool = True) -> str:
    """Seconds since 1970 as ISO date and local time, to the second or the minute."""
    return time.strftime("%Y-%m-%d %H:%M:%S" if precise else "%Y-%m-%d %H:%M", time.localtime(seconds))


def age(seconds: float) -> str:
    """A span as `now`, `3 min`, `5 h`, `2 d`."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {name}"
    return "now"


def short(count: int) -> str:
    """A count in at most five characters: `812`, `197k`, `1.2M`."""
    for size, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            scaled = count / size
            return f"{scaled:.1f}{name}" if scaled < 9.95 and size > 1000 else f"{scaled:.0f}{name}"
    return str(count)
