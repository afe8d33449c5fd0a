"""Rejected answers: the student as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Stage, hookimpl
from charrun.plugins._answers import OPTIONS_SCHEMA, answer_prompts, estimate

if TYPE_CHECKING:
    from charrun import StageContext


class StudentStage(Stage):
    """The student answers each prompt bare, with no system prompt; its rows serve every character."""

    name: ClassVar[str] = "student"
    summary: ClassVar[str] = "the student answers as itself (rejected)"
    consumes: ClassVar[tuple[str, ...]] = ("prompts",)
    produces: ClassVar[tuple[str, ...]] = ("rejected",)
    awaits_all: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    options_schema: ClassVar[dict[str, Any]] = OPTIONS_SCHEMA

    def estimate(self, ctx: StageContext) -> Estimate:
        """One answer a prompt and sample."""
        return estimate(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Sample the student's own answers."""
        await answer_prompts(ctx, "student", "rejected", [])


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `student`."""
    return [StudentStage]
