"""Direct preference optimisation of the student on the pairs (Rafailov et al., 2023; Maiya et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from charrun import Estimate, Row, Stage, TrainedRow, assistant, hookimpl, user
from charrun.plugins import _curve, _monitor
from charrun.plugins._dpo_loss import DpoLoss
from charrun.plugins._sanity import (
    SOME_ROWS,
    clear_gaps,
    control_rows,
    direction_verdict,
    empty_verdict,
    is_empty,
    same_verdict,
    scored,
    scored_verdict,
    short_verdict,
    text_controls,
    text_gaps,
    text_verdict,
)
from charrun.plugins._schedule import learning_rates
from charrun.plugins._training import (
    COMMON_OPTIONS,
    adam,
    audited_rows,
    check_lengths,
    check_sampler,
    checkpoint_note,
    forward_logprobs,
    judged,
    mean,
    pass_slack,
    sampler_logprobs,
    say,
    scale_warnings,
    scorer_problems,
    sizes_of,
    told,
)

if TYPE_CHECKING:
    from charrun import Adapter, Chat, Reference, RoleSampler, StageContext

_LN2_EXACT, _LN2_HOSTED = 1e-4, 0.01
_MARGIN_EXACT = 1e-3
_FEWEST_STEPS = 10
"""A training of fewer steps costs less than a look at its behaviour."""
_SIDES = ("the chosen answers", "the rejected answers")


class DpoStage(Stage):
    """A LoRA adapter learns to prefer the chosen answers.

    loss = mean over the batch's pairs of -log sigmoid(beta * margin) + nll_coefficient * mean per-token NLL of the
    chosen answer + kl_coefficient * mean squared log-prob difference to the reference, with margin = (policy -
    reference of chosen) - (policy - reference of rejected) in sums over the answer's tokens, or in means over them. The
    reference is the fresh adapter itself: one forward pass, stored by token hash before any optimiser step. One epoch
    in a seeded order, the last partial batch kept.
    """

    name: ClassVar[str] = "dpo"
    summary: ClassVar[str] = "DPO of the student on the pairs"
    consumes: ClassVar[tuple[str, ...]] = ("pairs",)
    produces: ClassVar[tuple[str, ...]] = ("checkpoint",)
    roles: ClassVar[tuple[str, ...]] = ("student", "scorer")
    trains: ClassVar[tuple[str, ...]] = ("student",)
    one_checkpoint: ClassVar[bool] = True
    measures: ClassVar[tuple[str, ...]] = ("scorer", "character")
    character_fields: ClassVar[tuple[str, ...]] = ()
    templates: ClassVar[dict[str, Path]] = _curve.TEMPLATES
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "beta": {
                "type": "number",
                "exclusiveMinimum": 0,
                "default": 0.1,
                "description": "Strength of the pull towards the reference.",
            },
            "nll_coefficient": {
                "type": "number",
                "minimum": 0,
                "default": 0.1,
                "description": "Weight of the chosen answer's mean per-token NLL.",
            },
            "kl_coefficient": {
                "type": "number",
                "minimum": 0,
                "default": 0.0,
                "description": "Weight of the mean squared log-prob difference to the reference over the tokens of "
                "both answers; the paper's is 0.001.",
            },
            "normalise": {
                "enum": ["none", "length"],
                "default": "none",
                "description": "Margins in sums over an answer's tokens, or in means, which want a larger beta.",
            },
            "lora_rank": {
                "type": "integer",
                "enum": [1, 2, 4, 8, 16, 32, 64, 128, 256],
                "default": 64,
                "description": "Rank of the adapter; its effective scale is 32 / rank.",
            },
            **{
                **COMMON_OPTIONS,
                "learning_rate": {**COMMON_OPTIONS["learning_rate"], "default": 1e-4},
            },
            "monitor": {
                **_monitor.OPTION,
                "properties": {**_monitor.OPTION["properties"], **_monitor.DPO_RULES},
            },
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One request a step, the first batch's scores before it, and what the curve and the monitor's look ask."""
        pairs, options = ctx.scale.pairs, ctx.options
        steps = -(-pairs // options["batch_size"])
        scores = 2 * min(pairs, options["batch_size"]) + 4 * min(pairs, options["monitor"]["scored_pairs"])
        answers = 2 * _behaviour_prompts(ctx, steps)
        return Estimate(rows=1, requests=steps + scores + answers + _curve.asked_for(ctx, steps))

    def warnings(self, ctx: StageContext) -> list[str]:
        """A rank that changes the effective scale."""
        return scale_warnings(ctx)

    def problems(self, ctx: StageContext) -> list[str]:
        """A scorer that cannot score, where it is asked to."""
        options = ctx.options
        asked = {"probe_every": options["probe_every"], "monitor.scored_pairs": options["monitor"]["scored_pairs"]}
        return scorer_problems(ctx, asked)

    def further_inputs(self, ctx: StageContext) -> Any:
        """What the curve is measured with, where there is one."""
        return _curve.measured_with(ctx) if ctx.options["probe_every"] else None

    async def run(self, ctx: StageContext) -> None:
        """Reference, checks at step 0, one epoch, checkpoint."""
        from charrun import batches_of, train_steps

        pairs = await ctx.rows("pairs")
        ctx.rng("dpo").shuffle(pairs)
        rank = ctx.options["lora_rank"]

        async def render() -> tuple[RoleSampler, list[TrainedRow]]:
            sampler = await ctx.sampler("student")
            return sampler, await _rendered(sampler.chat, pairs)

        begun: list[Awaitable[Any]] = [ctx.new_adapter("student", rank), render()]
        adapter, (sampler, rows) = await ctx.gather(begun)
        check_lengths(adapter, sizes_of(rows))
        batches = batches_of(list(zip(rows[::2], rows[1::2], strict=True)), ctx.options["batch_size"])
        ctx.log(f"{len(pairs)} pairs, {len(batches)} steps, {checkpoint_note(rank)}")
        ctx.total(len(rows) + len(batches))
        if adapter.next_step == 0:
            reference = await self._reference_checked(ctx, adapter, sampler, pairs, rows)
        else:
            reference = await ctx.reference(adapter, rows)
        ctx.advance(adapter.next_step)

        def on_step(step: int, metrics: dict[str, float]) -> None:
            ctx.step_done(step, len(batches), told(metrics))
            ctx.advance()

        def submit(batch: Sequence[tuple[TrainedRow, TrainedRow]]) -> Any:
            flat = [row for pair in batch for row in pair]
            return adapter.client.forward_backward_custom(
                [row.datum() for row in flat], self._loss(ctx, reference, flat)
            )

        rates = learning_rates(ctx.options, len(batches))
        sizes = [len(batch) for batch in batches]
        is_clear = 2 * len(clear_gaps(likelihood_gaps(rows, reference))) >= len(pairs)
        first = _first_metrics(ctx, rows[: 2 * sizes[0]])
        monitor = _monitor.Monitor(
            ctx.options["monitor"], rates, sizes, first=first, exact=ctx.exact, is_clear=is_clear
        )
        looks = await self._looks(ctx, adapter, monitor, pairs, len(batches))
        curve = await train_steps(
            ctx,
            adapter,
            batches,
            submit,
            adam(ctx, rates),
            on_step,
            save_every=ctx.options["checkpoint_every"],
            judge=judged(ctx, adapter, monitor, len(batches), told, looks.probe),
            pauses=looks.points - {len(batches)},
            on_pause=looks.on_point,
        )
        checkpoint = await ctx.save(adapter, "dpo")
        if len(batches) in looks.points:
            await looks.on_point(len(batches), await ctx.sampler("student", checkpoint))
        ctx.write("steps.jsonl", [{**told(metrics), "step": step} for step, metrics in enumerate(curve)])
        ctx.publish("checkpoint", [checkpoint])

    async def _looks(
        self, ctx: StageContext, adapter: Adapter, monitor: _monitor.Monitor, pairs: Sequence[Row], steps: int
    ) -> _Looks:
        """The curve's points and the monitor's look at what is answered; the point before the first step is made."""
        prompts = _behaviour_prompts(ctx, steps)
        look = max(1, round(ctx.options["monitor"]["behaviour_at"] * steps)) if prompts else 0
        points = _curve.points_of(ctx.options["probe_every"], steps)
        probe = _curve.Probe(ctx, {pair["prompt"] for pair in pairs}, max(prompts, ctx.options["probe_prompts"]))
        if points:
            await probe.measure(0, await ctx.sampler("student"), base=True)

        async def on_point(step: int, weights: RoleSampler) -> None:
            if step in points:
                await probe.measure(step, weights)
            if step == look and step >= adapter.next_step:  # else it was looked at when the weights were there
                same, n = await probe.same(weights, prompts)
                ctx.log(f"after {step} steps {n - same} of {n} greedy answers are not the base model's")
                say(ctx, monitor.behaviour(same, n), step, steps)

        return _Looks(probe, points | ({look} if look else set()), on_point)

    def _loss(self, ctx: StageContext, reference: Reference, rows: Sequence[TrainedRow]) -> DpoLoss:
        kl = ctx.options["kl_coefficient"]
        return DpoLoss(
            ctx.options["beta"],
            ctx.options["nll_coefficient"],
            [reference.sum(row) for row in rows],
            kl_coefficient=kl,
            normalise=ctx.options["normalise"],
            values=[reference.values(row) for row in rows] if kl else (),
        )

    async def _reference_checked(
        self,
        ctx: StageContext,
        adapter: Adapter,
        sampler: RoleSampler,
        pairs: Sequence[Row],
        rows: Sequence[TrainedRow],
    ) -> Reference:
        """The reference, beside what else is asked before the first step; then all is looked at.

        Policy and reference are the same model and rendering: the first batch's loss is ln 2 and its margins 0. The
        sampler agrees, no answer is empty, the answers are text that ends where it ends, and the chosen ones are the
        chosen ones.

        Raises:
            StageFailed: Something of it does not hold; no optimiser step was submitted.
        """
        watch = ctx.options["monitor"]
        batch = rows[: 2 * ctx.options["batch_size"]]
        sides = {name: rows[side : 2 * SOME_ROWS : 2] for side, name in enumerate(_SIDES)} if watch["text"] else {}
        for side, (name, some) in enumerate(sides.items()):
            say(ctx, empty_verdict(sum(map(is_empty, rows[side::2])), len(pairs), name))
            say(ctx, short_verdict(some, name))
        if watch["direction"]:
            say(ctx, same_verdict(rows))
        controls = {name: text_controls(ctx.rng("text control"), some) for name, some in sides.items()}
        asked: list[Awaitable[Any]] = [
            ctx.reference(adapter, rows),
            forward_logprobs(ctx, adapter, batch),
            sampler_logprobs(ctx, sampler, batch),
            *(forward_logprobs(ctx, adapter, control_rows(each)) for each in controls.values()),
        ]
        reference, policy, sampled, *found = await ctx.gather(asked)
        check_sampler(ctx, sampled, policy)
        _check_policy(ctx, policy, batch, reference)
        for (name, some), each in zip(sides.items(), found, strict=True):
            say(ctx, text_verdict(text_gaps(some, [reference.values(row) for row in some], controls[name], each), name))
        if watch["direction"]:
            say(ctx, direction_verdict(likelihood_gaps(rows, reference)))
        if watch["scored_pairs"]:
            chosen, rejected = await scored(ctx, pairs[: watch["scored_pairs"]])
            say(ctx, scored_verdict(chosen, rejected))
        return cast("Reference", reference)


def _behaviour_prompts(ctx: StageContext, steps: int) -> int:
    """How many prompts the monitor's look at the answers asks."""
    watch = ctx.options["monitor"]
    return int(watch["behaviour_prompts"]) if watch["same_answers"] and steps >= _FEWEST_STEPS else 0


def _check_policy(
    ctx: StageContext, policy: Sequence[Sequence[float]], rows: Sequence[TrainedRow], reference: Reference
) -> None:
    """The policy's log-probs of a batch are the stored reference's: loss ln 2, margins 0.

    Raises:
        StageFailed: They are not.
    """
    import torch

    stored = [reference.values(row) for row in rows]
    gaps = [abs(p - r) for ps, rs in zip(policy, stored, strict=True) for p, r in zip(ps, rs, strict=True)]
    advice = "policy and reference differ before the first step: no step was submitted"
    if ctx.exact:
        ctx.check("largest policy-reference log-prob gap", max(gaps), pass_slack(ctx), advice)
    else:
        ctx.check("mean policy-reference log-prob gap", mean(gaps), pass_slack(ctx), advice)
    loss = DpoLoss(ctx.options["beta"], 0.0, [reference.sum(row) for row in rows])
    vanilla, metrics = loss.of([torch.tensor(values) for values in policy])
    first = _first_metrics(ctx, rows)
    ln2, slack = first["dpo_loss"]
    ctx.check("DPO loss at step 0 minus ln 2", float(vanilla) - ln2, slack, advice)
    ctx.check("mean margin at step 0", metrics["margin:mean"], first["margin"][1], advice)


def _first_metrics(ctx: StageContext, rows: Sequence[TrainedRow]) -> dict[str, tuple[float, float]]:
    """Metrics of a batch by the weights that are its reference, each with what rounding may make of it."""
    longest = max(row.trained_tokens for row in rows)
    return {
        "dpo_loss": (math.log(2), _LN2_EXACT if ctx.exact else _LN2_HOSTED),
        "margin": (0.0, _MARGIN_EXACT if ctx.exact else pass_slack(ctx) * longest),
        "nll_rise": (0.0, pass_slack(ctx)),
    }


@dataclass(frozen=True)
class _Looks:
    """What is sampled in the middle of the training and at its end, after how many steps, and by what."""

    probe: _curve.Probe
    points: set[int]
    on_point: Callable[[int, RoleSampler], Awaitable[None]]


async def _rendered(chat: Chat, pairs: Sequence[Row]) -> list[TrainedRow]:
    """Chosen and rejected rows of all pairs by turns; others may go on meanwhile."""
    import asyncio

    rows: list[TrainedRow] = []
    for pair in pairs:
        rows += pair_rows(chat, pair)
        await asyncio.sleep(0)
    return rows


def pair_rows(chat: Chat, pair: Row) -> tuple[TrainedRow, TrainedRow]:
    """Chosen and rejected answer to one prompt as trained rows, each in the student's own rendering."""
    question = user(pair["prompt"])
    told = [[question, assistant(pair[side])] for side in ("chosen", "rejected")]
    (chosen,), (rejected,) = audited_rows(chat, told)
    return chosen, rejected


def likelihood_gaps(rows: Sequence[TrainedRow], reference: Reference) -> list[float]:
    """By how many nats a token each pair's rejected answer is likelier than its chosen one, before any step."""
    means = [reference.sum(row) / row.trained_tokens for row in rows]
    return [rejected - chosen for chosen, rejected in zip(means[::2], means[1::2], strict=True)]


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `dpo`."""
    return [DpoStage]
