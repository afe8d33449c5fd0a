"""LoRA adapters of a stage: opened where their training stands, saved so that it can go on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.chat import Chat
from charrun.errors import StageFailed
from charrun.faults import reached
from charrun.service.explained import explained
from charrun.store.canonical import seed_from
from charrun.store.training import Saved

if TYPE_CHECKING:
    import tinker

    from charrun.pipeline.stage_run import StageRun
    from charrun.spec import ModelRef
    from charrun.stage import Row

BYTES = "bytes"
"""Of a checkpoint's row: what its state and its sampler's weights have together, where storage is paid for."""
KIND = "charrun"
"""Key of the note that every checkpoint of charrun's carries at the engine."""
INTERMEDIATE, FINAL = "intermediate", "final"
_COPY = re.compile(r"charrun-(?P<folder>.+-[0-9a-f]{16})-.+")
_LONGEST_NAME = 128


def copy_name(folder: str, name: str) -> str:
    """What the engine's copy of an adapter that is fetched is called: such a copy carries no note."""
    return f"charrun-{folder}-{name}"[:_LONGEST_NAME]


def copied_for(path: str) -> str:
    """The store folder that a copy at the engine was fetched for; empty where it is no such copy."""
    _, _, place = path.removeprefix("tinker://").partition("/")
    kind, _, name = place.partition("/")
    found = _COPY.fullmatch(name) if kind == "external_weights" else None
    return found["folder"] if found else ""


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter in training: the SDK's client, and the rendering of its base model.

    Attributes:
        client: The SDK's client.
        chat: The rendering of its conversations.
        base_model: Name of the model that it belongs to.
        rank: Its rank.
        context_length: Longest row, in tokens; None where the engine does not say.
        next_step: The optimiser step that comes next: 0, or where an earlier run's checkpoint leaves off.
        name: Which of the stage's adapters it is.
        fresh: Makes a client with the weights that the training began with.
        saved: The checkpoint that it goes on from; None where it begins.
    """

    client: tinker.TrainingClient
    chat: Chat
    base_model: str
    rank: int
    context_length: int | None
    next_step: int
    name: str
    fresh: Callable[[], Awaitable[tinker.TrainingClient]]
    saved: Saved | None = None


class Adapters:
    """Opens and saves the adapters of one stage."""

    def __init__(self, run: StageRun) -> None:
        self._run = run

    async def new(self, ref: ModelRef, rank: int, name: str) -> Adapter:
        """See `StageContext.new_adapter`."""
        session = await self._run.attempt.session()
        seed = seed_from(self._run.cell.seed, name)
        return await self._open(ref, rank, name, lambda: session.new_adapter(ref.name, rank, seed))

    async def continued(self, ref: ModelRef, checkpoint: Row, name: str) -> Adapter:
        """See `StageContext.continue_adapter`."""
        session = await self._run.attempt.session()
        state = str(checkpoint["state"])
        return await self._open(ref, int(checkpoint["lora_rank"]), name, lambda: session.adapter_from(state))

    async def save(self, adapter: Adapter, name: str) -> Row:
        """See `StageContext.save`."""
        log = self._run.attempt.work.training
        steps = len(log.curve(adapter.name))
        saved = adapter.saved
        service = await self._run.cell.shared.service()
        whole = saved is not None and saved.is_final and saved.next_step == steps
        if saved is None or not whole or not await service.exists(saved.sampler):
            note = self.note(FINAL)
            with explained():
                state = adapter.client.save_state(name, user_metadata=note)
                weights = adapter.client.save_weights_for_sampler(name, user_metadata=note)
                reached("save.submitted")
                paths = (await state).path, (await weights).path
            reached("save.done")
            saved = Saved(steps, paths[0], None, paths[1], adapter.base_model)
            if steps:  # of a loop that charrun does not know there is nothing to go on from
                log.saved(adapter.name, saved)
        row, size = self._row(adapter.base_model, adapter.rank, saved.state, saved.sampler), None
        if self._run.cell.shared.engine.hosted:
            size = await service.size(saved.state, saved.sampler)
        return row if size is None else {**row, BYTES: size}

    async def take(self, ref: ModelRef, folder: Path, rank: int, name: str) -> Row:
        """See `StageContext.take_adapter`."""
        state, sampler = await self._run.cell.shared.take_adapter(folder, ref.name, name, self.note(FINAL))
        return self._row(ref.name, rank, state, sampler)

    def _row(self, base_model: str, rank: int, state: str, sampler: str) -> Row:
        """What is published of a checkpoint."""
        return {
            "stage": self._run.item.id,
            "base_model": base_model,
            "lora_rank": rank,
            "state": state,
            "sampler": sampler,
            "fingerprint": self._run.fingerprint,
        }

    def note(self, kind: str) -> dict[str, str]:
        """What a checkpoint says of itself at the engine."""
        cell, stage = self._run.place
        run = self._run.cell.shared.folder.name
        return {KIND: kind, "run": run, "cell": cell, "stage": stage, "folder": self._run.folder.name}

    async def _open(
        self, ref: ModelRef, rank: int, name: str, fresh: Callable[[], Awaitable[tinker.TrainingClient]]
    ) -> Adapter:
        shared = self._run.cell.shared
        service, session = await shared.service(), await self._run.attempt.session()
        context_length = service.context_length(ref.name)

        async def begun() -> tinker.TrainingClient:
            return self._run.attempt.metered_trainer(await fresh(), ref.name)

        about: dict[str, Any] = {
            "chat": await service.chat(ref.name, ref.chat),
            "base_model": ref.name,
            "rank": rank,
            "context_length": context_length,
            "name": name,
            "fresh": begun,
        }
        resumable = self._run.attempt.work.training.resumable(name)
        for saved in resumable:
            client = (
                await session.resumed_adapter(saved.state) if await service.exists(saved.state, saved.expires) else None
            )
            if client is not None:
                what = "its last step" if saved.is_final else f"step {saved.next_step}"
                shared.message(self._run, f"training goes on from {what}, {saved.state}")
                client = self._run.attempt.metered_trainer(client, ref.name)
                return Adapter(client=client, next_step=saved.next_step, saved=saved, **about)
        if resumable:
            shared.message(self._run, "the engine holds no checkpoint of this training any more: it begins anew")
        return Adapter(client=await begun(), next_step=0, **about)


async def discard(run: StageRun, states: list[str]) -> None:
    """Delete intermediate checkpoints that nobody needs any more; where that fails, they expire."""
    for state in states:
        service = await run.cell.shared.service()
        await service.delete(state)


def finished(adapter: Adapter, steps: int) -> bool:
    """Whether nothing is left to train.

    Raises:
        StageFailed: More steps are stored than there are.
    """
    if adapter.next_step > steps:
        raise StageFailed(
            f"{adapter.next_step} steps of the adapter '{adapter.name}' are stored, and it has {steps}",
            "a defect of the stage: give train_steps all batches of an adapter at once",
        )
    return adapter.next_step == steps
