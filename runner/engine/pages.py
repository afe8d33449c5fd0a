"""Long lists in parts, as the protocol's cursor describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from charrun.engine.errors import RequestRefused

MAX_DIGITS = 9


def whole_number(name: str, text: str) -> int:
    """A number of a request's address.

    Raises:
        RequestRefused: It is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise RequestRefused(f"{name} must be a number of at most {MAX_DIGITS} digits, from 0.")
    return int(text)


def part_of(request: Request, items: Sequence[Any], limit: int = 100) -> tuple[list[Any], dict[str, int]]:
    """The part of a list that was asked for by limit and offset, and where it lies in the whole.

    Raises:
        RequestRefused: The limit or the offset is no number.
    """
    wanted = {"offset": 0, "limit": limit}
    for name, default in wanted.items():
        wanted[name] = whole_number(name, request.query_params.get(name, str(default)))
    offset, limit = wanted["offset"], wanted["limit"]
    return list(items[offset : offset + limit]), {"offset": offset, "limit": limit, "total_count": len(items)}


def page(request: Request, name: str, items: Sequence[Any]) -> dict[str, Any]:
    """The answer to a request for a list: the part that was asked for under its name, and the cursor."""
    part, cursor = part_of(request, items)
    return {name: part, "cursor": cursor}
