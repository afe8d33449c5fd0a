"""A LoRA training run: gradients that accumulate until an Adam step, as Tinker does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.adam import AdamStep, FlatAdam
from charrun.engine.causal import CausalLM
from charrun.engine.errors import RequestRefused
from charrun.engine.head import Scored, score
from charrun.engine.kept import KeptPasses, Pass
from charrun.engine.lora import LoraSpec
from charrun.engine.lora_model import LoraModel
from charrun.engine.losses import SEQUENCE_LOG_RATIO, SEQUENCE_MASK, Loss, make_loss
from charrun.engine.packing import flat, pack, packed_batches

CPU_TOKENS = 2048
"""Tokens of a micro-batch on a CPU: with more, activations fall out of its cache and products take twice as long."""
SMALLEST_BATCH = 256


@dataclass(frozen=True)
class Datum:
    """One training row.

    Attributes:
        tokens: Input token ids [length] int64.
        targets: Target token ids [length] int64, or several per position [length, targets]; those at position i are
            predicted from the tokens up to i.
        inputs: The loss's further inputs, fp32, shaped as `targets`.
    """

    tokens: NDArray[np.int64]
    targets: NDArray[np.int64]
    inputs: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class PassResult:
    """Log-probs of each row's targets, in the rows' order and the targets' shape, and the summed loss."""

    logprobs: list[NDArray[np.float32]]
    loss: float


class TrainingRun:
    """One training client's model: base weights, adapter, gradient accumulators and optimizer.

    Only the compute thread may touch it.
    """

    def __init__(
        self, base: CausalLM, spec: LoraSpec, folder: Path, activation_bytes: int, general: bool = False
    ) -> None:
        self.lora = LoraModel(base, spec, folder, general)
        self.step = 0
        self._adam = FlatAdam(self.lora.parameters)
        self._per_token = self.lora.decoder.bytes_per_token
        self._recompute_over = max(SMALLEST_BATCH, activation_bytes // self._per_token)
        self._batch = min(self._recompute_over, CPU_TOKENS) if base.device.type == "cpu" else self._recompute_over
        self._kept = KeptPasses(activation_bytes - self._batch * self._per_token)
        self._incomplete: str | None = None

    def run(self, data: Sequence[Datum], loss: Loss, backward: bool) -> PassResult:
        """Forward pass over all rows and, if asked, a backward pass that adds to the gradients."""
        try:
            if loss.by_sequence:
                data = self._with_sequence_ratios(data)
            result = self._run(data, loss, backward)
            if backward:
                self.lora.finish()
        except Exception as error:
            if backward:
                self.lora.discard()
                self.mark_incomplete(f"an earlier forward_backward failed: {error}")
            self._kept.clear()
            raise
        return result

    def _run(self, data: Sequence[Datum], loss: Loss, backward: bool) -> PassResult:
        logprobs: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(data)
        total = 0.0
        self._kept.use(self.lora.parameters.version)
        for numbers in packed_batches([len(datum.tokens) for datum in data], self._batch):
            batch = [data[number] for number in numbers]
            scored = self._micro_batch(batch, loss, backward)
            total += scored.loss
            flat_logprobs = scored.logprobs.cpu().numpy()
            ends = np.cumsum([len(datum.tokens) for datum in batch])[:-1]
            for number, row in zip(numbers, np.split(flat_logprobs, ends), strict=True):
                shape = data[number].targets.shape
                logprobs[number] = row.reshape(len(row), -1)[:, : shape[-1] if len(shape) > 1 else 1].reshape(shape)
        return PassResult(logprobs, total)

    def _micro_batch(self, batch: Sequence[Datum], loss: Loss, backward: bool) -> Scored:
        rows = [datum.tokens for datum in batch]
        size = sum(map(len, rows)) * self._per_token
        made = self._kept.take(rows) if backward else None
        keep = backward or self._kept.room(size)
        if made is None:
            recompute = sum(map(len, rows)) > self._recompute_over
            made = Pass(*self.lora.decoder.forward(pack(rows, self.lora.device), keep, recompute), size)
        targets, inputs = _target_tensors(batch, self.lora.device)
        scored = score(self.lora.head, made.hidden, targets, inputs, loss, backward)
        if scored.gradient is not None:
            self.lora.decoder.backward(scored.gradient, made.kept)
        elif not backward:
            self._kept.add(rows, made if keep else None, size)
        return scored

    def _with_sequence_ratios(self, data: Sequence[Datum]) -> list[Datum]:
        """The rows with `SEQUENCE_LOG_RATIO`, for which they go through the model once before."""
        plain = [replace(datum, inputs={"weights": np.zeros(len(datum.tokens), np.float32)}) for datum in data]
        logprobs = self._run(plain, make_loss("cross_entropy", {}), False).logprobs
        return [_with_sequence_ratio(datum, found) for datum, found in zip(data, logprobs, strict=True)]

    def mark_incomplete(self, reason: str) -> None:
        """Makes the next `optim_step` fail: a gradient that lacks a part must not move the weights."""
        self._incomplete = reason

    def optim_step(self, adam: AdamStep) -> dict[str, float]:
        """One AdamW step with the accumulated gradients, which it clears.

        Raises:
            RequestRefused: A part of the gradient is missing; the gradients are cleared, the weights unchanged.
        """
        reason, self._incomplete = self._incomplete, None
        if reason is not None:
            self._adam.clear_gradient()
            raise RequestRefused(f"No step was taken and the gradients were cleared, because {reason}")
        norm = self._adam.step(adam)
        self._kept.use(self.lora.parameters.version)
        self.step += 1
        return {"grad_norm:mean": norm, "step:max": float(self.step)}

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """Adam's moments by parameter name, and its step count; empty before the first step."""
        return self._adam.tensors()

    def load_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `optimizer_tensors` gave."""
        self._adam.load(tensors)


def _target_tensors(batch: Sequence[Datum], device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Targets and loss inputs of rows laid end to end; rows with fewer targets per position are filled with zeros."""
    many = max((datum.targets.shape[1] for datum in batch if datum.targets.ndim > 1), default=None)

    def laid(arrays: list[NDArray[Any]]) -> Tensor:
        return flat(arrays if many is None else [_widened(array, many) for array in arrays], device)

    inputs = {name: laid([datum.inputs[name] for datum in batch]) for name in batch[0].inputs}
    return laid([datum.targets for datum in batch]), inputs


def _widened(array: NDArray[Any], width: int) -> NDArray[Any]:
    columns = array.reshape(len(array), -1)
    return np.pad(columns, ((0, 0), (0, width - columns.shape[1])))


def _with_sequence_ratio(datum: Datum, logprobs: NDArray[np.float32]) -> Datum:
    marked = datum.inputs[SEQUENCE_MASK] != 0
    distance = (logprobs - datum.inputs["logprobs"])[marked]
    ratio = np.full(logprobs.shape, distance.mean() if marked.any() else 0.0, np.float32)
    return replace(datum, inputs={**datum.inputs, SEQUENCE_LOG_RATIO: ratio})
