"""What did the character cost? Multiple-choice questions, before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, digest, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._contamination import contamination, training_rows
from charrun.plugins._judging import shipped
from charrun.plugins._rates import difference, rate

if TYPE_CHECKING:
    from charrun import StageContext

_CHANCE = 0.25


class CapabilityStage(evaluation.EvaluationStage):
    """Accuracy on questions with four options, by log-probs: nothing is sampled, so no style of answering matters.

    The chosen option is the one whose text has the highest mean log-prob per token as the model's whole turn after the
    question, in the model's own rendering; a tie is no right answer. Models answer the same questions, so each
    checkpoint is compared with the base model question by question: those gained and lost, McNemar's exact test, and
    an interval of the difference. The questions are simple and charrun's own: they notice damage, and rank no models;
    for benchmarks there is charrun's model class for lm-evaluation-harness. How many of them stand in training rows is
    told.
    """

    name: ClassVar[str] = "capability"
    summary: ClassVar[str] = "accuracy on multiple-choice questions by log-probs: base, after DPO, final"
    roles: ClassVar[tuple[str, ...]] = ("student",)
    scores: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    cache_version: ClassVar[int] = 3
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "questions": {
                "type": "string",
                "minLength": 1,
                "description": "JSON lines with question, four options and answer (0 to 3); by default charrun's own.",
            },
            "checkpoints": evaluation.options_schema(1, 1)["properties"]["checkpoints"],
        },
        "additionalProperties": False,
    }
    templates: ClassVar[dict[str, Path]] = {"question": evaluation.TEMPLATES / "question.j2"}

    def estimate(self, ctx: StageContext) -> Estimate:
        """Four scores a question for base and each checkpoint."""
        if self.problems(ctx):
            return Estimate(rows=1, requests=0)
        return Estimate(rows=1, requests=4 * (1 + evaluation.compared(ctx)) * len(_questions(_text(ctx))))

    def problems(self, ctx: StageContext) -> list[str]:
        """A file of questions that cannot be read."""
        try:
            text = _text(ctx)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            return [f"questions: cannot read {ctx.options['questions']}: {reason}"]
        found = [f"questions: line {i}: {fault}" for i, line in _lines(text) if (fault := _fault(line))]
        found += [] if text.strip() else ["questions: the file holds no question"]
        return found + super().problems(ctx)

    def further_inputs(self, ctx: StageContext) -> Any:
        """The questions, and what the named checkpoints hold."""
        return None if self.problems(ctx) else digest([_questions(_text(ctx)), evaluation.named_checkpoints(ctx)])

    async def run(self, ctx: StageContext) -> None:
        """Score every option with every model, and compare."""
        questions = _questions(_text(ctx))
        overlap = contamination([question["question"] for question in questions], await training_rows(ctx), 0)
        evaluation.tell_overlap(ctx, overlap)
        models = await evaluation.models(ctx)
        ctx.total(len(models) * len(questions))
        chosen = await evaluation.of_each(ctx, models, lambda model: _chosen(ctx, model, questions))
        ids = [str(question.get("id", i)) for i, question in enumerate(questions)]
        ctx.write(
            "answers.jsonl",
            [
                {"model": model.name, "id": id, "answer": question["answer"], **row}
                for model, rows in zip(models, chosen, strict=True)
                for id, question, row in zip(ids, questions, rows, strict=True)
            ],
        )
        right = {
            model.name: [row["chosen"] == question["answer"] for question, row in zip(questions, rows, strict=True)]
            for model, rows in zip(models, chosen, strict=True)
        }
        rows = [rate(hits, ids, model=name) for name, hits in right.items()]
        notes = [f"Four options, so chance is {_CHANCE:.0%}; the likeliest option is the answer, a tie is wrong."]
        if rows[0]["low"] <= _CHANCE:
            notes.append("The base model is not above chance: these questions cannot show what a training cost it.")
            ctx.log(notes[-1])
        result: Row = {
            "name": self.name,
            "title": "Capability: questions answered right",
            "labels": ["model"],
            "rows": rows,
            "differences": [
                difference(right[evaluation.BASE], hits, model=name, against=evaluation.BASE)
                for name, hits in right.items()
                if name != evaluation.BASE
            ],
            "notes": notes,
            "chance": _CHANCE,
            "contamination": overlap,
        }
        ctx.publish("measurements", [result])


async def _chosen(ctx: StageContext, model: evaluation.Model, questions: Sequence[Row]) -> list[Row]:
    """By question the number of the likeliest option, None in a tie, and the options' mean log-probs."""
    sampler = await model.sampler()

    async def one(question: Row) -> Row:
        prompt = sampler.chat.prompt([user(ctx.render("question", question=question["question"]))])
        scores = await ctx.gather(
            ctx.score(sampler, prompt, sampler.chat.completion(option), shared=True) for option in question["options"]
        )
        best = max(scores)
        return {"chosen": scores.index(best) if scores.count(best) == 1 else None, "scores": scores}

    found: list[Row] = await ctx.each(questions, one)
    return found


def _text(ctx: StageContext) -> str:
    written = ctx.options.get("questions")
    return ctx.path(written).read_text(encoding="utf-8") if written else shipped("questions.jsonl")


def _lines(text: str) -> list[tuple[int, str]]:
    return [(i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def _questions(text: str) -> list[Row]:
    return [json.loads(line) for _, line in _lines(text)]


def _fault(line: str) -> str:
    """What is wrong with a question; '' if nothing is."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"it is no JSON: {error}"
    options = row.get("options") if isinstance(row, dict) else None
    if not isinstance(options, list) or not isinstance(row.get("question"), str) or not row["question"].strip():
        return "it needs a text `question` and a list `options`"
    if (
        len(options) != 4
        or len(set(map(str, options))) < 4
        or not all(isinstance(o, str) and o.strip() for o in options)
    ):
        return "its options must be four different texts"
    answer = row.get("answer")
    return "" if type(answer) is int and 0 <= answer < 4 else "its answer must be a number from 0 to 3"


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `capability`."""
    return [CapabilityStage]
