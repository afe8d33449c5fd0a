"""Before anything is paid: stages run dry, so that what is bound to fail does so while it is free."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from charrun.errors import EnvironmentProblem
from charrun.pipeline.choice import Choice
from charrun.pipeline.dry_run import run_dry
from charrun.pipeline.foresight import Foresight, cells_to_run
from charrun.plugin_manager import Registry

if TYPE_CHECKING:
    from charrun.pipeline.cell import Cell


def require_sound(
    choice: Choice, registry: Registry, runs_dir: Path, cells: Sequence[Cell], foresight: Foresight | None
) -> None:
    """Check that no stage is bound to fail.

    Args:
        choice: Where they run.
        registry: The plugins.
        runs_dir: Where their rows are kept.
        cells: What is run.
        foresight: What dry runs have shown already; one with a few rows of each stage is made where that has gaps.

    Raises:
        EnvironmentProblem: One is, such as by a prompt that does not fit its model's context.
    """
    if foresight is not None and not foresight.gaps:
        return
    left = cells_to_run(cells)
    if not left or not run_dry(choice, registry, runs_dir, left, tiny=True).failed:
        return
    failed = run_dry(choice, registry, runs_dir, left).failed
    if not failed:  # it was for the want of rows
        return
    whose: dict[str, str] = {}
    for (_, stage), error in failed.items():
        whose.setdefault(error.message, stage)  # what needs its rows fails by the same
    told = [f"{stage}: {message.removeprefix(f'{stage}: ')}" for message, stage in whose.items()]
    hint = next((error.hint for error in failed.values() if error.hint), "")
    raise EnvironmentProblem("\n".join(["nothing was begun, since this would fail:", *told]), hint)
