"""The optimiser loop: submitted one step ahead, so that no step waits for the one before it to come back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from charrun.service.service import explained

if TYPE_CHECKING:
    import tinker
    from tinker import types

_Batch = TypeVar("_Batch")
_AHEAD = 1

OnStep = Callable[[int, dict[str, float]], None]


def batches_of(rows: Sequence[_Batch], size: int) -> list[list[_Batch]]:
    """Consecutive batches; the last, partial one is kept."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


async def train_steps(
    client: tinker.TrainingClient,
    batches: Sequence[_Batch],
    submit: Callable[[_Batch], tinker.APIFuture[types.ForwardBackwardOutput]],
    adam: types.AdamParams,
    on_step: OnStep,
) -> None:
    """One optimiser step a batch; the gradient and its step are submitted together, one batch ahead.

    Args:
        client: The adapter in training.
        batches: What `submit` takes, in order.
        submit: Sends one batch's forward and backward pass and returns its future.
        adam: Parameters of every step.
        on_step: Called with the step's index and metrics once it is done.

    Raises:
        StageFailed: The engine refuses or fails.
    """
    pending: deque[tuple[int, Any, Any]] = deque()

    async def finish() -> None:
        step, gradient, update = pending.popleft()
        with explained():
            metrics = dict((await gradient).metrics)
            metrics.update((await update).metrics or {})
        on_step(step, metrics)

    for step, batch in enumerate(batches):
        pending.append((step, submit(batch), client.optim_step(adam)))
        if len(pending) > _AHEAD:
            await finish()
    while pending:
        await finish()
