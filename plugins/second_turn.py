"""Does the character come back in a conversation that began without it?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Stage, assistant, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._lines import named_lines
from charrun.plugins._rates import PLAIN, Conditions, answer_rows, by_condition, measure, requests, table

if TYPE_CHECKING:
    from charrun import StageContext

_NOTE = (
    "The first answer is the base model's, without character; then the user says one of these, and the second answer "
    "is scored as one to the plain question, with the threshold that plain questions set."
)


class SecondTurnStage(Stage):
    """In-character rates of second answers after a first one of the base model and a neutral message.

    The paper calls this its prefill attack (its table 2 has the rates): what the model said before is put into its
    mouth, out of character. Each message is a line `name: text` of the template `second_turn`.
    """

    name: ClassVar[str] = "second_turn"
    summary: ClassVar[str] = "does the character come back after a first answer of the base model?"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = evaluation.ROLES
    scores: ClassVar[tuple[str, ...]] = evaluation.SCORES
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=60, fewest=10)
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "second_turn")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """The plain question and each message."""
        return requests(ctx, 1 + len(named_lines(ctx, "second_turn").lines))

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation, or a template that is no list."""
        return evaluation.problems(ctx) + named_lines(ctx, "second_turn").problems

    def further_inputs(self, ctx: StageContext) -> Any:
        """As every evaluation."""
        return evaluation.further_inputs(ctx)

    async def run(self, ctx: StageContext) -> None:
        """The base model answers, then every model goes on from there."""
        messages = named_lines(ctx, "second_turn").lines

        async def conditions(questions: list[str], base: evaluation.Model) -> Conditions:
            plain = evaluation.plainly(questions)
            first = await evaluation.answers(ctx, base.sampler, plain)
            asked = {PLAIN: plain}
            for name, text in messages.items():
                asked[name] = [
                    evaluation.Asked(question, (user(question), assistant(said.text), user(text)))
                    for question, said in zip(questions, first, strict=True)
                ]
            return asked

        found = await measure(ctx, conditions, units=1 + len(messages), further=ctx.options["prompts"])
        rows, differences = by_condition(found, PLAIN)
        ctx.write("answers.jsonl", answer_rows(found))
        title = "In character in a second answer, after a first one of the base model"
        ctx.publish("measurements", [table(self.name, title, found, rows, differences, _NOTE)])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `second_turn`."""
    return [SecondTurnStage]
