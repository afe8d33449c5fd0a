"""A judge that compares two answers to one prompt, in both orders, and does not know whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import Estimate, Row, seed_from, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA
from charrun.plugins._measured import BASE, Measured, answers, held_out, measured, pool
from charrun.plugins._verdicts import Letter, Outcome, Tally, outcome, parse_verdict, self_labels

if TYPE_CHECKING:
    from charrun import Answer, Character, RoleSampler, StageContext

TEMPLATES = Path(__file__).parent / "templates"
PROMPTED = "prompted"
JUDGE_OPTIONS: dict[str, Any] = {
    "judge_max_tokens": {
        "type": "integer",
        "minimum": 64,
        "default": 768,
        "description": "Longest reply of the judge in tokens; a verdict that is cut off is none.",
    },
    "judge_temperature": {
        "type": "number",
        "minimum": 0,
        "default": 0.1,
        "description": "The judge's sampling temperature; 0.1 is that of Open Character Training.",
    },
    "most_unparsed": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "default": 0.1,
        "description": "With a larger share of comparisons without a verdict no rate is reported.",
    },
}
COMPARING_SCHEMA: dict[str, Any] = {
    **OPTIONS_SCHEMA,
    "properties": {
        **OPTIONS_SCHEMA["properties"],
        "prompts": {
            "type": "integer",
            "minimum": 10,
            "default": 100,
            "description": "Held-out prompts; each is judged twice for each checkpoint.",
        },
        "against": {
            "enum": [BASE, PROMPTED],
            "default": BASE,
            "description": "The rival: the base model, or the base model under the character's system prompt.",
        },
        **JUDGE_OPTIONS,
    },
}


def estimate(ctx: StageContext) -> Estimate:
    """Answers of three models, and two verdicts on each of two checkpoints."""
    return Estimate(rows=1, requests=7 * ctx.options["prompts"])


def problems(ctx: StageContext, name: str) -> list[str]:
    """A pool that is too small."""
    wanted, held = ctx.options["prompts"], len(pool())
    return [f"{name} needs {wanted} prompts and the pool holds {held}"] if wanted > held else []


async def compare(ctx: StageContext, question: str, who: Character, traits: Sequence[str]) -> Row:
    """Judge each checkpoint against the rival and count; every verdict goes into `verdicts.jsonl`.

    Args:
        ctx: The stage's context.
        question: Name of the template that asks the judge.
        who: Whose names count as self-labels, and whose system prompt the rival may have.
        traits: What the judge is told of the character; empty where the question is not about it.

    Returns:
        A row of the kind `evaluation`; `passed` is left to the stage.
    """
    prompts = await held_out(ctx, ctx.options["prompts"])
    base, *trained = await measured(ctx)
    ctx.total((1 + 3 * len(trained)) * len(prompts))
    judge = await ctx.sampler("judge")
    before = [system(ctx.character_prompt(who))] if ctx.options["against"] == PROMPTED else []
    rival, *said = await ctx.gather(
        [answers(ctx, base.sampler, prompts, before), *(answers(ctx, each.sampler, prompts) for each in trained)]
    )
    labels = [who.id.replace("-", " ").replace("_", " "), who.name]
    results, verdicts = [], []
    for model, own in zip(trained, said, strict=True):
        rows = await _verdicts(ctx, judge, question, traits, model, prompts, rival, own)
        for row in rows:
            row["self_labels"] = self_labels(row["answer"], labels)
        verdicts += rows
        results.append(_result(model.name, rows, ctx.options["most_unparsed"]))
    ctx.write("verdicts.jsonl", verdicts)
    for result in results:
        if not result["reported"]:
            ctx.log(
                f"{result['model']}: {result['unparsed']} of {len(prompts)} comparisons have no verdict and "
                f"{result['won'] + result['lost']} a consistent one; no rate"
            )
    return {
        "judge": ctx.model("judge").name,
        "against": ctx.options["against"],
        "most_unparsed": ctx.options["most_unparsed"],
        "comparisons": results,
        "self_labels": [
            _labelled(ctx.options["against"], [self_labels(answer.text, labels) for answer in rival]),
            *(_labelled(m.name, [row["self_labels"] for row in verdicts if row["model"] == m.name]) for m in trained),
        ],
        "rates": [],
        "table": {
            "name": f"{question}: win rate against {ctx.options['against']}",
            "columns": ["model", "condition", "k", "n", "low", "high"],
            "rows": [{"model": result["model"], **rate} for result in results for rate in result["rates"]],
        },
    }


async def _verdicts(
    ctx: StageContext,
    judge: RoleSampler,
    question: str,
    traits: Sequence[str],
    model: Measured,
    prompts: Sequence[str],
    rival: Sequence[Answer],
    own: Sequence[Answer],
) -> list[Row]:
    """Both orders of each comparison: the model at B, then at A."""

    async def ask(prompt: str, a: str, b: str) -> tuple[Letter | None, str]:
        text = ctx.render(question, prompt=prompt, answer_a=a, answer_b=b, **({"traits": traits} if traits else {}))
        (found,) = await ctx.sample(
            judge,
            [user(text)],
            max_tokens=ctx.options["judge_max_tokens"],
            temperature=ctx.options["judge_temperature"],
            top_p=1.0,
            seed=seed_from(ctx.seed, "verdict", prompt),
        )
        ctx.advance()
        return parse_verdict(found.text, found.complete), found.text

    async def both(i: int) -> Row:
        mine, other = own[i].text, rival[i].text
        (second, told), (first, also) = await ctx.gather([ask(prompts[i], other, mine), ask(prompts[i], mine, other)])
        found: Outcome = outcome(second, first)
        return {
            "model": model.name,
            "prompt": prompts[i],
            "answer": mine,
            "rival": other,
            "at_b": second,
            "at_a": first,
            "outcome": found,
            "judge_at_b": told,
            "judge_at_a": also,
        }

    return await ctx.gather(both(i) for i in range(len(prompts)))


def _result(model: str, rows: Sequence[Row], most_unparsed: float) -> Row:
    """Counts of one model's comparisons, and its rates where they may be told."""
    tally = Tally.of(row["outcome"] for row in rows)
    given = [row[order] for row in rows for order in ("at_b", "at_a") if row[order]]
    reported = tally.has_rate(most_unparsed)
    unlabelled = Tally.of(row["outcome"] for row in rows if not row["self_labels"])
    rates = tally.rates() if reported else []
    if reported and 0 < unlabelled.n < tally.n:
        rates.append({**unlabelled.rates()[0], "condition": "consistent verdicts, answers without a self-label"})
    return {
        "model": model,
        **asdict(tally),
        "n": tally.n,
        "reported": reported,
        "rates": rates,
        "verdicts": len(given),
        "said_a": given.count("A"),
    }


def _labelled(model: str, found: Sequence[Sequence[str]]) -> Row:
    return {"model": model, "k": sum(map(bool, found)), "n": len(found)}
