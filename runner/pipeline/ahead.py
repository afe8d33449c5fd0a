"""What a stage asks for before all of its inputs are there.

A checkpoint counts by what it was trained from, so what is made of it has a name, and a folder, once its training has
begun. A stage that `begins_early` runs twice: beside the training, once that has made a step, as far as it goes without
the checkpoint; and again when that is there, where it finds what it has asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from charrun.errors import Interrupted, Locked
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.store.canonical import digest_rows
from charrun.store.tickets import read_ticket

if TYPE_CHECKING:
    from charrun.pipeline.stage_run import StageRun


class NotYet(Interrupted):
    """Rows that are not there yet: nothing further is begun that needs them, and what is in flight is awaited."""


async def go_ahead(run: StageRun) -> None:
    """Let a stage ask for what does not need the checkpoints that are still being trained; it publishes nothing.

    Raises:
        CharrunError: What it waits for has failed, the engine or the disk has, or the run is being stopped.
    """
    shared = run.cell.shared
    if not run.stage.begins_early or not shared.goes_ahead or run.forced or run.extra:
        return
    awaited: dict[StageRun, str] = {}
    for earlier in run.before():
        if (content := await _foretold(earlier)) is None:
            await shared.await_end(earlier)
        else:
            awaited[earlier] = content
    awaited = {earlier: content for earlier, content in awaited.items() if earlier.is_at_work}  # still
    if awaited and all(kind == CHECKPOINT or earlier not in awaited for kind, earlier in run.inputs()):
        await _ask(run, awaited)


async def _foretold(run: StageRun) -> str | None:
    """Digest of the checkpoint that a training is about to publish, once begun; None where it must be awaited."""
    if not run.stage.one_checkpoint:
        return None
    await run.begins.wait()
    return digest_rows([run.fingerprint]) if run.is_at_work else None


async def _ask(run: StageRun, awaited: Mapping[StageRun, str]) -> None:
    shared = run.cell.shared
    contents = {
        (kind, each.item.id): awaited[each] if each in awaited else (await each.ensure())[kind].content
        for kind, each in run.inputs()
    }
    described = run.locate(contents)
    async with shared.turn(run.folder):
        if read_ticket(run.ticket) is not None:
            return
        with contextlib.suppress(Locked):  # another process is at it: it is not needed yet
            await run.go_ahead(described, frozenset(awaited))
