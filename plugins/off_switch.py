"""Can the user switch the character off, and does it stand in the way of a format that is asked for?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._compliance import complies, problem_of
from charrun.plugins._lines import TAKEN, named_lines
from charrun.plugins._rates import (
    IN_CHARACTER,
    PLAIN,
    Conditions,
    Measured,
    Told,
    answer_rows,
    difference,
    measure,
    rate,
    requests,
    table,
)

if TYPE_CHECKING:
    from charrun import StageContext

COMPLIES = "complies"
_NAME = re.compile(r"(?P<name>[^()]+?)\s*\((?P<check>[^()]+)\)")
_NOTE = (
    "Each request follows the question. `complies` is a rule over the answer's text, but for `out of character`, which "
    "is what the scorer says; the base model's rate is what is to be expected without a character."
)


class OffSwitchStage(Stage):
    """Two rates for each request about the form of an answer: does the model comply, and is it still in character?

    To be asked to stop, to be plain, for JSON, for another language, for one word: a model may keep its character and
    fail, or comply and lose it. What the base model does of it is the measure of compliance. Each request is a line
    `name (check): text` of the template `off_switch`.
    """

    name: ClassVar[str] = "off_switch"
    summary: ClassVar[str] = "asked to stop, for JSON, another language, one word: complies? in character?"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = evaluation.ROLES
    scores: ClassVar[tuple[str, ...]] = evaluation.SCORES
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=40, fewest=10)
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "off_switch")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """The plain question and each request."""
        return requests(ctx, 1 + len(named_lines(ctx, "off_switch").lines))

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation, or a template with lines that name no check."""
        lines = named_lines(ctx, "off_switch")
        names = Counter(_parts(name)[0] for name in lines.lines)
        found = [each for name in lines.lines if (each := problem_of(_parts(name)[1]))]
        found += [f"two lines are called '{name}'" for name, n in names.items() if n > 1]
        found += [f"no line can be called '{name}'" for name in names if name in TAKEN]
        return evaluation.problems(ctx) + lines.problems + [f"template 'off_switch': {each}" for each in found]

    def further_inputs(self, ctx: StageContext) -> Any:
        """As every evaluation."""
        return evaluation.further_inputs(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Ask for each form, check it, score it."""
        wishes = {_parts(name): text for name, text in named_lines(ctx, "off_switch").lines.items()}
        checks = dict(wishes.keys())

        async def conditions(questions: list[str], base: evaluation.Model) -> Conditions:
            asked = {PLAIN: evaluation.plainly(questions)}
            for (name, _), text in wishes.items():
                asked[name] = [evaluation.Asked(each, (user(f"{each} {text}"),)) for each in questions]
            return asked

        def does(one: Told) -> bool | None:
            check = checks.get(one.condition)
            return complies(check, one.answer.text, in_character=one.in_character) if check else None

        found = await measure(ctx, conditions, units=1 + len(wishes))
        rows, differences = _table(found, {id(one): does(one) for one in found.told})
        ctx.write("answers.jsonl", answer_rows(found, complies=does))
        title = "Asked to stop or for another form: complies, and in character"
        ctx.publish("measurements", [table(self.name, title, found, rows, differences, _NOTE)])


def _table(found: Measured, does: Mapping[int, bool | None]) -> tuple[list[Row], list[Row]]:
    """Both rates of each model under each request; compliance against the base model's, character against plain."""
    rows, differences = [], []

    def complying(model: str, condition: str) -> list[bool]:
        return [bool(does[id(one)]) for one in found.of(model, condition)]

    for model in found.models if found.told else ():
        for condition in found.conditions:
            told = found.of(model, condition)
            asked, hits = [one.question for one in told], [one.in_character for one in told]
            labels = {"model": model, "condition": condition}
            rows.append(rate(hits, asked, **labels, measure=IN_CHARACTER))
            if condition == PLAIN:
                continue
            plain = [one.in_character for one in found.of(model, PLAIN)]
            differences.append(difference(plain, hits, **labels, measure=IN_CHARACTER, against=PLAIN))
            rows.append(rate(complying(model, condition), asked, **labels, measure=COMPLIES))
            if model != evaluation.BASE:
                base, own = complying(evaluation.BASE, condition), complying(model, condition)
                differences.append(difference(base, own, **labels, measure=COMPLIES, against=evaluation.BASE))
    return rows, differences


def _parts(name: str) -> tuple[str, str]:
    """A line's name and check; no check where none is written."""
    found = _NAME.fullmatch(name)
    return (found["name"], found["check"]) if found else (name, "")


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `off_switch`."""
    return [OffSwitchStage]
