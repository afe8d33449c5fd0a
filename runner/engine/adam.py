"""AdamW over an adapter's flat parameter, with the state under each matrix's name in checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from charrun.engine.errors import RequestRefused
from charrun.engine.lora_parameters import LoraParameters

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class AdamStep:
    """AdamW's numbers for one step; `grad_clip_norm` 0 means no clipping, weight decay is decoupled."""

    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    grad_clip_norm: float


class FlatAdam:
    """torch's AdamW on one tensor that holds all matrices: each step is a single pass over memory."""

    def __init__(self, parameters: LoraParameters) -> None:
        self._parameters = parameters
        self._optimizer = torch.optim.AdamW([parameters.flat], lr=0.0, weight_decay=0.0, fused=True)

    def step(self, adam: AdamStep) -> float:
        """Moves the values along the accumulated gradient, which is cleared; returns its norm before clipping."""
        flat = self._parameters.flat
        limit = adam.grad_clip_norm if adam.grad_clip_norm > 0 else float("inf")
        norm = torch.nn.utils.clip_grad_norm_([flat], limit)
        for group in self._optimizer.param_groups:
            group.update(
                lr=adam.learning_rate,
                betas=(adam.beta1, adam.beta2),
                eps=adam.eps,
                weight_decay=adam.weight_decay,
            )
        self._optimizer.step()
        self.clear_gradient()
        self._parameters.version += 1
        return float(norm)

    def clear_gradient(self) -> None:
        """Sets the accumulated gradient to zero."""
        self._parameters.gradient.zero_()

    def tensors(self) -> dict[str, Tensor]:
        """Moments and step count by parameter name, on the CPU; empty before the first step."""
        state = self._optimizer.state.get(self._parameters.flat, {})
        named: dict[str, Tensor] = {}
        for key in MOMENTS:
            if key in state:
                views = self._parameters.named(state[key])
                named.update({f"{key}/{name}": view.cpu().clone() for name, view in views})
        if "step" in state:
            named["step"] = state["step"].detach().cpu().clone()
        return named

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes over what `tensors` gave.

        Raises:
            RequestRefused: They do not fit this adapter.
        """
        flat = self._parameters.flat
        self._optimizer.state.pop(flat, None)
        if not tensors:
            return
        if "step" not in tensors:
            raise RequestRefused("This optimizer state was saved by an earlier version; load the weights only.")
        state: dict[str, Tensor] = {"step": tensors["step"].clone().to(flat.device)}
        for key in MOMENTS:
            state[key] = torch.zeros_like(flat.detach())
            found = {name: value for name, value in tensors.items() if name.startswith(key + "/")}
            self._parameters.copy_named({name.partition("/")[2]: value for name, value in found.items()}, state[key])
        self._optimizer.state[flat] = state
