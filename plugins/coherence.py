"""Which of two answers is the better reply? The price of a character, in the eyes of a judge."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Stage, digest, hookimpl
from charrun.plugins import _judging
from charrun.plugins._judging import COMPARING_SCHEMA, TEMPLATES
from charrun.plugins._measured import pool

if TYPE_CHECKING:
    from charrun import StageContext


class CoherenceStage(Stage):
    """Win rate of each checkpoint over the base model as the more coherent, more helpful reply (Maiya et al., 2025).

    The judge knows of no character and is told to overlook tone. Both orders, consistent verdicts and those without
    one are counted as by `judge`. The paper compares with the prompted model: `against: prompted`. It passed where the
    final checkpoint's interval reaches a half: it is not shown to be the worse one.
    """

    name: ClassVar[str] = "coherence"
    summary: ClassVar[str] = "which answer is the better reply? a judge compares checkpoints with the base model"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    optional: ClassVar[tuple[str, ...]] = ("pairs", "reflections", "interactions")
    produces: ClassVar[tuple[str, ...]] = ("evaluation",)
    roles: ClassVar[tuple[str, ...]] = ("student", "judge")
    options_schema: ClassVar[dict[str, Any]] = COMPARING_SCHEMA
    templates: ClassVar[dict[str, Path]] = {name: TEMPLATES / f"{name}.j2" for name in ("character", "coherence")}

    def estimate(self, ctx: StageContext) -> Estimate:
        """See `_judging.estimate`."""
        return _judging.estimate(ctx)

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool that is too small."""
        return _judging.problems(ctx, self.name)

    def further_inputs(self, ctx: StageContext) -> Any:
        """The pool of held-out prompts."""
        return digest(pool())

    async def run(self, ctx: StageContext) -> None:
        """Answer, judge, count."""
        row = await _judging.compare(ctx, "coherence", ctx.character, [])
        final = row["comparisons"][-1]
        passed = final["reported"] and final["rates"][0]["high"] >= 0.5
        ctx.publish("evaluation", [{**row, "passed": passed}])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `coherence`."""
    return [CoherenceStage]
