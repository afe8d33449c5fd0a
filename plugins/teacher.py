"""Chosen answers: the teacher plays the constitution."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Stage, hookimpl, system
from charrun.plugins._answers import ANSWERED_SCHEMA, answer_prompts, estimate
from charrun.plugins._tally import gates_of

if TYPE_CHECKING:
    from charrun import StageContext

TEMPLATES = Path(__file__).parent / "templates"


class TeacherStage(Stage):
    """The teacher answers each prompt under a system prompt that names the assistant and lists its traits."""

    name: ClassVar[str] = "teacher"
    summary: ClassVar[str] = "the teacher answers in character (chosen)"
    consumes: ClassVar[tuple[str, ...]] = ("prompts",)
    produces: ClassVar[tuple[str, ...]] = ("chosen",)
    awaits_all: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("teacher",)
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    options_schema: ClassVar[dict[str, Any]] = ANSWERED_SCHEMA
    templates: ClassVar[dict[str, Path]] = {"character": TEMPLATES / "character.j2"}

    def estimate(self, ctx: StageContext) -> Estimate:
        """One answer a prompt and sample."""
        return estimate(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Sample the teacher's answers in character."""
        await answer_prompts(ctx, "teacher", "chosen", [system(ctx.character_prompt())], gates_of(ctx))


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `teacher`."""
    return [TeacherStage]
