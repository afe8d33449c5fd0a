"""Does the character hold when the model's turn begins out of character?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Stage, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._lines import named_lines
from charrun.plugins._rates import PLAIN, Conditions, answer_rows, by_condition, measure, requests, table

if TYPE_CHECKING:
    from charrun import StageContext

_NOTE = (
    "The model's own turn begins with these words; what follows them is scored as an answer to the plain question, "
    "with the threshold that plain questions set."
)


class PrefillAttackStage(Stage):
    """In-character rates of what models say after a neutral beginning of their own turn.

    Another attack than the paper's of that name, which is the stage `second_turn`. Each beginning is a line
    `name: text` of the template `prefill_attack`.
    """

    name: ClassVar[str] = "prefill_attack"
    summary: ClassVar[str] = "in character after a neutral beginning that is put into the model's own turn?"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = evaluation.ROLES
    scores: ClassVar[tuple[str, ...]] = evaluation.SCORES
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=60, fewest=10)
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "prefill_attack")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """The plain question and each beginning."""
        return requests(ctx, 1 + len(named_lines(ctx, "prefill_attack").lines))

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation, or a template that is no list."""
        return evaluation.problems(ctx) + named_lines(ctx, "prefill_attack").problems

    def further_inputs(self, ctx: StageContext) -> Any:
        """As every evaluation."""
        return evaluation.further_inputs(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Each model goes on from each beginning."""
        beginnings = named_lines(ctx, "prefill_attack").lines

        async def conditions(questions: list[str], base: evaluation.Model) -> Conditions:
            asked = {PLAIN: evaluation.plainly(questions)}
            for name, text in beginnings.items():
                asked[name] = [evaluation.Asked(each, (user(each),), prefill=text) for each in questions]
            return asked

        found = await measure(ctx, conditions, units=1 + len(beginnings))
        rows, differences = by_condition(found, PLAIN)
        ctx.write("answers.jsonl", answer_rows(found))
        title = "In character after a neutral beginning of the model's own turn"
        ctx.publish("measurements", [table(self.name, title, found, rows, differences, _NOTE)])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `prefill_attack`."""
    return [PrefillAttackStage]
