"""The losses of forward and forward_backward, each a sum over tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A loss that is a function of each target token's log-prob.

    Attributes:
        inputs: Names of the per-token inputs that the client may send, with the value that stands in for one
            that is missing (None: it must be sent).
        gate: The input whose zeros mark tokens that carry no gradient.
        total: The summed loss from log-probs [tokens] and inputs of the same shape.
    """

    inputs: Mapping[str, float | None]
    gate: str
    total: Callable[[Tensor, Mapping[str, Tensor]], Tensor]


def cross_entropy(logprobs: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """`sum(-logprobs * weights)`: a sum, so whoever wants a mean sends weights that make one."""
    return -(logprobs * inputs["weights"]).sum()


LOSSES: dict[str, Loss] = {"cross_entropy": Loss({"weights": 1.0}, "weights", cross_entropy)}
