"""A LoRA training run: gradients that accumulate until an Adam step, as Tinker does it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.causal import CausalLM
from charrun.engine.errors import RequestRefused
from charrun.engine.lora import LoraModel, LoraSpec
from charrun.engine.losses import Loss

CHUNK_ELEMENTS = 8_000_000
"""Logits held at once while a loss is computed."""


@dataclass(frozen=True)
class Datum:
    """One training row.

    Attributes:
        tokens: Input token ids [length] int64.
        targets: Target token ids [length] int64; position i is predicted from tokens up to i.
        inputs: The loss's further inputs, each [length] fp32.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    inputs: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class PassResult:
    """Log-probs of each row's targets, in the rows' order, and the summed loss."""

    logprobs: list[NDArray[np.float32]]
    loss: float


@dataclass(frozen=True)
class AdamStep:
    """AdamW's numbers for one step; `grad_clip_norm` 0 means no clipping, weight decay is decoupled."""

    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    grad_clip_norm: float


class TrainingRun:
    """One training client's model: base weights, adapter, gradient accumulators and optimizer.

    Only the compute thread may touch it.
    """

    def __init__(self, base: CausalLM, spec: LoraSpec, folder: Path, activation_bytes: int) -> None:
        self.lora = LoraModel(base, spec, folder)
        self.step = 0
        self._named = self.lora.named_parameters()
        self._optimizer = torch.optim.AdamW(list(self._named.values()), lr=0.0, weight_decay=0.0, foreach=True)
        self._budget = max(256, activation_bytes // _bytes_per_token(self.lora.causal))
        self._incomplete: str | None = None

    def run(self, data: Sequence[Datum], loss: Loss, backward: bool) -> PassResult:
        """Forward pass over all rows and, if asked, a backward pass that adds to the gradients."""
        logprobs: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(data)
        total = 0.0
        try:
            for numbers in micro_batches([len(datum.tokens) for datum in data], self._budget):
                batch = [data[number] for number in numbers]
                flat, part = self._micro_batch(batch, loss, backward)
                total += part
                ends = np.cumsum([len(datum.tokens) for datum in batch])[:-1]
                for number, row in zip(numbers, np.split(flat, ends), strict=True):
                    logprobs[number] = row
        except Exception as error:
            if backward:
                self.mark_incomplete(f"an earlier forward_backward failed: {error}")
            raise
        return PassResult(logprobs, total)

    def _micro_batch(self, batch: Sequence[Datum], loss: Loss, backward: bool) -> tuple[NDArray[np.float32], float]:
        causal = self.lora.causal
        lengths = [len(datum.tokens) for datum in batch]
        padded = np.zeros((len(batch), max(lengths)), np.int64)
        for line, datum in zip(padded, batch, strict=True):
            line[: len(datum.tokens)] = datum.tokens
        real = np.arange(padded.shape[1]) < np.array(lengths)[:, None]
        device = causal.device
        targets = _flat([datum.targets for datum in batch], device)
        inputs = {name: _flat([datum.inputs[name] for datum in batch], device) for name in batch[0].inputs}
        where = torch.from_numpy(np.flatnonzero(real)).to(device)
        with torch.set_grad_enabled(backward):
            hidden = causal.hidden(torch.from_numpy(padded).to(device))
            hidden = hidden.reshape(-1, hidden.shape[-1])[where]
        if not backward:
            with torch.no_grad():
                logprobs = torch.cat([_target_logprobs(causal, hidden, targets, p) for p in _chunks(causal, targets)])
                return logprobs.cpu().numpy(), float(loss.total(logprobs, inputs))
        return _head_backward(causal, hidden, targets, inputs, loss)

    def mark_incomplete(self, reason: str) -> None:
        """Makes the next `optim_step` fail: a gradient that lacks a part must not move the weights."""
        self._incomplete = reason

    def optim_step(self, adam: AdamStep) -> dict[str, float]:
        """One AdamW step with the accumulated gradients, which it clears.

        Raises:
            RequestRefused: A part of the gradient is missing; the gradients are cleared, the weights unchanged.
        """
        parameters = list(self._named.values())
        reason, self._incomplete = self._incomplete, None
        if reason is not None:
            self._optimizer.zero_grad()
            raise RequestRefused(f"No step was taken and the gradients were cleared, because {reason}")
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        limit = adam.grad_clip_norm if adam.grad_clip_norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        for group in self._optimizer.param_groups:
            group.update(
                lr=adam.learning_rate,
                betas=(adam.beta1, adam.beta2),
                eps=adam.eps,
                weight_decay=adam.weight_decay,
            )
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        return {"grad_norm:mean": float(norm), "step:max": float(self.step)}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Adam's moments and step counts by parameter name; empty before the first step."""
        named: dict[str, Tensor] = {}
        for name, parameter in self._named.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                named[f"{key}/{name}"] = value.detach().cpu().clone()
        return named

    def load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `optimizer_tensors` gave."""
        for name, parameter in self._named.items():
            state: dict[str, Any] = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{key}/{name}" in tensors:
                    value = tensors[f"{key}/{name}"].clone()
                    state[key] = value if key == "step" else value.to(parameter.device)
            if state:
                self._optimizer.state[parameter] = state


def micro_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of rows that go through the model together: similar lengths, at most `budget` padded tokens."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda each: lengths[each], reverse=True):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _head_backward(
    causal: CausalLM, hidden: Tensor, targets: Tensor, inputs: Mapping[str, Tensor], loss: Loss
) -> tuple[NDArray[np.float32], float]:
    """Loss and backward pass from hidden states [tokens, width], a chunk of logits at a time.

    Tokens that carry no gradient are left out of the backward pass: their log-probs are only reported.
    """
    leaf = hidden.detach()
    gradient = torch.zeros_like(leaf)
    logprobs = torch.empty(len(targets), device=leaf.device)
    total = 0.0
    gate = inputs[loss.gate] != 0
    for indices, counted in ((gate.nonzero()[:, 0], True), ((~gate).nonzero()[:, 0], False)):
        for part in _chunks(causal, indices):
            chosen = indices[part]
            states = leaf[chosen].requires_grad_(counted)
            with torch.set_grad_enabled(counted):
                some = _target_logprobs(causal, states, targets[chosen])
                if counted:
                    value = loss.total(some, {name: each[chosen] for name, each in inputs.items()})
                    value.backward()  # type: ignore[no-untyped-call]
                    assert states.grad is not None
                    gradient[chosen] = states.grad
                    total += float(value.detach())
            logprobs[chosen] = some.detach()
    hidden.backward(gradient)  # type: ignore[no-untyped-call]
    return logprobs.cpu().numpy(), total


def _target_logprobs(causal: CausalLM, hidden: Tensor, targets: Tensor, part: slice | None = None) -> Tensor:
    """Log-probs [tokens] of the targets [tokens]."""
    if part is not None:
        hidden, targets = hidden[part], targets[part]
    logits = causal.logits(hidden)
    return logits.gather(-1, targets[:, None])[:, 0] - torch.logsumexp(logits, -1)


def _chunks(causal: CausalLM, tokens: Tensor) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // causal.vocabulary)
    return [slice(start, min(start + step, len(tokens))) for start in range(0, len(tokens), step)]


def _flat(rows: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.concatenate(rows)).to(device)


def _bytes_per_token(causal: CausalLM) -> int:
    """A generous estimate of what one token's activations take in a forward and backward pass."""
    config = causal.module.config.get_text_config()
    width, inner = (
        int(config.hidden_size),
        int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
    )
    return int(config.num_hidden_layers) * (24 * width + 6 * inner) * 4
