"""Linear layers that share their inputs, with adapters, computed together and differentiated by hand.

Two ways give the same numbers. *Separate*: `y = x W^T + s (x A^T) B^T`, where x meets the A matrices of all layers in
one product. *Merged*: `W + s B A` is made once per version of the adapter and multiplied as one matrix; the backward
pass sums the full gradient G of that matrix and ends with `A: s B^T G`, `B: s G A^T`. Per token and layer the first
takes `4 in out + 6 r (in + out)` operations, the second `6 in out`: small models with large ranks gain from it, and
it needs a third of the kernel launches. It is used in fp32 only, where the sum W + s B A loses nothing that counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charrun.engine.linear import correlate, project
from charrun.engine.lora_parameters import LoraParameters


@dataclass(frozen=True)
class Projected:
    """What a backward pass needs besides the inputs: x A^T [tokens, layers * rank], if it was made."""

    low: Tensor | None

    def of(self, rows: Tensor) -> Projected:
        """That of some of the tokens."""
        return Projected(None if self.low is None else self.low[rows])


class LoraLinear:
    """Linear layers of one input: all of them have an adapter or none has."""

    def __init__(self, layers: Mapping[str, nn.Linear], parameters: LoraParameters) -> None:
        self._names = list(layers)
        self._layers = list(layers.values())
        self._parameters = parameters
        self.outputs = [layer.weight.shape[0] for layer in self._layers]
        self.inputs = int(self._layers[0].weight.shape[1])
        self.trained = self._names[0] in parameters
        self.merges = self.trained and self._merging_is_cheaper()
        self._merged: tuple[int, Tensor] | None = None
        self._full: Tensor | None = None
        biases = [layer.bias for layer in self._layers]
        self._bias = torch.cat([bias.detach() for bias in biases]) if biases[0] is not None else None

    def _merging_is_cheaper(self) -> bool:
        weight = self._layers[0].weight
        rank = self._parameters.spec.rank
        return weight.dtype == torch.float32 and all(
            self.inputs * outputs <= 3 * rank * (self.inputs + outputs) for outputs in self.outputs
        )

    @property
    def low_width(self) -> int:
        """Elements per token of `Projected.low`."""
        return len(self._names) * self._parameters.spec.rank if self.trained and not self.merges else 0

    def forward(self, inputs: Tensor) -> tuple[Tensor, Projected]:
        """Outputs [tokens, sum of outputs] of inputs [tokens, in]."""
        if self.merges:
            return project(inputs, self._merged_weight(), self._bias), Projected(None)
        parts = [project(inputs, layer.weight.detach(), layer.bias) for layer in self._layers]
        low = None
        if self.trained:
            values = self._parameters.values(inputs.dtype)
            low = project(inputs, self._parameters.stack(self._names, values))
            for part, some, name in zip(parts, self._split_low(low), self._names, strict=True):
                part.add_(project(some, self._parameters.pair(name, values)[1]), alpha=self._parameters.scale)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1), Projected(low)

    def backward(self, gradient: Tensor, inputs: Tensor, projected: Projected, need_inputs: bool) -> Tensor | None:
        """Adds to the adapters' gradients and returns the inputs' [tokens, in].

        Args:
            gradient: Of the outputs [tokens, sum of outputs].
            inputs: Those of the forward pass [tokens, in].
            projected: What the forward pass gave.
            need_inputs: Whether the inputs' gradient is wanted; None is returned otherwise.
        """
        if self.merges:
            self._add_full(correlate(gradient, inputs))
            return project(gradient, self._merged_weight().t()) if need_inputs else None
        result = None
        parts = gradient.split_with_sizes(self.outputs, -1)
        if need_inputs:
            for part, layer in zip(parts, self._layers, strict=True):
                more = project(part, layer.weight.detach().t())
                result = more if result is None else result.add_(more)
        if self.trained:
            low = self._low_backward(parts, inputs, projected)
            if result is not None:
                result.add_(
                    project(low, self._parameters.stack(self._names, self._parameters.values(inputs.dtype)).t())
                )
        return result

    def _low_backward(self, parts: Sequence[Tensor], inputs: Tensor, projected: Projected) -> Tensor:
        """Gradient of x A^T [tokens, layers * rank]; adds to the gradients of A and B."""
        parameters, scale = self._parameters, self._parameters.scale
        values = self._parameters.values(inputs.dtype)
        assert projected.low is not None
        lows = []
        for part, some, name in zip(parts, self._split_low(projected.low), self._names, strict=True):
            parameters.pair(name, parameters.gradient)[1].add_(correlate(part, some), alpha=scale)
            lows.append(project(part, parameters.pair(name, values)[1].t()).mul_(scale))
        low = lows[0] if len(lows) == 1 else torch.cat(lows, -1)
        parameters.stack(self._names, parameters.gradient).add_(correlate(low, inputs))
        return low

    def finish(self) -> None:
        """Turns the full gradient of merged weights, if there is one, into the adapters' gradients."""
        full, self._full = self._full, None
        if full is None:
            return
        parameters = self._parameters
        for part, name in zip(full.split_with_sizes(self.outputs), self._names, strict=True):
            first, second = parameters.pair(name)
            to_first, to_second = parameters.pair(name, parameters.gradient)
            to_first.addmm_(second.t(), part, alpha=parameters.scale)
            to_second.addmm_(part, first.t(), alpha=parameters.scale)

    def discard(self) -> None:
        """Forgets the full gradient of a backward pass that failed."""
        self._full = None

    def _add_full(self, gradient: Tensor) -> None:
        self._full = gradient if self._full is None else self._full.add_(gradient)

    def _split_low(self, low: Tensor) -> Sequence[Tensor]:
        return low.split_with_sizes([self._parameters.spec.rank] * len(self._names), -1)

    def _merged_weight(self) -> Tensor:
        parameters = self._parameters
        if self._merged is None or self._merged[0] != parameters.version:
            weight = torch.cat([layer.weight.detach() for layer in self._layers])
            for part, name in zip(weight.split_with_sizes(self.outputs), self._names, strict=True):
                first, second = parameters.pair(name)
                part.addmm_(second, first, alpha=parameters.scale)
            self._merged = (parameters.version, weight)
        return self._merged[1]
