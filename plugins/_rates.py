"""In-character rates by model and condition: asking, scoring, and the table that every report can show."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, user
from charrun.plugins._evaluation import (
    Asked,
    Calibration,
    EvaluationStage,
    Model,
    compared,
    held_out,
    models_and_scorer,
    of_each,
    plainly,
    scored_as,
    tell_overlap,
)
from charrun.plugins._lines import ALL, PLAIN, named_lines
from charrun.statistics import effective_n, paired_difference, wilson

if TYPE_CHECKING:
    from charrun import Answer, StageContext

IN_CHARACTER = "in character"

Conditions = Mapping[str, Sequence[Asked]]
"""What models are shown under each condition, one for each question in the same order."""


@dataclass(frozen=True)
class Told:
    """One answer.

    Attributes:
        model: Whose.
        condition: Under which.
        question: The plain question.
        answer: The answer.
        score: Mean per-token log-likelihood ratio, in nats.
        in_character: Whether the score is above the threshold.
    """

    model: str
    condition: str
    question: str
    answer: Answer
    score: float
    in_character: bool


@dataclass(frozen=True)
class Measured:
    """All answers of an evaluation, and what they were measured with; no answers where the scorer cannot tell."""

    scored_as: str
    calibration: Calibration
    overlap: Row
    models: Sequence[str]
    conditions: Sequence[str]
    told: Sequence[Told]

    def of(self, model: str, *conditions: str) -> list[Told]:
        """A model's answers, condition by condition, each in the order of questions."""
        return [one for name in conditions for one in self.told if (one.model, one.condition) == (model, name)]


class ConditionsStage(EvaluationStage):
    """An evaluation that asks every model its questions plainly and under further conditions.

    By default a condition is a line `name: text` of the template that has the stage's name, and the text follows each
    question.

    Attributes:
        title: What is measured, for reports.
        note: How to read it.
        rounds: Answers to every question that `conditions` itself asks of one model.
    """

    title: ClassVar[str]
    note: ClassVar[str]
    rounds: ClassVar[int] = 0

    def estimate(self, ctx: StageContext) -> Estimate:
        """Answers of base and checkpoints, one more if it is prompted too, and the calibration, each scored twice."""
        models, conditions = 1 + ctx.options["prompted"] + compared(ctx), 1 + len(self.names(ctx))
        asked = models * conditions * ctx.options["prompts"] + 2 * ctx.options["calibration_prompts"]
        return Estimate(rows=1, requests=3 * asked)

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation, or a template that is no list."""
        return super().problems(ctx) + self.template_problems(ctx)

    def template_problems(self, ctx: StageContext) -> list[str]:
        """What is wrong with the template that names the conditions."""
        return named_lines(ctx, self.name).problems

    def names(self, ctx: StageContext) -> list[str]:
        """The conditions' names, without the plain question."""
        return list(named_lines(ctx, self.name).lines)

    async def conditions(self, ctx: StageContext, questions: list[str], base: Model) -> Conditions:
        """What models are shown under each condition but the plain question."""
        return {
            name: [self.asked(question, text) for question in questions]
            for name, text in named_lines(ctx, self.name).lines.items()
        }

    def asked(self, question: str, text: str) -> Asked:
        """What models are shown of a question under a condition of this text."""
        return Asked(question, (user(f"{question} {text}"),))

    def tables(self, ctx: StageContext, found: Measured) -> tuple[list[Row], list[Row]]:
        """Rates, and differences between them; writes `answers.jsonl`."""
        ctx.write("answers.jsonl", answer_rows(found))
        return by_condition(found, PLAIN)

    async def run(self, ctx: StageContext) -> None:
        """Ask under each condition and plainly, score, compare."""

        async def shown(questions: list[str], base: Model) -> Conditions:
            return {PLAIN: plainly(questions), **await self.conditions(ctx, questions, base)}

        found = await _measure(ctx, shown, 1 + len(self.names(ctx)), self.rounds)
        rows, differences = self.tables(ctx, found)
        ctx.publish("measurements", [table(self.name, self.title, found, rows, differences, self.note)])


async def _measure(
    ctx: StageContext, conditions: Callable[[list[str], Model], Awaitable[Conditions]], count: int, rounds: int
) -> Measured:
    """Calibrate, then let every model answer under every condition, with the same seeds, and score.

    Args:
        ctx: The stage's context.
        conditions: Given the test questions and the base model: what is shown under each condition.
        count: How many conditions there will be, for the progress.
        rounds: Answers to every question that `conditions` itself asks of one model.
    """
    who = scored_as(ctx)
    held = await held_out(ctx)
    test = held.test
    compared, scorer = await models_and_scorer(ctx, who)
    ctx.total(2 * len(held.calibration) + (count * len(compared) + rounds) * len(test))
    tells = await scorer.calibrate(compared, held.calibration)
    names = [model.name for model in compared]
    if not tells.tells:
        ctx.log(f"AUC {tells.auc:.3f}: this scorer cannot tell {who.id} from the student's own answers; no rate")
        return Measured(who.id, tells, held.overlap(test), names, (), ())
    shown = await conditions(test, compared[0])
    overlap = held.overlap([text for asked in shown.values() for each in asked for text in each.said])
    tell_overlap(ctx, overlap)

    async def one(model: Model, condition: str) -> list[Told]:
        return [
            Told(model.name, condition, question, answer, score, score > tells.threshold)
            for question, (answer, score) in zip(test, await scorer.scored(model, shown[condition]), strict=True)
        ]

    async def all_of(model: Model) -> list[Told]:
        return [told for group in await ctx.gather([one(model, condition) for condition in shown]) for told in group]

    told = [each for group in await of_each(ctx, compared, all_of) for each in group]
    return Measured(who.id, tells, overlap, names, tuple(shown), told)


def rate(hits: Sequence[bool], questions: Sequence[str], **labels: str) -> Row:
    """A row of a table: k of n with a 95% Wilson interval.

    Where several answers belong to one question, the interval is that of `effective_n` answers.
    """
    worth = len(hits) if len(set(questions)) == len(questions) else effective_n(hits, questions)
    low, high = wilson(sum(hits) / len(hits) * worth, worth) if hits else wilson(0, 0)
    share = sum(hits) / len(hits) if hits else 0.0  # at 0 and 1 an end is off by a rounding error
    return {**labels, "k": sum(hits), "n": len(hits), "low": min(low, share), "high": max(high, share)}


def difference(first: Sequence[bool], second: Sequence[bool], **labels: str) -> Row:
    """second - first on the same questions: with a 95% interval and McNemar's exact p."""
    found = paired_difference(list(zip(first, second, strict=True)))
    return {**labels, "value": found.value, "low": found.low, "high": found.high, "p": found.p, "n": found.n}


def table(name: str, title: str, found: Measured, rows: Sequence[Row], differences: Sequence[Row], note: str) -> Row:
    """A row of the kind `measurements`, as reports show it without knowing who made it.

    `labels` names what tells one row from another; each of `rows` has these and `k`, `n`, `low`, `high`; each of
    `differences` has these, `against`, `value`, `low`, `high`, `p` and `n`. `tested_by` says how they are tested, where
    that is not McNemar's exact p.
    """
    labels = [key for key in rows[0] if key not in ("k", "n", "low", "high")] if rows else ["model"]
    return {
        "name": name,
        "title": title,
        "labels": labels,
        "rows": list(rows),
        "differences": list(differences),
        "notes": [note],
        "scored_as": found.scored_as,
        "auc": found.calibration.auc,
        "threshold": found.calibration.threshold,
        "calibration": found.calibration.n,
        "tells": found.calibration.tells,
        "contamination": found.overlap,
    }


def by_condition(found: Measured, against: str) -> tuple[list[Row], list[Row]]:
    """In-character rates of each model under each condition and over all but one, with what each changes.

    Args:
        found: The answers.
        against: The condition that the others are compared with, pair by pair.
    """
    rows, differences = [], []
    others = [name for name in found.conditions if name != against]
    for model in found.models if found.told else ():
        groups = {name: [name] for name in found.conditions}
        if len(others) > 1:
            groups[ALL] = others
        for condition, names in groups.items():
            told = found.of(model, *names)
            rows.append(_rate(told, model, condition))
            if condition not in (against, ALL):
                plain = [one.in_character for one in found.of(model, against)]
                hits = [one.in_character for one in told]
                differences.append(difference(plain, hits, model=model, condition=condition, against=against))
    return rows, differences


def _rate(told: Sequence[Told], model: str, condition: str) -> Row:
    hits, asked = [one.in_character for one in told], [one.question for one in told]
    return rate(hits, asked, model=model, condition=condition)


def answer_rows(found: Measured, **more: Callable[[Told], Any]) -> list[Row]:
    """Every answer, for `answers.jsonl`."""
    return [
        {
            "model": one.model,
            "condition": one.condition,
            "question": one.question,
            "answer": one.answer.text,
            "complete": one.answer.complete,
            "score": one.score,
            "in_character": one.in_character,
            **{name: tell(one) for name, tell in more.items()},
        }
        for one in found.told
    ]
