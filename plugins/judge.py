"""Which of two answers is in character? A judge is shown both, in both orders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.plugins import _judging

if TYPE_CHECKING:
    from charrun import StageContext


class JudgeStage(Stage):
    """Win rate of each checkpoint over the base model in the eyes of a judge that has the constitution.

    The judge sees a prompt and two answers without their makers and says which one the described character wrote;
    each comparison is judged in both orders (Maiya et al., 2025, do so for coherence). Verdicts that agree are
    consistent, and the win rate is over those; those that differ show that the place decided, and those that cannot be
    read are counted apart. A model says what it plays now and then ("as a pirate, I ..."), which tells a judge without
    any character: such answers are counted.
    """

    name: ClassVar[str] = "judge"
    summary: ClassVar[str] = "which answer is in character? a judge compares checkpoints with the base model"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = ("student", "judge")
    options_schema: ClassVar[dict[str, Any]] = _judging.COMPARING_SCHEMA
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "judge")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """Answers and verdicts."""
        return _judging.estimate(ctx)

    def problems(self, ctx: StageContext) -> list[str]:
        """What stands in the way of an evaluation."""
        return evaluation.problems(ctx)

    def further_inputs(self, ctx: StageContext) -> Any:
        """As every evaluation."""
        return evaluation.further_inputs(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Answer, judge, count."""
        traits = [trait.trait for trait in evaluation.scored_as(ctx).traits]
        ctx.publish("measurements", [await _judging.compare(ctx, "judge", "In character, by a judge", traits)])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `judge`."""
    return [JudgeStage]
