"""The hooks that a plugin may implement; entry point group `charrun`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from charrun import events
    from charrun.service.engine import Engine
    from charrun.spec import Scale
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


@hookspec
def charrun_register_characters() -> Mapping[str, Path]:  # type: ignore[empty-body]
    """Return the character files that a spec may name under `characters:`, by id."""


@hookspec
def charrun_register_scales() -> list[Scale]:  # type: ignore[empty-body]
    """Return the scales that a spec may name under `scales:`."""


@hookspec
def charrun_run_started(event: events.RunStarted) -> None:
    """A run begins or continues."""


@hookspec
def charrun_run_finished(event: events.RunFinished) -> None:
    """Every cell of a run is done."""


@hookspec
def charrun_run_failed(event: events.RunFailed) -> None:
    """A run ended early: it failed or was interrupted."""


@hookspec
def charrun_stage_started(event: events.StageStarted) -> None:
    """A stage of a cell begins, or begins again for more rows."""


@hookspec
def charrun_stage_waits(event: events.StageWaits) -> None:
    """A stage has asked for what it can before its inputs are all there, and begins again when they are."""


@hookspec
def charrun_stage_progressed(event: events.StageProgressed) -> None:
    """A stage got on by some units of work."""


@hookspec
def charrun_stage_finished(event: events.StageFinished) -> None:
    """A stage has published its rows, now or in an earlier run."""


@hookspec
def charrun_stage_failed(event: events.StageFailed) -> None:
    """A stage stopped."""


@hookspec
def charrun_row_stored(event: events.RowStored) -> None:
    """One response of the engine is in the store."""


@hookspec
def charrun_step_done(event: events.StepDone) -> None:
    """One optimiser step is done."""


@hookspec
def charrun_message(event: events.Message) -> None:
    """There is one line to tell the person who watches."""
