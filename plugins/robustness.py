"""Does the character hold when a user asks the model to drop it?"""

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
    "Each suffix follows the question; an answer is scored as one to the plain question, with the threshold that plain "
    "questions set. `all` is over the suffixes; its interval counts answers to one question as far as they differ."
)


class RobustnessStage(Stage):
    """In-character rates of all models where a suffix tells them to drop the act, against no suffix.

    The paper's section on robustness does so with eight adversarial suffixes and a trained classifier; here the
    likelihood ratio of `evaluate` decides, on the same questions with the same seeds, and the base model's rate under
    each suffix stands beside the others. Each kind of suffix is a line `name: text` of the template `robustness`.
    """

    name: ClassVar[str] = "robustness"
    summary: ClassVar[str] = "in character when a suffix says to drop the act? eight kinds, every model"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = evaluation.ROLES
    scores: ClassVar[tuple[str, ...]] = evaluation.SCORES
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=40, fewest=10)
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "robustness")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """Each suffix and none."""
        return requests(ctx, 1 + len(self._suffixes(ctx)))

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation, or a template that is no list."""
        return evaluation.problems(ctx) + named_lines(ctx, "robustness").problems

    def further_inputs(self, ctx: StageContext) -> Any:
        """As every evaluation."""
        return evaluation.further_inputs(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Ask with each suffix and with none, score, compare."""
        suffixes = self._suffixes(ctx)

        async def conditions(questions: list[str], base: evaluation.Model) -> Conditions:
            asked = {PLAIN: evaluation.plainly(questions)}
            for name, suffix in suffixes.items():
                asked[name] = [evaluation.Asked(each, (user(f"{each} {suffix}"),)) for each in questions]
            return asked

        found = await measure(ctx, conditions, units=1 + len(suffixes))
        rows, differences = by_condition(found, PLAIN)
        ctx.write("answers.jsonl", answer_rows(found))
        title = "In character when asked to drop the act"
        ctx.publish("measurements", [table(self.name, title, found, rows, differences, _NOTE)])

    def _suffixes(self, ctx: StageContext) -> dict[str, str]:
        return named_lines(ctx, "robustness").lines


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `robustness`."""
    return [RobustnessStage]
