"""A judge that compares two answers to one prompt, in both orders, and does not know whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, seed_from, specs, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._verdicts import Letter, Tally, outcome, parse_verdict, self_labels

if TYPE_CHECKING:
    from charrun import Answer, RoleSampler, StageContext

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
        "description": "With a larger share of verdicts that cannot be read no rate is reported.",
    },
}
_SCORERS = ("calibration_prompts", "lowest_auc", "prompted")


def options_of(prompts: int, *leave_out: str, **more: Any) -> dict[str, Any]:
    """The options of an evaluation that no likelihood ratio decides; arguments as of `evaluation.options_schema`."""
    schema = evaluation.options_schema(prompts=prompts, fewest=10, **more)
    kept = {name: said for name, said in schema["properties"].items() if name not in (*_SCORERS, *leave_out)}
    return {**schema, "properties": kept}


COMPARING_SCHEMA = options_of(
    100,
    against={
        "enum": [evaluation.BASE, evaluation.PROMPTED],
        "default": evaluation.BASE,
        "description": "The rival: the base model, or the base model under the character's system prompt.",
    },
    scored_as={
        "type": "string",
        "minLength": 1,
        "description": "Compare as this character, by default as the run's own; another one is a null control.",
    },
    **JUDGE_OPTIONS,
)


def shipped(name: str) -> str:
    """The text of a file in `specs/prompts`."""
    return (Path(specs.__file__).parent / "prompts" / name).read_text(encoding="utf-8")


class ComparingStage(evaluation.EvaluationStage):
    """A stage in which a judge compares each checkpoint's answers with the rival's."""

    roles: ClassVar[tuple[str, ...]] = ("student", "judge")
    scores: ClassVar[tuple[str, ...]] = ()
    options_schema: ClassVar[dict[str, Any]] = COMPARING_SCHEMA

    def estimate(self, ctx: StageContext) -> Estimate:
        """Answers of rival and checkpoints, and two verdicts on each of a checkpoint's."""
        return Estimate(rows=1, requests=(1 + 3 * evaluation.compared(ctx)) * ctx.options["prompts"])


async def compare(ctx: StageContext, question: str, title: str, traits: Sequence[str]) -> Row:
    """Judge each checkpoint against the rival and count; every verdict goes into `verdicts.jsonl`.

    Args:
        ctx: The stage's context.
        question: Name of the template that asks the judge.
        title: What is compared, for reports.
        traits: What the judge is told of the character; empty where the question is not about it.

    Returns:
        A row of the kind `measurements`.
    """
    who, against = evaluation.scored_as(ctx), ctx.options["against"]
    held = await evaluation.held_out(ctx)
    prompts, overlap = held.test, held.overlap(held.test)
    evaluation.tell_overlap(ctx, overlap)
    base, *trained = await evaluation.models(ctx)
    ctx.total((1 + 2 * len(trained)) * len(prompts))
    judge = await ctx.sampler("judge")
    if against == evaluation.PROMPTED:
        base = replace(base, constitution=ctx.character_prompt(who))
    asked = evaluation.plainly(prompts)
    rival, *said = await ctx.gather(evaluation.answers(ctx, each, asked) for each in (base, *trained))
    labels = [who.id.replace("-", " ").replace("_", " "), who.name]
    verdicts: list[Row] = []
    for model, own in zip(trained, said, strict=True):
        found = await _verdicts(ctx, judge, question, traits, prompts, rival, own)
        verdicts += [{"model": model.name, **row, "self_labels": self_labels(row["answer"], labels)} for row in found]
    ctx.write("verdicts.jsonl", verdicts)
    results = [
        _result(model.name, [row for row in verdicts if row["model"] == model.name], ctx.options["most_unparsed"])
        for model in trained
    ]
    for result in results:
        ctx.log(_told(result))
    labelled = [self_labels(answer.text, labels) for answer in rival]
    return {
        "name": question,
        "title": f"{title}: win rate against {against}",
        "labels": ["model", "condition"],
        "rows": [{"model": result["model"], **rate} for result in results for rate in result["rates"]],
        "differences": [],
        "notes": [
            "Each comparison is judged in both orders; a rate is over those in which both say the same, without ties.",
            *map(_told, results),
            f"Answers that say what they play: {_share(against, labelled)}"
            + "".join(f"; {_share(result['model'], result.pop('labelled'))}" for result in results),
        ],
        "judge": ctx.model("judge").name,
        "scored_as": who.id,
        "most_unparsed": ctx.options["most_unparsed"],
        "comparisons": results,
        "contamination": overlap,
    }


async def _verdicts(
    ctx: StageContext,
    judge: RoleSampler,
    question: str,
    traits: Sequence[str],
    prompts: Sequence[str],
    rival: Sequence[Answer],
    own: Sequence[Answer],
) -> list[Row]:
    """Both orders of each comparison: the model at B, then at A. Of equal answers nobody is asked."""

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
        return parse_verdict(found.text, found.complete), found.text

    async def both(i: int) -> Row:
        mine, other = own[i].text, rival[i].text
        row = {"prompt": prompts[i], "answer": mine, "rival": other}
        if mine == other:
            return {**row, "at_b": None, "at_a": None, "outcome": "equal"}
        (b, told), (a, also) = await ctx.gather([ask(prompts[i], other, mine), ask(prompts[i], mine, other)])
        return {**row, "at_b": b, "at_a": a, "outcome": outcome(b, a), "judge_at_b": told, "judge_at_a": also}

    found: list[Row] = await ctx.each(list(range(len(prompts))), both)
    return found


def _result(model: str, rows: Sequence[Row], most_unparsed: float) -> Row:
    """Counts of one model's comparisons, and its rates where they may be told."""
    tally = Tally.of(row["outcome"] for row in rows)
    unlabelled = Tally.of(row["outcome"] for row in rows if not row["self_labels"])
    given = [row[order] for row in rows for order in ("at_b", "at_a") if row[order]]
    reported = tally.has_rate(most_unparsed)
    rates = tally.rates() if reported else []
    if reported and 0 < unlabelled.judged < tally.judged:
        rates.append({**unlabelled.rates()[0], "condition": "consistent, answers without a self-label"})
    return {
        "model": model,
        **asdict(tally),
        "n": len(rows),
        "reported": reported,
        "rates": rates,
        "verdicts": len(given),
        "said_a": given.count("A"),
        "labelled": [row["self_labels"] for row in rows],
    }


def _told(result: Row) -> str:
    counts = ", ".join(f"{result[name]} {name}" for name in ("won", "lost", "inconsistent", "unparsed", "equal"))
    places = f"; {result['said_a']} of {result['verdicts']} verdicts say A" if result["verdicts"] else ""
    return f"{result['model']}: {counts}{places}" + ("" if result["reported"] else "; no rate")


def _share(model: str, found: Sequence[Sequence[str]]) -> str:
    return f"{model} {sum(map(bool, found))} of {len(found)}"
