"""The scales that ship with charrun: `specs/scales.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from charrun import hookimpl, specs

if TYPE_CHECKING:
    from charrun import Scale


@hookimpl
def charrun_register_scales() -> list[Scale]:
    """The shipped scales."""
    import yaml

    from charrun import Scale

    numbers = yaml.safe_load((Path(specs.__file__).parent / "scales.yaml").read_text(encoding="utf-8"))
    return [Scale(name, **row) for name, row in numbers.items()]
