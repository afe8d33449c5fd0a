"""What the comparing evaluations share: the models that are measured, held-out prompts, and what is said to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from charrun import Message, StageFailed, seed_from, specs, user
from charrun.plugins.evaluate import training_texts

if TYPE_CHECKING:
    from charrun import Answer, RoleSampler, StageContext

BASE = "base"


@dataclass(frozen=True)
class Measured:
    """A model that is measured: `base`, or the stage whose checkpoint it is."""

    name: str
    sampler: RoleSampler


async def measured(ctx: StageContext) -> list[Measured]:
    """The base student, then the last checkpoint of each earlier training, in stage order."""
    checkpoints = [rows[-1] for rows in await ctx.every("checkpoint")]
    return [
        Measured(BASE, await ctx.sampler("student")),
        *[Measured(row["stage"], await ctx.sampler("student", row)) for row in checkpoints],
    ]


def shipped(name: str) -> str:
    """The text of a file in `specs/prompts`."""
    return (Path(specs.__file__).parent / "prompts" / name).read_text(encoding="utf-8")


def pool() -> list[str]:
    """The prompts that are for evaluations alone."""
    return shipped("evaluation.txt").splitlines()


async def held_out(ctx: StageContext, n: int) -> list[str]:
    """Seeded prompts that no training row of this run used; the ones that `evaluate` tests come first.

    Raises:
        StageFailed: Too few are left.
    """
    used = {_plain(text) for text in await training_texts(ctx)}
    found = [line for line in pool() if _plain(line) not in used]
    if n > len(found):
        raise StageFailed(
            f"{n} prompts are wanted that no training row used; {len(found)} are left", "lower the option prompts"
        )
    return sorted(found, key=lambda line: seed_from(ctx.seed, "evaluation", line))[:n]


async def answers(
    ctx: StageContext, sampler: RoleSampler, prompts: Sequence[str], before: Sequence[Message] = ()
) -> list[Answer]:
    """One answer a prompt, each with a seed of the prompt's own, so that models are paired.

    What a model says without a system prompt depends on its weights alone, so the evaluations share it.
    """

    async def one(prompt: str) -> Answer:
        (found,) = await ctx.sample(
            sampler,
            [*before, user(prompt)],
            max_tokens=ctx.options["max_tokens"],
            temperature=ctx.options["temperature"],
            top_p=ctx.options["top_p"],
            seed=seed_from(ctx.seed, "evaluation", prompt),
            shared=not before,
        )
        return found

    found: list[Answer] = await ctx.each(list(prompts), one)
    return found


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
