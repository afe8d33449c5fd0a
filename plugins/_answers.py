"""What `teacher` and `student` share: one row for each prompt and sample index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from charrun import Estimate, Message, Row, user

if TYPE_CHECKING:
    from charrun import Answer, StageContext

UNCLOSED = "no closing think tag"
"""The `fault` of a row that a gate drops whatever it says: the model never came to its answer."""

OPTIONS_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "max_tokens": {
            "type": "integer",
            "minimum": 1,
            "default": 512,
            "description": "Longest answer in tokens; a pair with a cut answer is dropped.",
        },
        "temperature": {
            "type": "number",
            "minimum": 0,
            "default": 0.7,
            "description": "Sampling temperature.",
        },
        "top_p": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.95,
            "description": "Nucleus of the sampling distribution.",
        },
    },
    "additionalProperties": False,
}


def estimate(ctx: StageContext) -> Estimate:
    """One row an answer, one request a prompt."""
    return Estimate(rows=ctx.scale.pairs, requests=-(-ctx.scale.pairs // ctx.scale.samples_per_prompt))


async def answer_prompts(ctx: StageContext, role: str, kind: str, before: Sequence[Message], prefill: str = "") -> None:
    """Answer every prompt `samples_per_prompt` times and publish the rows in the prompts' order.

    Args:
        ctx: The stage's context; its `extra` asks for that many more rows.
        role: Whose answers.
        kind: The published kind.
        before: Messages before the prompt, such as a system prompt.
        prefill: How each answer begins.
    """
    samples = ctx.scale.samples_per_prompt
    wanted = ctx.scale.pairs + ctx.extra
    prompts = await ctx.rows("prompts")
    lacking = -(-wanted // samples) - len(prompts)
    if lacking > 0:
        prompts = await ctx.extend("prompts", lacking)
    sampler = await ctx.sampler(role)
    ctx.total(len(prompts))

    async def answer(prompt: Row) -> list[Row]:
        found = await ctx.sample(
            sampler,
            [*before, user(prompt["prompt"])],
            count=samples,
            max_tokens=ctx.options["max_tokens"],
            temperature=ctx.options["temperature"],
            top_p=ctx.options["top_p"],
            prefill=prefill,
        )
        return [_row(prompt, one) for one in found]

    rows = [row for rows in await ctx.each(prompts, answer) for row in rows]
    ctx.publish(kind, rows[:wanted])


def _row(prompt: Row, answer: Answer) -> Row:
    row = {
        "id": f"{prompt['id']}-{answer.index}",
        "prompt": prompt["prompt"],
        "answer": answer.text,
        "complete": answer.complete,
        "tokens": len(answer.tokens),
    }
    return row if answer.closed else {**row, "fault": UNCLOSED}
