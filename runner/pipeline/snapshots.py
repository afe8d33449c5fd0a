"""Samplers of an adapter's weights in the middle of its training.

Answers are found by stage, adapter and number of steps. The weights are saved when the first answer is asked for that
is not stored, for an hour, and deleted when the looking is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from charrun.errors import StageFailed
from charrun.pipeline.adapters import INTERMEDIATE, Adapter, Adapters, discard
from charrun.pipeline.meter import Meter, MeteredSampler
from charrun.pipeline.requests import weights_name
from charrun.service.explained import explained
from charrun.service.service import RoleSampler
from charrun.service.session import Sampler

if TYPE_CHECKING:
    from tinker import types

    from charrun.pipeline.stage_run import StageRun

TTL_SECONDS = 3600
"""The shortest that Tinker offers: what a crash leaves costs next to nothing."""


class SnapshotSampler(MeteredSampler):
    """A metered sampler whose weights are there when somebody asks."""

    def __init__(self, begin: Callable[[], Awaitable[Sampler]], meter: Meter, context_length: int | None) -> None:
        super().__init__(cast("Sampler", None), meter, context_length)
        self._begin = begin
        self._has_begun = False
        self._beginning = asyncio.Lock()

    async def asked(
        self, prompt: types.ModelInput, num_samples: int, sampling_params: types.SamplingParams, since: float
    ) -> types.SampleResponse:
        """As a metered sampler's."""
        await self._begun()
        return await super().asked(prompt, num_samples, sampling_params, since)

    async def scored(self, prompt: types.ModelInput, last_n: int, since: float) -> types.SampleResponse:
        """As a metered sampler's."""
        await self._begun()
        return await super().scored(prompt, last_n, since)

    async def _begun(self) -> None:
        async with self._beginning:
            if not self._has_begun:
                self._client = cast("Any", await self._begin())
                self._has_begun = True


@asynccontextmanager
async def open_snapshot(run: StageRun, adapter: Adapter, step: int, *, held: bool) -> AsyncIterator[RoleSampler]:
    """A sampler of an adapter's weights after so many steps.

    Args:
        run: Whose adapter.
        adapter: The adapter in training.
        step: How many steps its weights have had.
        held: Whether these are the weights that it has now; others can be asked only what is stored.
    """
    saved: list[str] = []

    async def begin() -> Sampler:
        if not held:
            raise StageFailed(
                f"{run.item.id} asks weights after {step} steps what it did not ask them then, and they are gone",
                "train anew: charrun run --force",
            )
        name, note = f"snapshot-{step}", Adapters(run).note(INTERMEDIATE)
        with explained():
            path = (
                await adapter.client.save_weights_for_sampler(name, ttl_seconds=TTL_SECONDS, user_metadata=note)
            ).path
            saved.append(str(path))
            session = await run.attempt.session()
            return await session.sampler(adapter.base_model, saved[0])

    meter = run.attempt.meter(adapter.base_model)
    yield RoleSampler(
        client=SnapshotSampler(begin, meter, adapter.context_length),
        chat=adapter.chat,
        model=f"{adapter.base_model} after {step} steps",
        fingerprint=weights_name([run.fingerprint, adapter.name, step], adapter.chat),
        context_length=adapter.context_length,
    )
    await discard(run, saved)  # after an error or a second Ctrl-C nobody waits for that: they expire
