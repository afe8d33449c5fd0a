"""Watches a training's metrics step by step, and says what is wrong with it while little has been paid for.

A rule says nothing, warns, or gives a diagnosis, at which the stage saves a checkpoint and stops. Rules are pure: they
see metrics, and of the training only its learning rates and the sizes of its batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LN2 = math.log(2)
_ROUNDING = 1e-5
"""An exact engine's DPO loss differs from ln 2 by less than this only where no margin has moved, by 2e-4 at a beta of
0.1."""
_FLAT_STEPS, _FLAT_WINDOW = 5, 3
_TREND_STEPS = 20

_SHIFTED = (
    "tokens shifted or rendered by another template than the model's, or the reference of other weights: read a "
    "decoded row; if the data are right, set a smaller learning_rate"
)

OPTION: dict[str, Any] = {
    "type": "object",
    "default": {},
    "additionalProperties": False,
    "description": "When the training stops itself (docs/training.md); 0 or false switches a rule off.",
    "x-charrun-identity": False,
    "properties": {
        "stop": {
            "type": "boolean",
            "default": True,
            "description": "Whether a diagnosis stops the stage; else it is told and the training goes on.",
        },
        "finite": {"type": "boolean", "default": True, "description": "Stop at a metric that is no finite number."},
        "nll_rise": {
            "type": "number",
            "minimum": 0,
            "default": 1.0,
            "description": "Nats a token by which the NLL of what is trained may rise above where it was.",
        },
        "text": {
            "type": "boolean",
            "default": True,
            "description": "Before the first step: no answer may be empty, most must have four tokens or more, be "
            "likelier than their own tokens in another order, and their end likelier than an end half-way.",
        },
        "first_loss": {
            "type": "boolean",
            "default": True,
            "description": "At the first step: the loss must be what the checks before it make it, for DPO ln 2 with "
            "margins of 0; at any step: an SFT loss is not 0.",
        },
    },
}
"""The schema of `monitor` in both trainings."""

DPO_RULES: dict[str, Any] = {
    "direction": {
        "type": "boolean",
        "default": True,
        "description": "Before the first step: the rejected answers must be other ones than the chosen, and the "
        "likelier ones under the student.",
    },
    "scored_pairs": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Before the first step: pairs whose answers the scorer scores; the chosen must score higher.",
    },
    "accuracy": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.65,
        "description": "Accuracy that a healthy training surpasses; below it for sure, it is at chance.",
    },
    "false_alarm": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 0.1,
        "default": 0.001,
        "description": "Probability that a training of just that accuracy is stopped in any of its steps.",
    },
    "flat_loss": {
        "type": "number",
        "minimum": 0,
        "default": 0.005,
        "description": "DPO loss within so many nats of ln 2 after five steps at the full rate: nothing is learned.",
    },
    "same_answers": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.9,
        "description": "Share of greedy answers to held-out prompts that may be the base model's own, once pairs are "
        "told apart.",
    },
    "behaviour_at": {
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
        "default": 1.0,
        "description": "Share of the steps after which the greedy answers are compared, once.",
    },
    "behaviour_prompts": {
        "type": "integer",
        "minimum": 0,
        "maximum": 20,
        "default": 12,
        "description": "How many prompts are answered for that; 0 compares nothing.",
    },
}
"""What DPO has beside."""


@dataclass(frozen=True)
class Verdict:
    """What a rule says.

    Attributes:
        rule: The option that it belongs to, under `monitor`.
        stops: Whether it is a diagnosis, and no warning.
        saw: What was seen, with numbers.
        advice: What usually causes it, and what to do.
    """

    rule: str
    stops: bool
    saw: str
    advice: str


class Monitor:
    """The rules of one training.

    Args:
        options: `monitor`, with defaults.
        rates: Learning rate of each step; warm-up steps count as parts of a step.
        sizes: Pairs (DPO) or rows of each step's batch.
        first: Metrics of the first step as the checks before it make them: value, and by how much it may differ.
        exact: Whether the engine repeats a forward pass to rounding.
        is_clear: Whether chosen and rejected answers differ clearly; else there is little to learn, and that nothing is
            learned is a warning alone.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        rates: Sequence[float],
        sizes: Sequence[int],
        *,
        first: Mapping[str, tuple[float, float]] | None = None,
        exact: bool = False,
        is_clear: bool = True,
    ) -> None:
        self.options = options
        self._rates = rates
        self._sizes = sizes
        self._first = first or {}
        self._exact = exact
        self._is_clear = is_clear
        self._right = self._seen = 0
        self._losses: list[float] = []
        self._told: set[str] = set()

    @property
    def accuracy(self) -> float | None:
        """Share of the pairs told apart rightly since the first step at the full rate; None before."""
        return self._right / self._seen if self._seen else None

    def observe(self, step: int, metrics: Mapping[str, float]) -> list[Verdict]:
        """What the rules say of a step (from 0); metrics under plain names, as `steps.jsonl` has them.

        DPO gives `dpo_loss`, `chosen_nll`, `nll_rise`, `margin`, `accuracy`; SFT gives `loss`. What stops nothing is
        said once.
        """
        moved = round(sum(self._rates[:step]) / max(self._rates), 6)
        found = [*self._finite(metrics), *self._unlike(step, metrics), *self._rise(metrics)]
        found += [*self._chance(step, metrics, moved), *self._flat(metrics, moved), *self._trend(metrics, moved)]
        stops = self.options["stop"]
        fresh = [verdict for verdict in found if (verdict.stops and stops) or verdict.rule not in self._told]
        self._told |= {verdict.rule for verdict in fresh}
        return fresh

    def behaviour(self, same: int, n: int) -> Verdict | None:
        """What is to be said where so many of n greedy answers are the base model's own, word for word."""
        limit, learned = self.options["same_answers"], self.accuracy
        if not limit or not n or same < limit * n or learned is None or learned < self.options["accuracy"]:
            return None
        return Verdict(
            "same_answers",
            self._is_clear,
            f"the pairs are told apart ({learned:.0%} of {self._seen}), and {same} of {n} greedy answers are the base "
            "model's own",
            "what is trained is not what is sampled: another template or system prompt, a reward that sits in a few "
            "tokens, or a rate too low to be seen; compare a trained row with a sampled prompt, or raise learning_rate",
        )

    def _finite(self, metrics: Mapping[str, float]) -> Iterator[Verdict]:
        lost = sorted(name for name, value in metrics.items() if not math.isfinite(value))
        if lost and self.options["finite"]:
            saw = f"{', '.join(lost)} {'is' if len(lost) == 1 else 'are'} not finite"
            advice = "usually a learning_rate that is far too high: lower it tenfold; these weights are lost"
            yield Verdict("finite", True, saw, advice)

    def _unlike(self, step: int, metrics: Mapping[str, float]) -> Iterator[Verdict]:
        expected = self._first if step == 0 else {}
        saw = [
            f"{name} is {metrics[name]:.4g} instead of {value:.4g}"
            for name, (value, slack) in expected.items()
            if abs(metrics[name] - value) > slack
        ]
        if "dpo_loss" not in metrics and metrics["loss"] == 0:
            saw = ["the loss is 0: no token is trained"]
        if saw and self.options["first_loss"]:
            advice = (
                "what is sent is not what was checked: weights on other tokens than the trained ones, other targets, "
                "or another loss; a defect of the stage or of the engine: report it"
            )
            yield Verdict("first_loss", True, ", ".join(saw), advice)

    def _rise(self, metrics: Mapping[str, float]) -> Iterator[Verdict]:
        limit = self.options["nll_rise"]
        if "nll_rise" in metrics:
            rise, what = metrics["nll_rise"], "the NLL of the chosen answers"
        elif self._losses:
            rise, what = metrics["loss"] - min(self._losses), "the loss"
        else:
            return
        if limit and rise > limit:
            saw = f"{what} is {rise:.2f} nats a token above where it was, more than {limit:g}"
            advice = "usually a learning_rate that is too high: lower it, or add warmup_ratio and nll_coefficient"
            yield Verdict("nll_rise", True, saw, advice)

    def _chance(self, step: int, metrics: Mapping[str, float], moved: float) -> Iterator[Verdict]:
        if "accuracy" not in metrics or moved < 1 or not math.isfinite(metrics["margin"]):
            return
        self._seen += self._sizes[step]
        self._right += round(metrics["accuracy"] * self._sizes[step])
        healthy = self.options["accuracy"]
        if self._right >= healthy * self._seen:
            return
        # Each step looks once more: of all looks together one may be wrong with that probability (Bonferroni).
        if at_most(self._right, self._seen, healthy) < self.options["false_alarm"] / len(self._sizes):
            saw = f"{self._right} of {self._seen} pairs are told apart rightly; a healthy training has {healthy:.0%}"
            advice = f"usually chosen and rejected mixed up, {_SHIFTED}"
            yield Verdict("accuracy", self._is_clear, saw, advice)

    def _flat(self, metrics: Mapping[str, float], moved: float) -> Iterator[Verdict]:
        if "dpo_loss" not in metrics:
            return
        self._losses.append(metrics["dpo_loss"])
        limit, last = self.options["flat_loss"], self._losses[-_FLAT_WINDOW:]
        away = max(abs(loss - LN2) for loss in last)
        advice = (
            "usually a learning_rate that is far too low, a beta next to 0, pairs whose two answers are the same, or "
            "weights that are not the ones that are trained"
        )
        if limit and self._exact and moved >= 1 and abs(last[-1] - LN2) < _ROUNDING:
            saw = f"the DPO loss is still ln 2 after {moved:.3g} steps: no margin moved"
            yield Verdict("flat_loss", True, saw, advice)
        elif limit and moved >= _FLAT_STEPS and away < limit:
            saw = f"the DPO loss is within {away:.2g} of ln 2 after {moved:.3g} steps at the full rate"
            yield Verdict("flat_loss", self._is_clear, saw, advice)

    def _trend(self, metrics: Mapping[str, float], moved: float) -> Iterator[Verdict]:
        if "dpo_loss" in metrics or not math.isfinite(metrics["loss"]):
            return
        self._losses.append(metrics["loss"])
        if moved >= _TREND_STEPS and slope(self._losses) >= 0:
            saw = f"the loss has not fallen in {len(self._losses)} steps"
            advice = "the rows may be what the model says anyway, or learning_rate is too low; the training goes on"
            yield Verdict("trend", False, saw, advice)


def at_most(k: int, n: int, p: float) -> float:
    """Probability of k or fewer successes of n: the lower tail of the binomial distribution."""
    if p >= 1:
        return float(k >= n)
    logs = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))


def slope(values: Sequence[float]) -> float:
    """Least-squares slope of values over their index."""
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    spread = sum((i - middle) ** 2 for i in range(n))
    return sum((i - middle) * (value - mean) for i, value in enumerate(values)) / spread if spread else 0.0
