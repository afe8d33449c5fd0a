"""Checkpoints that stages still need and that are soon gone by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from charrun.errors import CharrunError
from charrun.pipeline.cell import Cell
from charrun.pipeline.checkpoints import CHECKPOINT

_SOON_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Expiring:
    """A checkpoint that is gone within a week.

    Attributes:
        path: `tinker://<run>/<kind>/<name>`.
        stage: The stage item that made it.
        expires: When it is gone, in seconds since 1970.
    """

    path: str
    stage: str
    expires: float


def expiring(cells: Sequence[Cell]) -> list[Expiring]:
    """Those that are there and that a stage which is not done rests on; nothing where the engine cannot be asked."""
    needed = {path: stage for cell in cells for stage, path in _needed(cell)}
    if not needed:
        return []
    with suppress(CharrunError):
        until = {each.path: each.expires for each in cells[0].shared.stored() if each.path in needed}
        soon = time.time() + _SOON_SECONDS
        return [Expiring(path, needed[path], at) for path, at in sorted(until.items()) if at is not None and at < soon]
    return []


def _needed(cell: Cell) -> Iterable[tuple[str, str]]:
    """Stage and path of each checkpoint that is consumed by what is still to be made."""
    for run in cell.selected:
        if run.peek() is not None:
            continue
        for kind, producer in run.inputs():
            outputs = producer.peek() if kind == CHECKPOINT else None
            for row in outputs[CHECKPOINT].read() if outputs else ():
                yield from ((producer.item.id, str(row[key])) for key in ("state", "sampler"))
