"""Which of two answers is in character? A judge is shown both, in both orders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from charrun import Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.plugins import _judging

if TYPE_CHECKING:
    from charrun import StageContext


class JudgeStage(_judging.ComparingStage):
    """Win rate of each checkpoint over the base model in the eyes of a judge that has the constitution.

    The judge sees a prompt and two answers without their makers and says which one the described character wrote;
    each comparison is judged in both orders (Maiya et al., 2025, do so for coherence). Verdicts that agree are
    consistent, and the win rate is over those; those that differ show that the place decided, and those that cannot be
    read are counted apart. A model says what it plays now and then ("as a pirate, I ..."), which tells a judge without
    any character: such answers are counted.
    """

    name: ClassVar[str] = "judge"
    summary: ClassVar[str] = "which answer is in character? a judge compares checkpoints with the base model"
    templates: ClassVar[dict[str, Path]] = evaluation.templates("judge")

    async def run(self, ctx: StageContext) -> None:
        """Answer, judge, count."""
        traits = [trait.trait for trait in evaluation.scored_as(ctx).traits]
        ctx.publish("measurements", [await _judging.compare(ctx, "judge", "In character, by a judge", traits)])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `judge`."""
    return [JudgeStage]
