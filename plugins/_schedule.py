"""Learning rates over the steps of a training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

OPTIONS: dict[str, Any] = {
    "lr_schedule": {
        "enum": ["constant", "linear", "cosine"],
        "default": "constant",
        "description": "How the learning rate falls after the warm-up; the paper's is cosine.",
    },
    "warmup_ratio": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.0,
        "description": "Share of the steps over which the learning rate rises to its full value; the paper's is 0.1.",
    },
    "min_lr_ratio": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.0,
        "description": "Share of the learning rate at which its fall ends; the paper's is 0.1.",
    },
}


def learning_rates(options: Mapping[str, Any], steps: int) -> list[float]:
    """The learning rate of each step.

    The first ceil(warmup_ratio * steps) steps rise in equal parts to `learning_rate`, which the last of them has. The
    fall is that of Hugging Face's schedules with a floor (OpenRLHF's, which the paper uses): at the end of the last
    step it has come to min_lr_ratio * learning_rate.
    """
    warmup: int = math.ceil(options["warmup_ratio"] * steps)
    floor, peak = float(options["min_lr_ratio"]), float(options["learning_rate"])

    def share(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, steps - warmup)
        if options["lr_schedule"] == "constant":
            return 1.0
        left = 1 - done if options["lr_schedule"] == "linear" else (1 + math.cos(math.pi * done)) / 2
        return floor + (1 - floor) * left

    return [peak * share(step) for step in range(steps)]
