"""The general prompts that ship here: what people ask when no character is meant."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from charrun import specs


@cache
def general_prompts() -> tuple[str, ...]:
    """The lines of `specs/prompts/general.txt`, each a prompt."""
    text = (Path(specs.__file__).parent / "prompts/general.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
