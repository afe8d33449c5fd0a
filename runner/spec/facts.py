"""What is known of models by their names: who thinks before answering, and who has left the hosted service."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

Thinking = Literal["never", "switch", "always"]

_SWITCH = "enable_thinking"
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Retired:
    """A model that the hosted service no longer lists."""

    date: str
    successor: str


@cache
def model_table() -> Mapping[str, Any]:
    """What charrun knows of models by name: `specs/models.toml`."""
    return tomllib.loads(files("charrun.specs").joinpath("models.toml").read_text(encoding="utf-8"))


@cache
def _facts() -> tuple[Mapping[str, Retired], tuple[tuple[re.Pattern[str], Thinking], ...]]:
    table = model_table()
    retired = {name: Retired(**entry) for name, entry in table["retired"].items()}
    thinking = tuple((re.compile(entry["name"]), entry["thinks"]) for entry in table["thinking"])
    return retired, thinking


def price_book_date() -> str:
    """The day on which what is known of models was last looked up, as YYYY-MM-DD."""
    return str(model_table()["date"])


def retired_models() -> dict[str, Retired]:
    """Models that the hosted service has retired, with date and suggested successor."""
    return dict(_facts()[0])


def thinks(name: str) -> Thinking:
    """Whether a model thinks before it answers: never, always, or unless its chat template is told not to.

    Args:
        name: A hosted model's name, or a local model's absolute folder, whose chat template is looked at.
    """
    if Path(name).is_absolute():
        return "switch" if _has_switch(Path(name)) else "never"
    plain = name.partition(":")[0]
    return next((kind for pattern, kind in _facts()[1] if pattern.fullmatch(plain)), "never")


def _has_switch(folder: Path) -> bool:
    for file in ("chat_template.jinja", "tokenizer_config.json"):
        try:
            with (folder / file).open("rb") as stream:
                if _SWITCH.encode() in stream.read(_LARGEST):
                    return True
        except OSError:
            continue
    return False
