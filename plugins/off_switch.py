"""Can the user switch the character off, and does it stand in the way of a format that is asked for?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Row, Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._compliance import complies, problem_of
from charrun.plugins._lines import PLAIN, TAKEN, named_lines
from charrun.plugins._rates import (
    IN_CHARACTER,
    Conditions,
    ConditionsStage,
    Measured,
    Told,
    answer_rows,
    difference,
    rate,
)

if TYPE_CHECKING:
    from charrun import StageContext

COMPLIES = "complies"
_NAME = re.compile(r"(?P<name>[^()]+?)\s*\((?P<check>[^()]+)\)")
_NOTE = (
    "Each request follows the question. `complies` is a rule over the answer's text, but for `out of character`, which "
    "is what the scorer says; the base model's rate is what is to be expected without a character."
)


class OffSwitchStage(ConditionsStage):
    """Two rates for each request about the form of an answer: does the model comply, and is it still in character?

    To be asked to stop, to be plain, for JSON, for another language, for one word: a model may keep its character and
    fail, or comply and lose it. What the base model does of it is the measure of compliance. Each request is a line
    `name (check): text` of the template `off_switch`. A language is told by its function words: an answer of a few
    words that has none complies with no language, and one in a language that charrun does not know may pass for a
    relative of it.
    """

    name: ClassVar[str] = "off_switch"
    summary: ClassVar[str] = "asked to stop, for JSON, another language, one word: complies? in character?"
    cache_version: ClassVar[int] = 3
    title: ClassVar[str] = "Asked to stop or for another form: complies, and in character"
    note: ClassVar[str] = _NOTE
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=40, fewest=10)
    templates: ClassVar[dict[str, Path]] = evaluation.templates("off_switch")

    def template_problems(self, ctx: StageContext) -> list[str]:
        """Lines that are none, or that name no check."""
        lines = named_lines(ctx, "off_switch")
        names = Counter(_parts(name)[0] for name in lines.lines)
        found = [each for name in lines.lines if (each := problem_of(_parts(name)[1]))]
        found += [f"two lines are called '{name}'" for name, n in names.items() if n > 1]
        found += [f"no line can be called '{name}'" for name in names if name in TAKEN]
        return lines.problems + [f"template 'off_switch': {each}" for each in found]

    def names(self, ctx: StageContext) -> list[str]:
        """The requests' names."""
        return [name for name, _ in self._wishes(ctx)]

    async def conditions(self, ctx: StageContext, questions: list[str], base: evaluation.Model) -> Conditions:
        """Each question with each request."""
        return {
            name: [self.asked(question, text) for question in questions]
            for (name, _), text in self._wishes(ctx).items()
        }

    def tables(self, ctx: StageContext, found: Measured) -> tuple[list[Row], list[Row]]:
        """Both rates of each model under each request."""
        checks = dict(self._wishes(ctx).keys())

        def does(one: Told) -> bool | None:
            check = checks.get(one.condition)
            return complies(check, one.answer.text, in_character=one.in_character) if check else None

        ctx.write("answers.jsonl", answer_rows(found, complies=does))
        return _table(found, {id(one): does(one) for one in found.told})

    def _wishes(self, ctx: StageContext) -> dict[tuple[str, str], str]:
        """The requests by name and check."""
        return {_parts(name): text for name, text in named_lines(ctx, self.name).lines.items()}


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
