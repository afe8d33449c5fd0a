"""The scales that ship with charrun: `specs/scales.yaml`."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from charrun import hookimpl

if TYPE_CHECKING:
    from charrun import Scale


@hookimpl
def charrun_register_scales() -> list[Scale]:
    """The shipped scales."""
    import yaml

    from charrun import Scale

    numbers = yaml.safe_load(files("charrun.specs").joinpath("scales.yaml").read_text(encoding="utf-8"))
    return [Scale(name, **row) for name, row in numbers.items()]
