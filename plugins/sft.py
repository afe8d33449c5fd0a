"""Supervised fine-tuning of the DPO checkpoint on what it wrote about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Message, Row, Stage, StageFailed, TrainedRow, assistant, hookimpl, user
from charrun.plugins._training import (
    COMMON_OPTIONS,
    adam,
    check_lengths,
    check_sampler,
    checkpoint_note,
    forward_logprobs,
    sizes_of,
)

if TYPE_CHECKING:
    from charrun import Adapter, StageContext


class SftStage(Stage):
    """Continues the DPO checkpoint's adapter with a fresh optimizer: character and introspection in one adapter.

    With `start: base` a fresh adapter on the base model learns the same rows, to be merged with the DPO checkpoint's by
    the stage `merge` (Maiya et al., 2025, train the second adapter apart and add it with weight 0.25).

    loss = sum of the NLL over the batch's trained tokens / their number. One epoch in a seeded order, constant
    rate; the last partial batch is kept and nothing is truncated.
    """

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "SFT of the DPO checkpoint on its own introspection"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint", "reflections", "interactions")
    produces: ClassVar[tuple[str, ...]] = ("checkpoint",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    trains: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            **COMMON_OPTIONS,
            "learning_rate": {**COMMON_OPTIONS["learning_rate"], "default": 2.5e-5},
            "start": {
                "enum": ["checkpoint", "base"],
                "default": "checkpoint",
                "description": "Continue the checkpoint's adapter, or train a fresh one on the base model for `merge`.",
            },
            "lora_rank": {
                "type": "integer",
                "enum": [1, 2, 4, 8, 16, 32, 64, 128, 256],
                "description": "Rank of the fresh adapter of `start: base`; by default the checkpoint's.",
            },
        },
        "additionalProperties": False,
    }

    def problems(self, ctx: StageContext) -> list[str]:
        """A rank for an adapter that has one."""
        if "lora_rank" in ctx.options and ctx.options["start"] == "checkpoint":
            return ["lora_rank is for start: base; an adapter that is continued keeps its checkpoint's rank"]
        return []

    def estimate(self, ctx: StageContext) -> Estimate:
        """One request a step."""
        rows = ctx.scale.reflections + ctx.scale.interactions
        return Estimate(rows=1, requests=-(-rows // ctx.options["batch_size"]))

    async def run(self, ctx: StageContext) -> None:
        """Mask audit, check against the sampler, one epoch, checkpoint."""
        from charrun import batches_of, train_steps

        conversations = [reflection_messages(row) for row in await ctx.rows("reflections")]
        conversations += [row["messages"] for row in await ctx.rows("interactions")]
        ctx.rng("sft").shuffle(conversations)
        checkpoint = (await ctx.rows("checkpoint"))[-1]
        fresh = ctx.options["start"] == "base"
        if fresh:
            rank = ctx.options.get("lora_rank", checkpoint["lora_rank"])
            adapter = await ctx.new_adapter("student", rank, "fresh")  # a name of its own: not DPO's initial A again
        else:
            adapter = await ctx.continue_adapter("student", checkpoint)
        # Rows are rendered here to be checked, and again when they are sent: many conversations are much as tokens.
        sizes = [sizes_of(audited_rows(adapter, conversation)) for conversation in conversations]
        check_lengths(adapter, [size for row in sizes for size in row])
        every = ctx.options["checkpoint_every"]
        batches = batches_of(conversations, ctx.options["batch_size"])
        ctx.log(f"{len(conversations)} rows, {len(batches)} steps, {checkpoint_note(adapter.rank)}")
        ctx.total(len(batches))
        ctx.advance(adapter.next_step)
        if adapter.next_step == 0:
            first = _rendered(adapter, batches[0])
            sampler = await ctx.sampler("student", None if fresh else checkpoint)
            await check_sampler(ctx, sampler, first, await forward_logprobs(ctx, adapter, first))

        def on_step(step: int, metrics: dict[str, float]) -> None:
            ctx.step_done(step, len(batches), _told(metrics))
            ctx.advance()

        def submit(batch: Sequence[Sequence[Message]]) -> Any:
            rows = _rendered(adapter, batch)
            share = 1.0 / sum(row.trained_tokens for row in rows)
            return adapter.client.forward_backward([row.datum(share) for row in rows], "cross_entropy")

        curve = await train_steps(ctx, adapter, batches, submit, adam(ctx), on_step, save_every=every)
        ctx.write("steps.jsonl", [{"step": step, **_told(metrics)} for step, metrics in enumerate(curve)])
        ctx.publish("checkpoint", [{**await ctx.save(adapter, "sft"), "start": ctx.options["start"]}])


def _rendered(adapter: Adapter, batch: Sequence[Sequence[Message]]) -> list[TrainedRow]:
    return [row for conversation in batch for row in adapter.chat.rows(conversation)]


def _told(metrics: dict[str, float]) -> dict[str, float]:
    return {"loss": metrics["loss:sum"]}


def reflection_messages(row: Row) -> list[Message]:
    """A reflection's training conversation: without the system prompt that it was written under."""
    return [user(row["prompt"]), assistant(row["text"])]


def audited_rows(adapter: Adapter, conversation: Sequence[Message]) -> list[TrainedRow]:
    """Trained rows whose decoded masks are exactly the conversation's assistant turns, in order.

    Raises:
        StageFailed: A mask shows anything else.
    """
    rows = adapter.chat.rows(conversation)
    spoken = [message["content"] for message in conversation if message["role"] == "assistant"]
    shown = [text for row in rows for text in adapter.chat.trained_text(row)]
    if shown != spoken:
        at = next(
            (i for i, (a, b) in enumerate(zip(shown, spoken, strict=False)) if a != b),
            min(len(shown), len(spoken)),
        )
        raise StageFailed(
            f"the loss mask of a training row does not show its assistant turns: turn {at + 1} of {len(spoken)}",
            "the tokenizer does not give its text back, or the template changes it: report the model's name",
        )
    return rows


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `sft`."""
    return [SftStage]
