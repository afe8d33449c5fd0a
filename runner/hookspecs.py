"""The hooks that a plugin may implement; entry point group `charrun`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from charrun.service.engine import Engine
    from charrun.stage import Stage

PROJECT = "charrun"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def charrun_register_stages() -> list[type[Stage]]:  # type: ignore[empty-body]
    """Return the stage classes that a spec may name under `uses:`."""


@hookspec
def charrun_register_engines() -> list[type[Engine]]:  # type: ignore[empty-body]
    """Return the engine classes that a spec may name under `engine:`."""
