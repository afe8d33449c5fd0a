"""The pieces of a Llama-like layer on packed tokens, each with its backward pass written out.

A forward pass returns its result and what its backward pass needs; nothing here records an autograd graph, except for
attention, whose fused kernels are reached through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from charrun.engine.packing import Packing, RowGroup


@dataclass(frozen=True)
class Normalized:
    """`x / rms(x)` [..., width] and the factor `1 / rms(x)` [..., 1] in fp32."""

    states: Tensor
    factor: Tensor


class RmsNorm:
    """RMSNorm with a frozen weight [width] or [heads, width]."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight.detach()
        self._eps = eps

    @classmethod
    def of(cls, module: Any) -> RmsNorm:
        """From a transformers module."""
        return cls(module.weight, float(module.variance_epsilon))

    def normalize(self, states: Tensor) -> Normalized:
        """Of states [..., width]."""
        wide = states.float()
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        factor = norm.square_().div_(wide.shape[-1]).add_(self._eps).rsqrt_()
        return Normalized((wide * factor).to(states.dtype), factor)

    def scaled(self, normalized: Normalized) -> Tensor:
        """The layer's output."""
        return normalized.states * self.weight

    def backward(self, gradient: Tensor, normalized: Normalized) -> Tensor:
        """Gradient of the input from that of the output [..., width]."""
        inner = gradient.float() * self.weight
        states = normalized.states.float()
        along = torch.linalg.vecdot(inner, states).unsqueeze_(-1).div_(-states.shape[-1])
        return inner.addcmul_(states, along).mul_(normalized.factor).to(gradient.dtype)


@dataclass(frozen=True)
class Rotation:
    """Rotary embedding of a packing's positions: cosines and signed sines [tokens, 1, head size]."""

    cosines: Tensor
    sines: Tensor

    @classmethod
    def of(cls, module: Any, packing: Packing, like: Tensor) -> Rotation:
        """By a transformers module, in the precision of `like`."""
        length = max(packing.lengths)
        places = torch.arange(length, device=like.device)[None]
        cosines, sines = (table[0] for table in module(like, places))
        half = sines.shape[-1] // 2
        signed = torch.cat((-sines[:, :half], sines[:, half:]), -1)
        return cls(cosines[packing.positions][:, None], signed[packing.positions][:, None])

    def forward(self, states: Tensor) -> Tensor:
        """Rotated states [tokens, heads, head size]."""
        return (states * self.cosines).addcmul_(_swapped(states), self.sines)

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the states."""
        return (gradient * self.cosines).add_(_swapped(gradient * self.sines))


def _swapped(states: Tensor) -> Tensor:
    return states.roll(states.shape[-1] // 2, -1)


@dataclass(frozen=True)
class Attended:
    """One group's attention: the graph's inputs and its output [rows, heads, length, head size]."""

    inputs: tuple[Tensor, Tensor, Tensor]
    output: Tensor


def attend(packing: Packing, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, list[Attended]]:
    """Causal attention within each row.

    Args:
        packing: The rows.
        query: [tokens, heads, head size].
        key: [tokens, key heads, head size].
        value: Like `key`.
        scale: Factor of the scores.

    Returns:
        [tokens, heads, head size], and one record per group.
    """
    result = torch.empty_like(query) if len(packing.groups) > 1 or packing.groups[0].places is not None else None
    records = []
    for group in packing.groups:
        inputs = _leaf(group, query), _leaf(group, key), _leaf(group, value)
        with torch.enable_grad():
            output = functional.scaled_dot_product_attention(
                *inputs, is_causal=True, scale=scale, enable_gqa=query.shape[1] > key.shape[1]
            )
        records.append(Attended(inputs, output))
        if result is not None:
            group.collect(output.detach().transpose(1, 2), result)
    if result is None:
        result = records[0].output.detach().transpose(1, 2).reshape(query.shape)
    return result, records


def _leaf(group: RowGroup, packed: Tensor) -> Tensor:
    """[rows, heads, length, head size], where a gradient shall arrive."""
    return group.spread(packed).transpose(1, 2).detach().requires_grad_()


def attend_backward(
    packing: Packing, records: list[Attended], gradient: Tensor, query: Tensor, key: Tensor, value: Tensor
) -> None:
    """Writes the gradients of `attend`'s inputs.

    Args:
        packing: The rows.
        records: What `attend` gave.
        gradient: Of its result [tokens, heads, head size].
        query: Where the query's gradient goes, [tokens, heads, head size].
        key: Likewise the key's.
        value: Likewise the value's.
    """
    for group, record in zip(packing.groups, records, strict=True):
        outside = group.spread(gradient).transpose(1, 2)
        found = torch.autograd.grad(record.output, record.inputs, outside)
        for part, into in zip(found, (query, key, value), strict=True):
            group.collect(part.transpose(1, 2), into)


def gate(both: Tensor) -> tuple[Tensor, Tensor]:
    """`silu(gate) * up` and `silu(gate)`, each [tokens, inner], of both projections [tokens, 2 * inner]."""
    left, right = both.chunk(2, -1)
    active = functional.silu(left)
    return active * right, active


def gate_backward(gradient: Tensor, both: Tensor, active: Tensor) -> Tensor:
    """Gradient of `gate`'s input [tokens, 2 * inner]; `active` is its second result."""
    left, right = both.chunk(2, -1)
    result = torch.empty_like(both)
    to_left, to_right = result.chunk(2, -1)
    torch.mul(gradient, active, out=to_right)
    to_left.copy_(torch.ops.aten.silu_backward(gradient * right, left))
    return result
