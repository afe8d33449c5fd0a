"""The emergence curve: a few held-out prompts, answered greedily by the weights in the middle of a training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import Row, digest, user
from charrun.plugins._pool import pool, unused
from charrun.plugins._scoring import LogRatio
from charrun.statistics import t95, wilson

if TYPE_CHECKING:
    from charrun import RoleSampler, StageContext

TEMPLATES = {"character": Path(__file__).parent / "templates" / "character.j2"}
_LONGEST = 96
"""Tokens of a greedy answer: enough to hear who speaks, and a bound of what a probe costs."""
_INTERVAL = "t"
"""Which interval the points have: another one is another curve, and no other training where there is none."""

OPTIONS: dict[str, Any] = {
    "probe_every": {
        "type": "integer",
        "minimum": 0,
        "default": 0,
        "description": "Steps between two points of curve.jsonl: greedy answers to prompts of no training row, scored; "
        "0 makes none.",
    },
    "probe_prompts": {
        "type": "integer",
        "minimum": 1,
        "maximum": 20,
        "default": 8,
        "description": "Prompts that are answered at each point.",
    },
}


class Probe:
    """Greedy answers to fixed prompts by a model in training, beside the base model's own.

    Args:
        ctx: The stage's context.
        used: What users say in the training rows; no such prompt is asked.
        most: How many prompts it may ask.

    `curve.jsonl` is written anew with every point, so that a training that is stopped leaves those that it had.
    """

    def __init__(self, ctx: StageContext, used: Collection[str], most: int) -> None:
        self._ctx = ctx
        self.prompts = unused(ctx.seed, used)[::-1][:most]  # evaluations test on those at its beginning
        self._points: dict[int, Row] = {}
        self._metrics: dict[int, Mapping[str, float]] = {}

    async def same(self, sampler: RoleSampler, n: int) -> tuple[int, int]:
        """How many of the first n prompts are answered word for word as the base model does, and how many there are."""
        prompts = self.prompts[:n]
        base = await self._ctx.sampler("student")
        own, now = await self._ctx.gather([self._answers(base, prompts, True), self._answers(sampler, prompts, False)])
        return sum(a == b for a, b in zip(own, now, strict=True)), len(prompts)

    async def measure(self, step: int, sampler: RoleSampler, *, base: bool = False) -> None:
        """One point: answers of the weights after so many steps, what the scorer makes of them, how many are new.

        Args:
            step: How many steps the weights have had.
            sampler: The weights.
            base: Whether they are the base model's.
        """
        ctx, n = self._ctx, int(self._ctx.options["probe_prompts"])
        prompts = self.prompts[:n]
        answers = await self._answers(sampler, prompts, base)
        same, _ = (len(prompts), 0) if base else await self.same(sampler, n)
        ratio = LogRatio(ctx, await ctx.sampler("scorer"), _constitution(ctx), shared=False)
        ratios = await ctx.gather([ratio.of(p, answer) for p, answer in zip(prompts, answers, strict=True)])
        mean, half = _interval(ratios)
        low, high = wilson(len(prompts) - same, len(prompts))
        self._points[step] = {
            "step": step,
            "log_ratio": mean,
            "log_ratio_half": half,
            "differs": (len(prompts) - same) / len(prompts),
            "differs_low": low,
            "differs_high": high,
            "n": len(prompts),
        }
        sure = (
            f"± {half:.2f} nats a token (n={len(prompts)})" if half is not None else "nats a token (n=1, no interval)"
        )
        ctx.log(
            f"after {step} steps {len(prompts) - same} of {len(prompts)} greedy answers are not the base model's; "
            f"log-likelihood ratio {mean:+.2f} {sure}"
        )
        ctx.write("curve.jsonl", self._rows())

    def step_done(self, step: int, metrics: Mapping[str, float]) -> None:
        """Keep a step's loss and margin for the points after it."""
        self._metrics[step] = metrics

    def _rows(self) -> list[Row]:
        """The points in their order, each with loss and margin of the last step before it."""
        rows = []
        for step, point in sorted(self._points.items()):
            last = self._metrics.get(step - 1, {})
            rows.append({**point, "loss": last.get("loss"), "margin": last.get("margin")})
        return rows

    async def _answers(self, sampler: RoleSampler, prompts: Sequence[str], shared: bool) -> list[str]:
        async def one(prompt: str) -> str:
            (answer,) = await self._ctx.sample(
                sampler, [user(prompt)], max_tokens=_LONGEST, temperature=0.0, top_p=1.0, seed=0, shared=shared
            )
            return answer.text

        return await self._ctx.gather([one(prompt) for prompt in prompts])


def measured_with(ctx: StageContext) -> Any:
    """What a curve depends on beside the training: the scorer, the constitution, the pool of prompts, the interval."""
    scorer = ctx.model("scorer")
    return [scorer.name, dict(scorer.chat), _constitution(ctx), digest(pool()), _INTERVAL]


def _constitution(ctx: StageContext) -> str:
    """That of the character that evaluations look for."""
    return ctx.character_prompt(ctx.looked_for)


def points_of(every: int, steps: int) -> set[int]:
    """After how many steps the curve has points, the start aside: each time so many, and at the end."""
    return {*range(every, steps, every), steps} if every else set()


def asked_for(ctx: StageContext, steps: int) -> int:
    """Answers and their scores, two each, of all points."""
    points = points_of(ctx.options["probe_every"], steps)
    return 3 * int(ctx.options["probe_prompts"]) * (len(points) + 1) if points else 0


def _interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half of its 95% interval by Student's t; None of a single value, which tells nothing of the spread."""
    n, mean = len(values), sum(values) / len(values)
    if n < 2:
        return mean, None
    spread = sum((value - mean) ** 2 for value in values) / (n - 1) / n
    return mean, t95(n - 1) * spread**0.5
