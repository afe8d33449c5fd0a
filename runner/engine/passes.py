"""One forward or forward_backward request: its data, and a check on what came out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from charrun.engine.errors import RequestRefused
from charrun.engine.losses import Loss
from charrun.engine.training import Datum, PassResult, TrainingRun


@dataclass(frozen=True)
class PassData:
    """The rows of a request and the loss over them."""

    rows: Sequence[Datum]
    loss: Loss


def run_pass(training: TrainingRun, data: PassData, backward: bool) -> PassResult:
    """Runs a request on the compute thread.

    Raises:
        RequestRefused: The loss is not a finite number; the next optimizer step is refused then, too.
    """
    result = training.run(data.rows, data.loss, backward)
    if not math.isfinite(result.loss):
        reason = f"the loss is {result.loss}: log-probs, advantages or weights are too large."
        if backward:
            training.mark_incomplete(f"in an earlier forward_backward {reason}")
        raise RequestRefused(f"This pass is not accepted, because {reason}")
    return result
