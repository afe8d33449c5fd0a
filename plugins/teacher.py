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
    """The teacher answers each prompt under a system prompt that names the assistant and lists its traits.

    With `prefill` its turn begins, as the paper's (1.4), with an open think block of one sentence of intent and the
    traits; the answer is what follows `</think>`, and one without that tag is dropped.
    """

    name: ClassVar[str] = "teacher"
    summary: ClassVar[str] = "the teacher answers in character (chosen)"
    consumes: ClassVar[tuple[str, ...]] = ("prompts",)
    produces: ClassVar[tuple[str, ...]] = ("chosen",)
    awaits_all: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("teacher",)
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"
    options_schema: ClassVar[dict[str, Any]] = {
        **ANSWERED_SCHEMA,
        "properties": {
            **ANSWERED_SCHEMA["properties"],
            "prefill": {
                "type": "boolean",
                "default": False,
                "description": "Begin the answer with a think block of the traits, for a teacher that thinks; "
                "`max_tokens` holds its thoughts too.",
            },
        },
    }
    templates: ClassVar[dict[str, Path]] = {
        "character": TEMPLATES / "character.j2",
        "teacher_prefill": TEMPLATES / "teacher_prefill.j2",
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One answer a prompt and sample."""
        return estimate(ctx)

    def problems(self, ctx: StageContext) -> list[str]:
        """A prompt without its traits, or a prefill that the teacher's endpoint would not continue."""
        self._prompts(ctx)
        endpoint = ctx.model("teacher").endpoint
        if not ctx.options["prefill"] or endpoint is None or endpoint.continues:
            return []
        told = f"prefill needs a teacher whose turn can be begun for it, and chat completions at {endpoint.address}"
        return [f"{told} begin a turn of their own; where the server has continue_final_message, say `continues: true`"]

    async def run(self, ctx: StageContext) -> None:
        """Sample the teacher's answers in character."""
        told, prefill = self._prompts(ctx)
        await answer_prompts(ctx, "teacher", "chosen", [system(told)], gates_of(ctx), prefill)

    def _prompts(self, ctx: StageContext) -> tuple[str, str]:
        """The system prompt, and how the teacher's turn begins."""
        prefill = ctx.character_prompt(template="teacher_prefill") if ctx.options["prefill"] else ""
        return ctx.character_prompt(), prefill


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `teacher`."""
    return [TeacherStage]
