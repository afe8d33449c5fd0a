"""From hidden states to log-probs, loss and the hidden states' gradient, a chunk of logits at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from charrun.engine.causal import CausalLM
from charrun.engine.lora_linear import LoraLinear
from charrun.engine.losses import Loss

CHUNK_ELEMENTS = {"cpu": 1_000_000}
"""Logits held at once, by kind of device: on a CPU as many as its cache holds."""
CHUNK_ELEMENTS_ELSEWHERE = 64_000_000
SMALLEST_CHUNK = 128


class Head(Protocol):
    """The output layer."""

    @property
    def vocabulary(self) -> int:
        """Width of the logits."""

    def forward(self, hidden: Tensor, differentiable: bool) -> tuple[Tensor, Any]:
        """Logits [tokens, vocabulary] fp32 of hidden states [tokens, width], and what `backward` needs."""

    def backward(self, gradient: Tensor, rows: Tensor | None, kept: Any) -> Tensor:
        """Gradient of the hidden states of those rows (None: all) from that of their logits; adds to the adapter's."""

    def finish(self) -> None:
        """Completes the adapter's gradients."""

    def discard(self) -> None:
        """Forgets what a failed backward pass left."""


class LinearHead:
    """A plain linear output layer, differentiated by hand."""

    def __init__(self, linear: LoraLinear) -> None:
        self._linear = linear
        self.vocabulary = sum(linear.outputs)

    def forward(self, hidden: Tensor, differentiable: bool) -> tuple[Tensor, Any]:
        """See `Head`."""
        logits, projected = self._linear.forward(hidden)
        return logits.float(), (hidden, projected)

    def backward(self, gradient: Tensor, rows: Tensor | None, kept: Any) -> Tensor:
        """See `Head`."""
        hidden, projected = kept
        if rows is not None:
            hidden, projected = hidden[rows], projected.of(rows)
        result = self._linear.backward(gradient.to(hidden.dtype), hidden, projected, need_inputs=True)
        assert result is not None
        return result

    def finish(self) -> None:
        """See `Head`."""
        self._linear.finish()

    def discard(self) -> None:
        """See `Head`."""
        self._linear.discard()


class AutogradHead:
    """Any output layer, by autograd."""

    def __init__(self, model: CausalLM) -> None:
        self._model = model
        self.vocabulary = model.vocabulary

    def forward(self, hidden: Tensor, differentiable: bool) -> tuple[Tensor, Any]:
        """See `Head`."""
        with torch.set_grad_enabled(differentiable):
            leaf = hidden.detach().requires_grad_(differentiable)
            logits = self._model.logits(leaf)
        return logits.detach(), (leaf, logits)

    def backward(self, gradient: Tensor, rows: Tensor | None, kept: Any) -> Tensor:
        """See `Head`."""
        leaf, logits = kept
        if rows is not None:
            gradient = torch.zeros_like(logits).index_copy_(0, rows, gradient)
        logits.backward(gradient)
        found: Tensor = leaf.grad
        return found if rows is None else found[rows]

    def finish(self) -> None:
        """See `Head`."""

    def discard(self) -> None:
        """See `Head`."""


@dataclass(frozen=True)
class Scored:
    """Log-probs [tokens] or [tokens, targets], the summed loss, and the hidden states' gradient, if it was wanted."""

    logprobs: Tensor
    loss: float
    gradient: Tensor | None


@torch.no_grad()
def score(
    head: Head, hidden: Tensor, targets: Tensor, inputs: Mapping[str, Tensor], loss: Loss, backward: bool
) -> Scored:
    """Scores target tokens and, if asked, runs the head's backward pass.

    Tokens that carry no gradient are left out of the backward pass: their log-probs are only reported.

    Args:
        head: The output layer.
        hidden: Last hidden states [tokens, width].
        targets: Token ids [tokens], or [tokens, targets].
        inputs: The loss's inputs, shaped as `targets`.
        loss: The loss.
        backward: Whether the gradient is wanted.
    """
    logprobs = torch.empty(targets.shape, device=hidden.device)
    gradient = torch.zeros_like(hidden) if backward else None
    total = 0.0
    for part in _chunks(hidden, head.vocabulary):
        logits, kept = head.forward(hidden[part], backward)
        shares, logprobs[part] = _normalized(logits, targets[part])
        some = {name: values[part] for name, values in inputs.items()}
        rows = _counted(some[loss.gate])
        if rows is not None and not len(rows):
            continue
        chosen = logprobs[part] if rows is None else logprobs[part][rows]
        some = some if rows is None else {name: values[rows] for name, values in some.items()}
        with torch.set_grad_enabled(backward):
            leaf = chosen.detach().requires_grad_(backward)
            value = loss.total(leaf, some)
        total += float(value.detach())
        if gradient is None or not value.requires_grad:
            continue
        (slope,) = torch.autograd.grad(value, leaf)
        where = targets[part] if rows is None else targets[part][rows]
        to_logits = _logits_gradient(shares if rows is None else shares[rows], where, slope)
        found = head.backward(to_logits, rows, kept)
        if rows is None:
            gradient[part] = found
        else:
            gradient[part].index_copy_(0, rows, found)
    return Scored(logprobs, total, gradient)


def _normalized(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax [tokens, vocabulary] and the targets' log-probs.

    The normaliser comes from the largest share: torch's logsumexp costs three times as much on a CPU.
    """
    shares = torch.softmax(logits, -1)
    normalizer = logits.amax(-1) - shares.amax(-1).log()
    found = logits.gather(-1, targets.view(len(targets), -1)) - normalizer[:, None]
    return shares, found.view(targets.shape)


def _logits_gradient(shares: Tensor, targets: Tensor, slope: Tensor) -> Tensor:
    """Gradient of the logits from that of the log-probs; takes the place of `shares`."""
    slope = slope.view(len(targets), -1)
    shares.mul_(slope.sum(-1, keepdim=True).neg_())
    return shares.scatter_add_(1, targets.view(len(targets), -1), slope)


def _counted(gates: Tensor) -> Tensor | None:
    """Numbers of the tokens that carry gradient; None where all do."""
    open_gates = (gates != 0).view(len(gates), -1).any(-1)
    return None if bool(open_gates.all()) else open_gates.nonzero()[:, 0]


def chunk_tokens(device: torch.device, vocabulary: int) -> int:
    """Tokens whose logits are held at once."""
    elements = CHUNK_ELEMENTS.get(device.type, CHUNK_ELEMENTS_ELSEWHERE)
    return max(SMALLEST_CHUNK, elements // vocabulary)


def _chunks(hidden: Tensor, vocabulary: int) -> Iterator[slice]:
    step = chunk_tokens(hidden.device, vocabulary)
    for start in range(0, len(hidden), step):
        yield slice(start, min(start + step, len(hidden)))
