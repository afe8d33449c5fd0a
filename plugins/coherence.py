"""Which of two answers is the better reply? The price of a character, in the eyes of a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from charrun import Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.plugins import _judging

if TYPE_CHECKING:
    from charrun import StageContext


class CoherenceStage(_judging.ComparingStage):
    """Win rate of each checkpoint over the base model as the more coherent, more helpful reply (Maiya et al., 2025).

    The judge knows of no character and is told to overlook style. Both orders, consistent verdicts and those that
    cannot be read are counted as by `judge`. The paper compares with the prompted model: `against: prompted`.
    """

    name: ClassVar[str] = "coherence"
    summary: ClassVar[str] = "which answer is the better reply? a judge compares checkpoints with the base model"
    templates: ClassVar[dict[str, Path]] = evaluation.templates("coherence")

    async def run(self, ctx: StageContext) -> None:
        """Answer, judge, count."""
        ctx.publish("measurements", [await _judging.compare(ctx, "coherence", "Better reply, by a judge", [])])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `coherence`."""
    return [CoherenceStage]
