"""What the engine has billed for a run, to hold the ledger to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from charrun.errors import EnvironmentProblem
from charrun.pipeline.checkpoints import engine_options
from charrun.pipeline.defects import asking
from charrun.plugin_manager import Registry
from charrun.service.engine import Billed, EngineRequest
from charrun.store.ledger import LEDGER_NOTE, Totals

if TYPE_CHECKING:
    from charrun.store.runs import Run


def billed_of(run: Run, totals: Totals, registry: Registry) -> Sequence[Billed]:
    """What the engine has billed for the sessions of a run's processes.

    Raises:
        EnvironmentProblem: The engine has no bill, cannot be asked, or is of a plugin that is not there any more.
    """
    if run.engine not in registry.engines:
        raise EnvironmentProblem(f"the engine {run.engine} is not installed here")
    engine = registry.engines[run.engine]()
    request = EngineRequest([], engine_options(run), run.runs_dir / "engine", run.folder / "engine.log")
    with asking(type(engine)):
        found = engine.billed(run.started or time.time(), run.last or time.time(), request)
    return [each for each in found if each.note.get(LEDGER_NOTE) in totals.processes]
