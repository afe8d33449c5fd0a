"""Which of two answers is the better reply? The price of a character, in the eyes of a judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Stage, hookimpl
from charrun.plugins import _evaluation as evaluation
from charrun.plugins import _judging

if TYPE_CHECKING:
    from charrun import StageContext


class CoherenceStage(Stage):
    """Win rate of each checkpoint over the base model as the more coherent, more helpful reply (Maiya et al., 2025).

    The judge knows of no character and is told to overlook style. Both orders, consistent verdicts and those that
    cannot be read are counted as by `judge`. The paper compares with the prompted model: `against: prompted`.
    """

    name: ClassVar[str] = "coherence"
    summary: ClassVar[str] = "which answer is the better reply? a judge compares checkpoints with the base model"
    consumes: ClassVar[tuple[str, ...]] = evaluation.CONSUMES
    instead: ClassVar[Mapping[str, str]] = evaluation.INSTEAD
    optional: ClassVar[tuple[str, ...]] = evaluation.OPTIONAL
    produces: ClassVar[tuple[str, ...]] = ("measurements",)
    roles: ClassVar[tuple[str, ...]] = ("student", "judge")
    options_schema: ClassVar[dict[str, Any]] = _judging.COMPARING_SCHEMA
    templates: ClassVar[dict[str, Path]] = {
        name: evaluation.TEMPLATES / f"{name}.j2" for name in ("character", "coherence")
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
        ctx.publish("measurements", [await _judging.compare(ctx, "coherence", "Better reply, by a judge", [])])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `coherence`."""
    return [CoherenceStage]
