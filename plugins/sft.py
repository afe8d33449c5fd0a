"""Supervised fine-tuning of the DPO checkpoint on what it wrote about itself."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from charrun import Estimate, Message, Row, Stage, StageFailed, TrainedRow, assistant, hookimpl, user
from charrun.plugins import _curve, _monitor
from charrun.plugins._sanity import (
    SOME_ROWS,
    control_rows,
    empty_verdict,
    is_empty,
    short_verdict,
    text_controls,
    text_gaps,
    text_verdict,
)
from charrun.plugins._schedule import learning_rates
from charrun.plugins._training import (
    COMMON_OPTIONS,
    MAX_LENGTH,
    adam,
    audited_rows,
    check_lengths,
    check_sampler,
    checkpoint_note,
    forward_logprobs,
    judged,
    lengths_problem,
    pass_slack,
    sampler_logprobs,
    say,
    scorer_problems,
    sizes_of,
)

if TYPE_CHECKING:
    from charrun import Adapter, Chat, Reference, RoleSampler, StageContext

_BLOCK = 64
"""Conversations that are rendered in one go."""
_TURNS = "the turns that are trained"


class SftStage(Stage):
    """Continues the DPO checkpoint's adapter with a fresh optimizer: character and introspection in one adapter.

    With `start: base` a fresh adapter on the base model learns the same rows, to be merged with the DPO checkpoint's by
    the stage `merge` (Maiya et al., 2025, train the second adapter apart and add it with weight 0.25).

    loss = sum of the NLL over the batch's trained tokens / their number. One epoch in a seeded order; the last partial
    batch is kept and nothing is truncated.
    """

    name: ClassVar[str] = "sft"
    summary: ClassVar[str] = "SFT on the introspection"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    optional: ClassVar[tuple[str, ...]] = ("reflections", "interactions")
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
            **COMMON_OPTIONS,
            "learning_rate": {**COMMON_OPTIONS["learning_rate"], "default": 2.5e-5},
            "max_length": MAX_LENGTH,
            "monitor": _monitor.OPTION,
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

    def estimate(self, ctx: StageContext) -> Estimate:
        """One request a step, the first batch's scores before it, and what the curve asks."""
        rows = ctx.scale.reflections * ctx.has("reflections") + ctx.scale.interactions * ctx.has("interactions")
        steps = -(-rows // ctx.options["batch_size"])
        scores = min(rows, ctx.options["batch_size"])
        return Estimate(rows=1, requests=steps + scores + _curve.asked_for(ctx, steps))

    def problems(self, ctx: StageContext) -> list[str]:
        """Nothing to train on, or a rank for an adapter that has one."""
        found = [] if ctx.has("reflections") or ctx.has("interactions") else ["sft needs reflections or interactions"]
        if "lora_rank" in ctx.options and ctx.options["start"] == "checkpoint":
            found.append("lora_rank is for start: base; an adapter that is continued keeps its checkpoint's rank")
        return [*found, *scorer_problems(ctx, {"probe_every": ctx.options["probe_every"]})]

    def further_inputs(self, ctx: StageContext) -> Any:
        """What the curve is measured with, where there is one."""
        return _curve.measured_with(ctx) if ctx.options["probe_every"] else None

    async def run(self, ctx: StageContext) -> None:
        """Mask audit, check against the sampler, one epoch, checkpoint."""
        from asyncio import ensure_future

        from charrun import batches_of, train_steps

        checkpoint = (await ctx.rows("checkpoint"))[-1]
        fresh = ctx.options["start"] == "base"
        origin = None if fresh else checkpoint
        rows = _Rows(ctx)
        name = "fresh" if fresh else "adapter"  # another name: not DPO's initial A again

        async def opened() -> Adapter:
            if origin is None:
                return await ctx.new_adapter("student", ctx.options.get("lora_rank", checkpoint["lora_rank"]), name)
            return await ctx.continue_adapter("student", origin, name)

        async def first_scored() -> list[list[float]] | None:
            """Of the first batch, by what the adapter begins with; None where the training has begun already."""
            await rows.begun.wait()
            first = rows.batch(sampler)
            asked = first and not ctx.has_begun(name) and not lengths_problem(sampler, sizes_of(first))
            return await sampler_logprobs(ctx, sampler, first) if asked else None

        async def begin() -> tuple[Adapter, float]:
            """The adapter, checked beside the rest of the rows, and what its first batch's loss is."""
            adapter = await opened()
            await rows.begun.wait()
            first = rows.batch(adapter)

            async def sampled() -> list[list[float]]:
                return await scores or await sampler_logprobs(ctx, sampler, first)

            if not first or lengths_problem(adapter, sizes_of(first)):
                return adapter, math.nan  # it is told when all rows are looked at
            if adapter.next_step == 0:
                reference = await self._check_step_zero(ctx, adapter, first, rows.some(adapter), sampled)
            else:
                reference = await ctx.reference(adapter, first)
            return adapter, -sum(map(reference.sum, first)) / sum(row.trained_tokens for row in first)

        sampler, conversations = await ctx.sampler("student", origin), await _conversations(ctx)
        scores = ensure_future(first_scored())
        work: list[Awaitable[Any]] = [begin(), scores, rows.measure(sampler.chat, conversations)]
        adapter: Adapter
        adapter, first_loss = (await ctx.gather(work))[0]
        rows.check(adapter)
        if adapter.next_step == 0 and ctx.options["monitor"]["text"]:
            say(ctx, empty_verdict(rows.empty, len(rows.sizes), _TURNS))
        every = ctx.options["checkpoint_every"]
        batches = batches_of(rows.kept, ctx.options["batch_size"])
        rates = learning_rates(ctx.options, len(batches))
        ctx.log(f"{len(rows.kept)} rows, {len(batches)} steps, {checkpoint_note(adapter.rank)}")
        ctx.total(len(batches))
        ctx.advance(adapter.next_step)

        def on_step(step: int, metrics: dict[str, float]) -> None:
            ctx.step_done(step, len(batches), _told(metrics))
            ctx.advance()

        def submit(batch: Sequence[Sequence[Message]]) -> Any:
            rows = _rendered(adapter.chat, batch)
            share = 1.0 / sum(row.trained_tokens for row in rows)
            return adapter.client.forward_backward([row.datum(share) for row in rows], "cross_entropy")

        points = _curve.points_of(ctx.options["probe_every"], len(batches))
        said = {message["content"] for talk in rows.kept for message in talk if message["role"] == "user"}
        probe = _curve.Probe(ctx, said, ctx.options["probe_prompts"])
        if points:
            await probe.measure(0, sampler)

        first = {"loss": (first_loss, pass_slack(ctx))}
        sizes = [len(batch) for batch in batches]
        monitor = _monitor.Monitor(ctx.options["monitor"], rates, sizes, first=first, exact=ctx.exact)
        curve = await train_steps(
            ctx,
            adapter,
            batches,
            submit,
            adam(ctx, rates),
            on_step,
            save_every=every,
            judge=judged(ctx, adapter, monitor, len(batches), _told, probe),
            pauses=points - {len(batches)},
            on_pause=probe.measure,
        )
        saved = await ctx.save(adapter, "sft")
        if points:
            await probe.measure(len(batches), await ctx.sampler("student", saved))
        ctx.write("steps.jsonl", [{"step": step, **_told(metrics)} for step, metrics in enumerate(curve)])
        ctx.publish("checkpoint", [{**saved, "start": ctx.options["start"]}])

    async def _check_step_zero(
        self,
        ctx: StageContext,
        adapter: Adapter,
        batch: Sequence[TrainedRow],
        some: Sequence[TrainedRow],
        sampled: Callable[[], Awaitable[list[list[float]]]],
    ) -> Reference:
        """The sampler of what the adapter begins with agrees with the trainer, and what is trained is text.

        Args:
            ctx: The stage's context.
            adapter: As it begins.
            batch: The first batch.
            some: The first rows, whether they fill a batch or several.
            sampled: Gives the sampler's log-probs of the batch's trained tokens, in nats.

        Returns:
            The log-probs of the batch by the adapter as it begins.

        Raises:
            StageFailed: It does not or is not; no optimiser step was submitted.
        """
        text = ctx.options["monitor"]["text"]
        if text:
            say(ctx, short_verdict(some, _TURNS))
        controls = text_controls(ctx.rng("text control"), some) if text else []
        compared = some[: controls[-1][0] + 1] if controls else []
        work: list[Awaitable[Any]] = [
            ctx.reference(adapter, max(batch, compared, key=len)),
            forward_logprobs(ctx, adapter, control_rows(controls)),
            sampled(),
        ]
        reference, found, scored = await ctx.gather(work)
        check_sampler(ctx, scored, [reference.values(row) for row in batch])
        gaps = text_gaps(compared, [reference.values(row) for row in compared], controls, found)
        say(ctx, text_verdict(gaps, _TURNS))
        return cast("Reference", reference)


class _Rows:
    """Conversations in their order as far as they are not too long, each row's mask looked at.

    Rows are rendered here to be checked, and again when they are sent: many conversations are much as tokens.

    Attributes:
        kept: Those that are short enough, of as many as are looked at.
        sizes: Tokens and trained tokens of each of their rows.
        empty: How many of these rows have a trained turn without a word.
        begun: Set once the first rows are kept that are checked, or all are looked at.
    """

    def __init__(self, ctx: StageContext) -> None:
        from asyncio import Event

        self.kept: list[list[Message]] = []
        self.sizes: list[tuple[int, int]] = []
        self.empty = 0
        self.begun = Event()
        self._ctx = ctx
        self._longest: int | None = ctx.options.get("max_length")
        self._batch_size: int = ctx.options["batch_size"]
        self._all: Sequence[list[Message]] = ()

    def batch(self, of: Adapter | RoleSampler) -> list[TrainedRow]:
        """The first batch as it is rendered for a model; all rows where they are fewer."""
        return _rendered(of.chat, self.kept[: self._batch_size])

    def some(self, of: Adapter | RoleSampler) -> list[TrainedRow]:
        """The first rows as they are rendered for a model, among which the text check finds some."""
        return _rendered(of.chat, self.kept[:SOME_ROWS])

    async def measure(self, chat: Chat, conversations: Sequence[list[Message]]) -> None:
        """Look at all conversations; others may go on meanwhile.

        Raises:
            StageFailed: A mask is wrong.
        """
        from asyncio import sleep

        self._all = conversations
        for start in range(0, len(conversations), _BLOCK):
            block = conversations[start : start + _BLOCK]
            for conversation, rows in zip(block, audited_rows(chat, block), strict=True):
                sizes = sizes_of(rows)
                if self._longest is None or max(tokens for tokens, _ in sizes) <= self._longest:
                    self.kept.append(conversation)
                    self.sizes += sizes
                    self.empty += sum(map(is_empty, rows))
            if len(self.kept) >= max(self._batch_size, SOME_ROWS):
                self.begun.set()
            await sleep(0)
        self.begun.set()

    def check(self, adapter: Adapter) -> None:
        """Tell how many are too long.

        Raises:
            StageFailed: All are, or one of the others is longer than the model's context.
        """
        if dropped := len(self._all) - len(self.kept):
            self._ctx.log(f"{dropped} of {len(self._all)} rows are longer than {self._longest} tokens and dropped")
        if not self.kept:
            told = f"all {len(self._all)} rows are longer than {self._longest} tokens"
            raise StageFailed(told, "raise sft.max_length")
        check_lengths(adapter, self.sizes)


async def _conversations(ctx: StageContext) -> list[list[Message]]:
    """What is trained on, in a seeded order."""
    found: list[list[Message]] = []
    if ctx.has("reflections"):
        found += [reflection_messages(row) for row in await ctx.rows("reflections")]
    if ctx.has("interactions"):
        found += [row["messages"] for row in await ctx.rows("interactions")]
    ctx.rng("sft").shuffle(found)
    return found


def _rendered(chat: Chat, batch: Sequence[Sequence[Message]]) -> list[TrainedRow]:
    return [row for rows in chat.rows_of(batch) for row in rows]


def _told(metrics: Mapping[str, float]) -> dict[str, float]:
    return {"loss": metrics["loss:sum"]}


def reflection_messages(row: Row) -> list[Message]:
    """A reflection's training conversation: without the system prompt that it was written under."""
    return [user(row["prompt"]), assistant(row["text"])]


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `sft`."""
    return [SftStage]
