"""Rejected answers: the student as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Stage, hookimpl
from charrun.plugins._answers import ANSWERED_SCHEMA, answer_prompts, estimate
from charrun.plugins._gates import PLAIN, Gates

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
    options_schema: ClassVar[dict[str, Any]] = ANSWERED_SCHEMA

    def estimate(self, ctx: StageContext) -> Estimate:
        """One answer a prompt and sample."""
        return estimate(ctx)

    async def run(self, ctx: StageContext) -> None:
        """Sample the student's own answers."""
        gates = Gates({**ctx.options["gates"], **PLAIN, "other_script": 0, "other_language": False}, idle=ctx.dry)
        await answer_prompts(ctx, "student", "rejected", [], gates)


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `student`."""
    return [StudentStage]
