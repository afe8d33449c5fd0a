"""Named instants at which a test may kill this process: `CHARRUN_FAULT=row.after:7`.

Contract:
1. Without the variable nothing happens.
2. Where it names an instant the process is killed there the n-th time.
3. The variable reaches the local engine too.

Nothing is flushed, closed or told. A point belongs to the runner or to the engine, and the other never reaches it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

VARIABLE = "CHARRUN_FAULT"

POINTS = {
    "journal.before": "an event is about to be appended to the journal",
    "journal.after": "an event was appended to the journal",
    "row.before": "a response has come and is about to be stored",
    "row.after": "a response is stored and was not used yet",
    "ledger.reserved": "a request is in the ledger and was not sent yet",
    "ledger.settled": "the end of a request is in the ledger, and nothing has used its answer yet",
    "file.written": "a file is written aside and synced, and not renamed yet",
    "file.renamed": "a file was renamed into its place, and its folder is not synced yet",
    "step.submitted": "an optimiser step is submitted, and nothing behind it",
    "step.done": "an optimiser step is done, and its metrics are not stored yet",
    "save.submitted": "a checkpoint's save is submitted right behind its optimiser step",
    "save.done": "the engine has saved a checkpoint, and its path is not stored yet",
    "save.recorded": "a checkpoint's path is stored",
    "outputs.before": "a stage's work is done, and its outputs are not published yet",
    "outputs.after": "a stage's outputs are published, and the journal does not tell yet",
    "gc.moved": "a collection has renamed away what it deletes, and deleted nothing of it yet",
    "engine.sampled": "the engine has sampled a response and not answered yet",
    "engine.stepped": "the engine has taken an optimiser step and not answered yet",
    "engine.written": "the engine has written a checkpoint aside and not renamed it yet",
    "engine.renamed": "the engine has renamed a checkpoint into its place and not answered yet",
}
"""Every point, with what is true when it is reached."""

_wanted, _, _count = os.environ.get(VARIABLE, "").partition(":")
_left = int(_count) if _count.isdecimal() else 1


def reached(point: str) -> None:
    """End this process here, if it was told so."""
    if point == _wanted:
        _count_down()


@contextlib.contextmanager
def suspended() -> Iterator[None]:
    """Nothing ends this process while the block runs."""
    global _wanted
    wanted, _wanted = _wanted, ""
    try:
        yield
    finally:
        _wanted = wanted


def _count_down() -> None:
    global _left
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
