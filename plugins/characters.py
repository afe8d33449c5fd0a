"""The characters that ship with charrun: one file each in `specs/characters/`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from charrun import hookimpl, specs


@hookimpl
def charrun_register_characters() -> Mapping[str, Path]:
    """The shipped characters, each under its file's name."""
    folder = Path(specs.__file__).parent / "characters"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
