"""The optimiser loop: submitted one step ahead, stored step by step, saved so that it can go on.

Contract:
1. A checkpoint is saved right behind its own step and holds no later one.
2. A training that was killed goes on from its last checkpoint and ends with the same curve and the same weights.
3. A resumed training takes its reference from the store and never from resumed weights.
4. Intermediate checkpoints expire and final ones never do.
5. The first Ctrl-C ends a training with a checkpoint of its last step.
6. A training whose checkpoints are gone begins anew and ends with the same weights.
7. A training that its judge stops goes on from a checkpoint of its last step once the judge agrees.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from charrun.errors import Interrupted, StageFailed
from charrun.faults import reached
from charrun.pipeline.adapters import INTERMEDIATE, Adapter, Adapters, discard, finished
from charrun.pipeline.snapshots import open_snapshot
from charrun.service.explained import explained
from charrun.store.training import Saved

if TYPE_CHECKING:
    import tinker
    from tinker import types

    from charrun.pipeline.context import StageContext
    from charrun.pipeline.stage_run import StageRun
    from charrun.service.service import RoleSampler

_Batch = TypeVar("_Batch")
_AHEAD = 1
_KEPT = 2
"""Intermediate checkpoints that are kept: the newest, and one to fall back on."""

INTERMEDIATE_TTL_SECONDS = 3 * 24 * 3600
"""After this an intermediate checkpoint is gone from the engine, so that what a crash leaves costs little: long
enough for a run that stopped on a Friday night to go on on Monday."""

OnStep = Callable[[int, dict[str, float]], None]
Pause = Callable[[int, "RoleSampler"], Awaitable[None]]


def batches_of(rows: Sequence[_Batch], size: int) -> list[list[_Batch]]:
    """Consecutive batches; the last, partial one is kept."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


async def train_steps(
    ctx: StageContext,
    adapter: Adapter,
    batches: Sequence[_Batch],
    submit: Callable[[_Batch], tinker.APIFuture[types.ForwardBackwardOutput]],
    adam: types.AdamParams | Callable[[int], types.AdamParams],
    on_step: OnStep,
    *,
    save_every: int = 0,
    judge: OnStep | None = None,
    pauses: Collection[int] = (),
    on_pause: Pause | None = None,
) -> list[dict[str, float]]:
    """One optimiser step a batch; the gradient and its step are submitted together, one batch ahead.

    Each step's metrics are stored when it is done. Every `save_every` steps a checkpoint with the optimizer's state is
    saved right behind its own step, so that it holds this step and no later one; a run that was killed goes on from
    the newest one that the engine still holds. A person's Ctrl-C ends the loop after the steps in flight, with a
    checkpoint.

    Args:
        ctx: The stage's context.
        adapter: The adapter in training; steps before its `next_step` are done.
        batches: All of them in order, as `submit` takes them.
        submit: Sends one batch's forward and backward pass and returns its future.
        adam: Parameters of every step, or what gives those of a step, from 0.
        on_step: Called with the step's index and metrics once it is done in this run.
        save_every: Steps between two checkpoints; 0 saves none.
        judge: Called with the metrics of every step in order, first with those of earlier runs. Where it raises
            StageFailed the steps in flight are awaited and stored, a checkpoint is saved, and the error is raised: with
            a judge that thinks otherwise the training goes on from there. Not called in a dry run.
        pauses: Numbers of steps after which `on_pause` is awaited while nothing is in flight; 0 is before the first.
        on_pause: Called with the number of steps and a sampler of the weights after them. Its answers are found by
            that number, so a training that goes on calls it for earlier pauses too, whose weights are gone: what it
            asked then comes from the store. It may raise StageFailed, as `judge`.

    Returns:
        The metrics of all steps from the first on, whichever run did them.

    Raises:
        StageFailed: The engine refuses or fails, or the training is judged to have failed.
        Interrupted: A person stopped the run, or its budget is reached.
    """
    run = ctx._run
    judge = None if ctx.dry else judge
    if judge is not None:
        for step, metrics in enumerate(run.attempt.work.training.curve(adapter.name)[: adapter.next_step]):
            judge(step, metrics)
    loop = _Loop(run, adapter, adapter.client, on_step, judge)
    ends = False
    try:
        for step in sorted(pauses):
            if on_pause and step < adapter.next_step:
                await loop.pause(step, on_pause)
        for step in range(adapter.next_step, len(batches) if not finished(adapter, len(batches)) else 0):
            if on_pause and step in pauses:
                await loop.pause(step, on_pause)
            if ctx.stopping or loop.failed:
                break
            gradient = await run.cell.shared.spending.when_it_fits(partial(submit, batches[step]))
            send = adam(step) if callable(adam) else adam
            await loop.submit(step, gradient, send, _is_due(step + 1, save_every, len(batches)))
        await loop.drain()
        if on_pause and loop.next_step == len(batches) in pauses:
            await loop.pause(len(batches), on_pause)
    except Interrupted:
        ends = True
    await loop.drain()
    if ends or loop.failed or loop.next_step < len(batches):
        await loop.save()
        if loop.failed:
            raise loop.failed
        run.cell.shared.go_on()
    return run.attempt.work.training.curve(adapter.name)


def _is_due(next_step: int, save_every: int, steps: int) -> bool:
    """Whether a checkpoint belongs before this step; the end has its own."""
    return save_every > 0 and next_step % save_every == 0 and next_step < steps


@dataclass
class _Submitted:
    """One step on its way."""

    step: int
    gradient: Any
    update: Any
    save: Any


class _Loop:
    """Steps in flight, and what is stored of those that are done."""

    def __init__(
        self,
        run: StageRun,
        adapter: Adapter,
        client: tinker.TrainingClient,
        on_step: OnStep,
        judge: OnStep | None = None,
    ) -> None:
        self.next_step = adapter.next_step
        self.failed: StageFailed | None = None
        self._judge = judge
        self._run = run
        self._adapter = adapter
        self._client = client
        self._on_step = on_step
        self._pending: deque[_Submitted] = deque()
        self._saved: list[str] = []
        self._last_saved = adapter.next_step if adapter.saved else 0

    async def submit(self, step: int, gradient: Any, adam: types.AdamParams, save: bool) -> None:
        """Send a step, with its checkpoint right behind it; wait for the one before."""
        update = self._client.optim_step(adam)
        reached("step.submitted")
        self._pending.append(_Submitted(step, gradient, update, self._save(step + 1) if save else None))
        if len(self._pending) > _AHEAD:
            await self._finish()

    async def drain(self) -> None:
        """Wait for all steps in flight."""
        while self._pending:
            await self._finish()

    async def save(self) -> None:
        """A checkpoint of the last step that is done, if it has none."""
        if self.next_step > self._last_saved:
            await self._record(self.next_step, self._save(self.next_step))

    async def pause(self, step: int, on_pause: Pause) -> None:
        """Let it look at the weights after so many steps, while nothing is in flight; earlier ones are gone."""
        await self.drain()
        if self.failed:
            return
        async with open_snapshot(self._run, self._adapter, step, held=step == self.next_step) as sampler:
            try:
                await on_pause(step, sampler)
            except StageFailed as error:
                self.failed = error

    def _save(self, next_step: int) -> Any:
        future = self._client.save_state(
            f"step-{next_step}",
            ttl_seconds=INTERMEDIATE_TTL_SECONDS,
            user_metadata=Adapters(self._run).note(INTERMEDIATE),
        )
        reached("save.submitted")
        return future

    async def _finish(self) -> None:
        done = self._pending.popleft()
        with explained():
            metrics = dict((await done.gradient).metrics)
            metrics.update((await done.update).metrics or {})
        reached("step.done")
        self._run.attempt.work.training.step(self._adapter.name, done.step, metrics)
        self.next_step = done.step + 1
        self._on_step(done.step, metrics)
        if self._judge is not None and self.failed is None:
            try:
                self._judge(done.step, metrics)
            except StageFailed as error:
                self.failed = error
        if done.save is not None:
            await self._record(done.step + 1, done.save)

    async def _record(self, next_step: int, future: Any) -> None:
        with explained():
            state = str((await future).path)
        reached("save.done")
        expires = round(time.time() + INTERMEDIATE_TTL_SECONDS, 3)
        self._run.attempt.work.training.saved(self._adapter.name, Saved(next_step, state, expires))
        self._run.cell.shared.record("checkpoint_saved", self._run, next_step=next_step, path=state, expires=expires)
        self._last_saved = next_step
        self._saved.append(state)
        if len(self._saved) > _KEPT:
            await discard(self._run, [self._saved.pop(0)])
