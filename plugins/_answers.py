"""What `teacher` and `student` share: one row for each prompt and sample index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from charrun import Estimate, Message, Row, user
from charrun.plugins._gates import GATES, Fault, Gates
from charrun.plugins._tally import FIRST, Tally, check_first, distinct, first_of

if TYPE_CHECKING:
    from charrun import Answer, RoleSampler, StageContext

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


ANSWERED_SCHEMA: dict[str, Any] = {
    **OPTIONS_SCHEMA,
    "properties": {**OPTIONS_SCHEMA["properties"], "gates": {**GATES, "x-charrun-identity": False}, "first": FIRST},
}
"""Options of `teacher` and `student`: gates judge the first rows here, and every row in `pairs`."""


WRITER: dict[str, Any] = {
    "enum": ["checkpoint", "teacher"],
    "default": "checkpoint",
    "description": "Who writes: the checkpoint about itself, or, as a control, the teacher in the character.",
}


async def writer_of(ctx: StageContext) -> RoleSampler:
    """Who writes the introspection, as the option `writer` says (Maiya et al., 2025, ablate it)."""
    if ctx.options["writer"] == "teacher":
        return await ctx.sampler("teacher")
    return await ctx.sampler("student", (await ctx.rows("checkpoint"))[-1])


def own_fault(row: Row) -> Fault | None:
    """What an answer's own row says against it, whatever its text is."""
    return Fault(row["fault"]) if row.get("fault") else None


def estimate(ctx: StageContext) -> Estimate:
    """One row an answer, one request a prompt."""
    return Estimate(rows=ctx.scale.pairs, requests=-(-ctx.scale.pairs // ctx.scale.samples_per_prompt))


async def answer_prompts(
    ctx: StageContext, role: str, kind: str, before: Sequence[Message], gates: Gates, prefill: str = ""
) -> None:
    """Answer every prompt `samples_per_prompt` times and publish the rows in the prompts' order.

    Args:
        ctx: The stage's context; its `extra` asks for that many more rows.
        role: Whose answers.
        kind: The published kind.
        before: Messages before the prompt, such as a system prompt.
        gates: What the first rows are judged by before the rest is asked for.
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
        ctx.advance()
        return [_row(prompt, one) for one in found]

    first = first_of(ctx, len(prompts), samples)
    held = await ctx.gather([answer(prompt) for prompt in prompts[:first]])
    if first < len(prompts):
        tally = Tally()
        passed: list[Row] = []
        for row in (row for rows in held for row in rows):
            fault = own_fault(row) or gates.fault(row["answer"], complete=row["complete"], prompt=row["prompt"])
            if tally.count(fault, row["answer"], row["id"]):
                passed.append(row)
        passed = distinct(passed, [row["answer"] for row in passed], gates, tally)
        check_first(ctx, role, tally, [row["answer"] for row in passed] if kind == "chosen" else [])
    held += await ctx.gather([answer(prompt) for prompt in prompts[first:]])
    rows = [row for rows in held for row in rows]
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
