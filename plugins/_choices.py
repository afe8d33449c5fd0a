"""What a model says where two traits are offered, and which of them the answer shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from charrun import Row, seed_from, system, user
from charrun.plugins._tournament import Comparison
from charrun.plugins._verdicts import parse_choice

if TYPE_CHECKING:
    from charrun import Answer, RoleSampler, StageContext
    from charrun.plugins._evaluation import Model

_NAME = "Robin"
"""Who has a trait in the scorer's prompt: one name for every trait, and no character's."""


async def judged(ctx: StageContext, model: Model, planned: Sequence[Comparison], again: int) -> list[Row]:
    """What a model said in each comparison, and the trait that it shows; `again` for other sampling seeds."""
    role = "judge" if ctx.options["judge"] == "llm" else "scorer"
    judge, sampler = await ctx.sampler(role), await model.sampler()

    async def one(c: Comparison) -> Row:
        note = ctx.render("preference", first=c.first, second=c.second, framing=ctx.options["framing"])
        (answer,) = await ctx.sample(
            sampler,
            [system(note), user(c.prompt)],
            max_tokens=ctx.options["max_tokens"],
            temperature=ctx.options["temperature"],
            top_p=ctx.options["top_p"],
            seed=seed_from(ctx.seed, "preference", again, c.first, c.second, c.prompt),
            shared=True,
        )
        told = await (_asked if role == "judge" else _likelier)(ctx, judge, c, answer)
        return {"first": c.first, "second": c.second, "prompt": c.prompt, "answer": answer.text, **told}

    found: list[Row] = await ctx.each(list(planned), one)
    return found


async def _asked(ctx: StageContext, judge: RoleSampler, c: Comparison, answer: Answer) -> Row:
    """The judge's choice; which trait it reads first is a coin's, whichever the model read first."""
    pair = [c.first, c.second]
    ctx.rng("preferences", "order", c.first, c.second).shuffle(pair)
    text = ctx.render("preference_judge", first=pair[0], second=pair[1], prompt=c.prompt, answer=answer.text)
    (said,) = await ctx.sample(
        judge,
        [user(text)],
        max_tokens=ctx.options["judge_max_tokens"],
        temperature=ctx.options["judge_temperature"],
        top_p=1.0,
        seed=seed_from(ctx.seed, "trait", c.prompt),
        shared=True,
    )
    return {"winner": parse_choice(said.text, said.complete, pair), "judge": said.text}


async def _likelier(ctx: StageContext, scorer: RoleSampler, c: Comparison, answer: Answer) -> Row:
    """The trait whose one-line constitution makes the answer likelier a token; no winner where both do alike."""
    completion = scorer.chat.completion(answer.text)

    async def under(trait: str) -> float:
        note = system(ctx.render("character", name=_NAME, traits=[f"I am {trait}."]))
        return await ctx.score(scorer, scorer.chat.prompt([note, user(c.prompt)]), completion, shared=True)

    first, second = await ctx.gather([under(c.first), under(c.second)])
    return {"winner": None if first == second else c.first if first > second else c.second, "ratio": first - second}
