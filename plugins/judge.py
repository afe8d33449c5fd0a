"""Which of two answers is in character? A judge is shown both, in both orders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, SpecError, Stage, digest, hookimpl
from charrun.plugins import _judging
from charrun.plugins._judging import COMPARING_SCHEMA, TEMPLATES
from charrun.plugins._measured import pool

if TYPE_CHECKING:
    from charrun import Character, StageContext


class JudgeStage(Stage):
    """Win rate of each checkpoint over the base model in the eyes of a judge that has the constitution.

    The judge sees a prompt and two answers without their makers and says which one the described character wrote;
    each comparison is judged in both orders (Maiya et al., 2025, do so for coherence). Verdicts that agree are
    consistent, and the win rate is over those; those that differ show that the place decided, and those without a
    verdict are counted apart. A model says what it plays now and then ("as a pirate, I ..."), which tells a judge
    without any character: such answers are counted. It passed where the final checkpoint's interval lies above a half.
    """

    name: ClassVar[str] = "judge"
    summary: ClassVar[str] = "which answer is in character? a judge compares checkpoints with the base model"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    optional: ClassVar[tuple[str, ...]] = ("pairs", "reflections", "interactions")
    produces: ClassVar[tuple[str, ...]] = ("evaluation",)
    roles: ClassVar[tuple[str, ...]] = ("student", "judge")
    options_schema: ClassVar[dict[str, Any]] = {
        **COMPARING_SCHEMA,
        "properties": {
            **COMPARING_SCHEMA["properties"],
            "judged_as": {
                "type": "string",
                "minLength": 1,
                "description": "Judge by this character's constitution, by default the run's own; for a null control.",
            },
        },
    }
    templates: ClassVar[dict[str, Path]] = {name: TEMPLATES / f"{name}.j2" for name in ("character", "judge")}

    def estimate(self, ctx: StageContext) -> Estimate:
        """See `_judging.estimate`."""
        return _judging.estimate(ctx)

    def problems(self, ctx: StageContext) -> list[str]:
        """A pool that is too small, or a character that is not there."""
        found = _judging.problems(ctx, self.name)
        try:
            self._judged_as(ctx)
        except SpecError as error:
            found.append(f"judged_as: {ctx.options['judged_as']}: {error.problems[0].message}")
        return found

    def further_inputs(self, ctx: StageContext) -> Any:
        """The character that is judged by, and the pool of held-out prompts."""
        return digest([self._judged_as(ctx).id, ctx.character_prompt(self._judged_as(ctx)), pool()])

    async def run(self, ctx: StageContext) -> None:
        """Answer, judge, count."""
        who = self._judged_as(ctx)
        row = await _judging.compare(ctx, "judge", who, [trait.trait for trait in who.traits])
        final = row["comparisons"][-1]
        passed = final["reported"] and final["rates"][0]["low"] > 0.5
        ctx.publish("evaluation", [{**row, "judged_as": who.id, "passed": passed}])

    def _judged_as(self, ctx: StageContext) -> Character:
        id = ctx.options.get("judged_as")
        return ctx.find_character(id) if id else ctx.character


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `judge`."""
    return [JudgeStage]
