"""A conversation on the screen: answers under their speakers' names, or beside each other where there is room."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from charrun.pipeline.conversation import Reply
from charrun.report.text import safe_lines

SIDE_BY_SIDE = 100
"""Columns of a terminal from which on two answers stand beside each other."""
_NOTHING = "(no visible answer)"


def print_replies(console: Console, replies: Sequence[Reply], plain: bool) -> None:
    """The answers to one question; `plain` keeps them one after the other."""
    if len(replies) > 1 and not plain and console.is_terminal and console.width >= SIDE_BY_SIDE:
        table = Table(box=None, expand=True, pad_edge=False, padding=(0, 2, 0, 0))
        for reply in replies:
            table.add_column(reply.label, ratio=1, overflow="fold")
        table.add_row(*(Text(_shown(reply)) for reply in replies))
        console.print(table)
    else:
        for reply in replies:
            line = Text(f"{reply.label}: ", style="bold").append(_shown(reply), style="not bold")
            console.print(line, soft_wrap=not console.is_terminal)
    if console.is_terminal:
        console.print()


def notes(replies: Sequence[Reply]) -> list[str]:
    """What a person should know of the answers: turns that no longer fit, answers that were cut."""
    found = []
    for reply in replies:
        if reply.left_out:
            turns = "turn is" if reply.left_out == 1 else f"{reply.left_out} turns are"
            found.append(f"the context is full: the oldest {turns} no longer shown to {reply.label}")
        if not reply.complete:
            found.append(f"the answer of {reply.label} was cut at {reply.limit:,} tokens")
    return found


def _shown(reply: Reply) -> str:
    return safe_lines(reply.text) or _NOTHING
