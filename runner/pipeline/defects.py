"""Errors of a plugin's own code: told as the plugin's, with the place where they happened, and never as charrun's."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path

from charrun.errors import CharrunError, PluginError, StageFailed
from charrun.plugin_loading import reason
from charrun.secrets import hide_message
from charrun.service.engine import Engine
from charrun.stage import Stage
from charrun.store.files import write_atomic

TRACEBACK = "traceback.txt"


@contextlib.contextmanager
def asking(of: type[Stage] | type[Engine]) -> Iterator[None]:
    """Around what a stage is asked before it runs, and an engine before it answers.

    Raises:
        PluginError: It breaks.
    """
    what = "stage" if issubclass(of, Stage) else "engine"
    try:
        yield
    except (CharrunError, KeyboardInterrupt):
        raise
    except BaseException as error:
        hint = f"a defect of the {what}{_place(error, of)}"
        raise PluginError(f"{what} '{of.name}' breaks: {reason(error)}", hint) from error


@contextlib.contextmanager
def running(stage: type[Stage], id: str, folder: Path) -> Iterator[None]:
    """Around a stage's work; errors of the operating system, such as a full disk, are none of the stage's.

    Args:
        stage: The stage.
        id: What the spec calls it.
        folder: Gets the traceback.

    Raises:
        StageFailed: It breaks.
    """
    try:
        yield
    except (CharrunError, OSError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _is_cancelled():
            raise
        with contextlib.suppress(OSError):
            write_atomic(folder / TRACEBACK, hide_message("".join(traceback.format_exception(error))))
        hint = f"a defect of the stage{_place(error, stage)}; the traceback is in {folder / TRACEBACK}"
        raise StageFailed(f"{id}: {reason(error)}", hint) from error


def _is_cancelled() -> bool:
    """Whether the run is being ended; a stage may also raise the error of a cancelled task by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _place(error: BaseException, of: type) -> str:
    """Where in the plugin's own file it happened, as the rest of a phrase."""
    try:
        file = inspect.getfile(of)
    except (TypeError, OSError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" at {file}:{lines[-1]}" if lines else f" in {file}"
