"""Which models lie on this machine, and which have left the hosted service."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from charrun.demo import MODELS


@dataclass(frozen=True)
class Retired:
    """A model that the hosted service no longer lists."""

    date: str
    successor: str


def local_folder(model: str) -> Path | None:
    """Folder of a local model: a demo model by its name, any other by its absolute path; None for hosted names."""
    if model in MODELS:
        return MODELS[model]
    path = Path(model)
    return path if path.is_absolute() else None


def retired_models() -> dict[str, Retired]:
    """Models that the hosted service has retired, with date and suggested successor."""
    text = resources.files("charrun.specs").joinpath("retired.toml").read_text(encoding="utf-8")
    return {name: Retired(**entry) for name, entry in tomllib.loads(text)["models"].items()}
