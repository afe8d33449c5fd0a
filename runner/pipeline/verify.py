"""`charrun verify`: a run's files, and the checkpoints that it has published, where its engine keeps them here."""

from __future__ import annotations

from typing import Any

from charrun.errors import CharrunError
from charrun.pipeline.checkpoints import CHECKPOINT, engine_options
from charrun.pipeline.defects import asking
from charrun.plugin_manager import Registry
from charrun.service.engine import EngineRequest
from charrun.store.cells import StageView
from charrun.store.checked import Checked
from charrun.store.runs import Run
from charrun.store.verify import verify_run

_THEN = "trained again by the next run whose stages still need it"


def verify(run: Run, registry: Registry) -> tuple[Checked, str]:
    """Check every file of a run; nothing is changed, locked or started.

    Returns:
        What was found, and why checkpoints were not looked at, which is empty where they were.

    Raises:
        OSError: A file is there and can't be read.
    """
    found = verify_run(run)
    paths = _published(run)
    if run.engine not in registry.engines:
        return found, f"the engine {run.engine or '?'} is not installed" if paths else ""
    engine = registry.engines[run.engine]()
    if engine.hosted:
        return found, f"they lie at the engine {run.engine}, not on this machine" if paths else ""
    request = EngineRequest((), engine_options(run), run.runs_dir / "engine", run.runs_dir / "engine.log")
    try:
        with asking(type(engine)):
            damaged = engine.damaged(paths, request)
            for each in engine.stored(request) if paths else ():
                if each.path in paths and each.folder is not None:
                    found.covered += sorted(path for path in each.folder.iterdir() if path.is_file())
    except CharrunError as error:
        return found, error.message
    for file, what in damaged.values():
        found.add(file, what, _THEN)
    return found, ""


def _published(run: Run) -> list[str]:
    """Paths of the checkpoints that a run's stages have published; of damaged files none."""
    rows = [row for cell in run.cells for stage in cell.stages if CHECKPOINT in stage.outputs for row in _rows(stage)]
    return list(dict.fromkeys(str(row[key]) for row in rows for key in ("state", "sampler") if key in row))


def _rows(stage: StageView) -> list[dict[str, Any]]:
    return [row for row in stage.outputs[CHECKPOINT].read() or () if isinstance(row, dict)]
