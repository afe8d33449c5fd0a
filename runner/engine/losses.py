"""The losses of forward and forward_backward, each a sum over tokens.

The formulas are those of Tinker's documentation (its page "Loss Functions"). With `p` the log-prob of a target token
under the trained model, `q` the log-prob that it was sampled with, `A` its advantage and `r = exp(p - q)`:

- `cross_entropy`: `-w * p`;
- `importance_sampling`: `-r * A`;
- `ppo`: `-min(r * A, clip(r, low, high) * A)`;
- `cispo`: `-sg(clip(r, low, high)) * A * p`, where `sg` stops the gradient;
- `dro`: `-(p * A - beta / 2 * (p - q)^2)`;
- `gspo`: as ppo, but each token's ratio has the value of its sequence's, `exp(mean(p - q))` over the tokens that
  `sequence_ratio_mask` marks, and the gradient of its own log-prob.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from charrun.engine.errors import RequestRefused

Inputs = Mapping[str, Tensor]
Total = Callable[[Tensor, Inputs], Tensor]

EVERY_TOKEN = "every_token"
"""An input that is 1 everywhere: the gate of losses in which no token is without gradient."""
SEQUENCE_LOG_RATIO = "sequence_log_ratio"
"""The mean of p - q over a sequence's marked tokens, the same number at each token; made from a first forward pass."""
SEQUENCE_MASK = "sequence_ratio_mask"
LOW, HIGH, BETA = "clip_low_threshold", "clip_high_threshold", "beta"


@dataclass(frozen=True)
class Loss:
    """A loss that is a function of each target token's log-prob, with its settings in it.

    Attributes:
        inputs: Names of the per-token inputs that the client may send, with the value that stands in for one
            that is missing (None: it must be sent).
        gate: The input whose zeros mark tokens that carry no gradient and add nothing to the sum.
        total: The summed loss from log-probs [tokens] and inputs of the same shape.
        many_targets: Whether a position may have several target tokens.
        by_sequence: Whether `total` needs `SEQUENCE_LOG_RATIO`.
        limits: The least and largest value of inputs that have limits.
    """

    inputs: Mapping[str, float | None]
    gate: str
    total: Total
    many_targets: bool = False
    by_sequence: bool = False
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def cross_entropy(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """`sum(-logprobs * weights)`: a sum, so whoever wants a mean sends weights that make one."""
    return -(logprobs * inputs["weights"]).sum()


def importance_sampling(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """`-sum(r * A)`."""
    return -(_ratio(logprobs, inputs) * inputs["advantages"]).sum()


def ppo(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """`-sum(min(r * A, clip(r) * A))`, each token for itself."""
    return _clipped(_ratio(logprobs, inputs), inputs)


def cispo(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """`-sum(sg(clip(r)) * A * p)`: clipping bounds a token's weight and never removes its gradient."""
    weight = _clip(_ratio(logprobs, inputs), inputs).detach()
    return -(weight * logprobs * inputs["advantages"]).sum()


def dro(logprobs: Tensor, inputs: Inputs, beta: float) -> Tensor:
    """`-sum(p * A - beta / 2 * (p - q)^2)`."""
    distance = (logprobs - inputs["logprobs"]).square()
    return -(logprobs * inputs["advantages"] - 0.5 * beta * distance).sum()


def gspo(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """The clipped objective of ppo with ratios of the sequence's value and the token's own gradient."""
    return _clipped(torch.exp(inputs[SEQUENCE_LOG_RATIO] + logprobs - logprobs.detach()), inputs)


def _ratio(logprobs: Tensor, inputs: Inputs) -> Tensor:
    """`exp(p - q)`; 1 where the advantage is 0: such tokens add nothing, whatever stands there for q."""
    counted = inputs["advantages"] != 0
    return torch.exp(torch.where(counted, logprobs - inputs["logprobs"], 0.0))


def _clip(ratio: Tensor, inputs: Inputs) -> Tensor:
    return torch.minimum(torch.maximum(ratio, inputs[LOW]), inputs[HIGH])


def _clipped(ratio: Tensor, inputs: Inputs) -> Tensor:
    advantages = inputs["advantages"]
    return -torch.minimum(ratio * advantages, _clip(ratio, inputs) * advantages).sum()


Config = Mapping[str, float]
_POLICY: Mapping[str, float | None] = {"logprobs": None, "advantages": None}
_CLIP_LIMITS = {LOW: (0.0, 1.0), HIGH: (1.0, math.inf)}


def _clipping(config: Config, low: float | None, high: float | None) -> Mapping[str, float | None]:
    """Inputs of a loss that clips: the request's config stands in where a row brings no thresholds of its own."""
    return {**_POLICY, LOW: config.get(LOW, low), HIGH: config.get(HIGH, high)}


def _make_cross_entropy(_: Config) -> Loss:
    return Loss({"weights": 1.0}, "weights", cross_entropy, many_targets=True)


def _make_importance_sampling(_: Config) -> Loss:
    return Loss(_POLICY, "advantages", importance_sampling)


def _make_ppo(config: Config) -> Loss:
    return Loss(_clipping(config, 0.8, 1.2), "advantages", ppo, limits=_CLIP_LIMITS)


def _make_cispo(config: Config) -> Loss:
    return Loss(_clipping(config, 0.8, 1.2), "advantages", cispo, limits=_CLIP_LIMITS)


def _make_dro(config: Config) -> Loss:
    if BETA not in config:
        raise RequestRefused('The loss dro needs its beta: send loss_fn_config={"beta": ...}.')
    return Loss(_POLICY, EVERY_TOKEN, partial(dro, beta=config[BETA]))


def _make_gspo(config: Config) -> Loss:
    inputs = {**_clipping(config, None, None), SEQUENCE_MASK: None}
    return Loss(inputs, "advantages", gspo, by_sequence=True, limits=_CLIP_LIMITS)


LOSSES: Mapping[str, tuple[Callable[[Config], Loss], Mapping[str, tuple[float, float]]]] = {
    "cross_entropy": (_make_cross_entropy, {}),
    "importance_sampling": (_make_importance_sampling, {}),
    "ppo": (_make_ppo, _CLIP_LIMITS),
    "cispo": (_make_cispo, _CLIP_LIMITS),
    "dro": (_make_dro, {BETA: (0.0, math.inf)}),
    "gspo": (_make_gspo, _CLIP_LIMITS),
}
"""Each loss by name: how it is made from a request's settings, and the least and largest value of each setting."""

REFUSED = {
    "stable_reinforce": "neither its formula nor what it records while sampling is part of the SDK",
    "custom": "losses made with create_custom_loss run in the client: the SDK sends them as cross_entropy",
}
"""Names that the SDK knows and this engine does not offer, each with the reason."""


def make_loss(name: str, config: Mapping[str, float | str]) -> Loss:
    """The loss of that name with a request's settings (`loss_fn_config`).

    Raises:
        RequestRefused: It is not offered, or a setting is unknown, out of range, or missing.
    """
    if name not in LOSSES:
        reason = f": {REFUSED[name]}" if name in REFUSED else ""
        raise RequestRefused(f"The loss {name!r} is not offered{reason}. Losses: {', '.join(LOSSES)}.")
    make, limits = LOSSES[name]
    checked: dict[str, float] = {}
    for key, value in config.items():
        if key not in limits:
            known = f"it knows {', '.join(limits)}" if limits else "it has no settings"
            raise RequestRefused(f"The loss {name} knows no setting {key!r}; {known}.")
        if isinstance(value, str):
            raise RequestRefused(f"The setting {key} of {name} is a number, not the text {value!r}.")
        low, high = limits[key]
        if not (math.isfinite(value) and low <= value <= high):
            raise RequestRefused(f"The setting {key} of {name} must be {_range(low, high)}, not {value}.")
        checked[key] = value
    return make(checked)


def check_limits(name: str, least: float, largest: float, limits: Mapping[str, tuple[float, float]]) -> None:
    """Raises RequestRefused where an input's values leave its limits."""
    low, high = limits.get(name, (-math.inf, math.inf))
    if least < low or largest > high:
        raise RequestRefused(f"{name} must be {_range(low, high)} at every token.")


def _range(low: float, high: float) -> str:
    return f"finite and at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
