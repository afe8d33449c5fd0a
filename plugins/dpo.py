"""Direct preference optimisation of the student on the pairs (Rafailov et al., 2023; Maiya et al., 2025)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, TrainedRow, assistant, hookimpl, user
from charrun.plugins._training import (
    COMMON_OPTIONS,
    adam,
    check_lengths,
    check_sampler,
    checkpoint_note,
    forward_logprobs,
    mean,
    scale_warnings,
    sizes_of,
)

if TYPE_CHECKING:
    import torch

    from charrun import Adapter, Reference, StageContext

_REFERENCE_EXACT, _REFERENCE_HOSTED = 1e-5, 0.02
_LN2_EXACT, _LN2_HOSTED = 1e-4, 0.01
_MARGIN_EXACT = 1e-3


class DpoStage(Stage):
    """A LoRA adapter learns to prefer the chosen answers.

    loss = mean over the batch's pairs of -log sigmoid(beta * margin) + nll_coefficient * mean per-token NLL of the
    chosen answer, with margin = (policy - reference of chosen) - (policy - reference of rejected) in sums over the
    answer's tokens. The reference is the fresh adapter itself: one forward pass, stored by token hash before any
    optimiser step. One epoch in a seeded order, constant rate, the last partial batch kept.
    """

    name: ClassVar[str] = "dpo"
    summary: ClassVar[str] = "DPO of the student on the pairs"
    consumes: ClassVar[tuple[str, ...]] = ("pairs",)
    produces: ClassVar[tuple[str, ...]] = ("checkpoint",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    trains: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
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
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One request a step."""
        return Estimate(rows=1, requests=-(-ctx.scale.pairs // ctx.options["batch_size"]))

    def warnings(self, ctx: StageContext) -> list[str]:
        """A rank that changes the effective scale."""
        return scale_warnings(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Reference, checks at step 0, one epoch, checkpoint."""
        from charrun import batches_of, train_steps

        pairs = await ctx.rows("pairs")
        ctx.rng("dpo").shuffle(pairs)
        rank = ctx.options["lora_rank"]
        adapter = await ctx.new_adapter("student", rank)
        rows = [row for pair in pairs for row in pair_rows(adapter, pair)]
        check_lengths(adapter, sizes_of(rows))
        batches = batches_of(list(zip(rows[::2], rows[1::2], strict=True)), ctx.options["batch_size"])
        ctx.log(f"{len(pairs)} pairs, {len(batches)} steps, {checkpoint_note(rank)}")
        ctx.total(len(rows) + len(batches))
        reference = await ctx.reference(adapter, rows)
        ctx.advance(adapter.next_step)
        if adapter.next_step == 0:
            await self._check_step_zero(ctx, adapter, batches[0], reference)

        def on_step(step: int, metrics: dict[str, float]) -> None:
            ctx.step_done(step, len(batches), _told(metrics))
            ctx.advance()

        def submit(batch: Sequence[tuple[TrainedRow, TrainedRow]]) -> Any:
            flat = [row for pair in batch for row in pair]
            return adapter.client.forward_backward_custom(
                [row.datum() for row in flat],
                DpoLoss(ctx.options["beta"], ctx.options["nll_coefficient"], [reference.sum(row) for row in flat]),
            )

        every = ctx.options["checkpoint_every"]
        curve = await train_steps(ctx, adapter, batches, submit, adam(ctx), on_step, save_every=every)
        ctx.write("steps.jsonl", [{**_told(metrics), "step": step} for step, metrics in enumerate(curve)])
        ctx.publish("checkpoint", [await ctx.save(adapter, "dpo")])

    async def _check_step_zero(
        self,
        ctx: StageContext,
        adapter: Adapter,
        batch: Sequence[tuple[TrainedRow, TrainedRow]],
        reference: Reference,
    ) -> None:
        """Policy and reference are the same model and rendering: loss ln 2, margins 0, sampler agrees.

        Raises:
            StageFailed: They are not; no optimiser step was submitted.
        """
        import torch

        rows = [row for pair in batch for row in pair]
        policy = await forward_logprobs(ctx, adapter, rows)
        stored = [reference.values(row) for row in rows]
        gaps = [abs(p - r) for ps, rs in zip(policy, stored, strict=True) for p, r in zip(ps, rs, strict=True)]
        advice = "policy and reference differ before the first step: no step was submitted"
        if ctx.exact:
            ctx.check("largest policy-reference log-prob gap", max(gaps), _REFERENCE_EXACT, advice)
        else:
            ctx.check("mean policy-reference log-prob gap", mean(gaps), _REFERENCE_HOSTED, advice)
        loss = DpoLoss(ctx.options["beta"], 0.0, [reference.sum(row) for row in rows])
        vanilla, metrics = loss.of([torch.tensor(values) for values in policy])
        slack = _LN2_EXACT if ctx.exact else _LN2_HOSTED
        ctx.check("DPO loss at step 0 minus ln 2", float(vanilla) - math.log(2), slack, advice)
        longest = max(len(values) for values in stored)
        margin = _MARGIN_EXACT if ctx.exact else _REFERENCE_HOSTED * longest
        ctx.check("mean margin at step 0", metrics["margin:mean"], margin, advice)
        await check_sampler(ctx, await ctx.sampler("student"), rows, policy)


class DpoLoss:
    """The loss of one batch, given the SDK's log-probs of chosen, rejected, chosen, ... in that order.

    Args:
        beta: Strength of the pull towards the reference.
        nll_coefficient: Weight of the chosen answers' NLL.
        reference: Sums of the reference log-probs of each row's trained tokens, in nats.
    """

    def __init__(self, beta: float, nll_coefficient: float, reference: Sequence[float]) -> None:
        self.beta = beta
        self.nll_coefficient = nll_coefficient
        self.reference = list(reference)

    def __call__(self, data: Sequence[Any], logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and metrics; `logprobs[i]` has one value a target token, of which weight 1 marks the trained ones."""
        masks = [datum.loss_fn_inputs["weights"].to_torch() > 0 for datum in data]
        return self.of([values[mask] for values, mask in zip(logprobs, masks, strict=True)])

    def of(self, logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss and metrics from the log-probs of the trained tokens alone."""
        import torch

        ratios = torch.stack([v.sum() - r for v, r in zip(logprobs, self.reference, strict=True)])
        margins = ratios[::2] - ratios[1::2]
        dpo = -torch.nn.functional.logsigmoid(self.beta * margins).mean()
        nll = torch.stack([-values.mean() for values in logprobs[::2]]).mean()
        metrics = {
            "dpo_loss:mean": dpo.item(),
            "chosen_nll:mean": nll.item(),
            "margin:mean": margins.mean().item(),
            "accuracy:mean": (margins > 0).float().mean().item(),
        }
        return dpo + self.nll_coefficient * nll, metrics


def pair_rows(adapter: Adapter, pair: Row) -> tuple[TrainedRow, TrainedRow]:
    """Chosen and rejected answer to one prompt as trained rows, each in the student's own rendering."""
    question = user(pair["prompt"])
    (chosen,) = adapter.chat.rows([question, assistant(pair["chosen"])])
    (rejected,) = adapter.chat.rows([question, assistant(pair["rejected"])])
    return chosen, rejected


def _told(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics under plain names, without how they are reduced over a batch's parts."""
    return {name.split(":")[0]: value for name, value in metrics.items()}


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `dpo`."""
    return [DpoStage]
