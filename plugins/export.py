"""The final checkpoint as a PEFT adapter folder with its card."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, StageFailed, hookimpl
from charrun.plugins._training import checkpoint_note

if TYPE_CHECKING:
    from charrun import StageContext

TEMPLATES = Path(__file__).parent / "templates"
_NEEDED = ("adapter_config.json", "adapter_model.safetensors")


class ExportStage(Stage):
    """Downloads the last checkpoint's adapter and writes the card: character, models, rows, tokens, evaluation."""

    name: ClassVar[str] = "export"
    summary: ClassVar[str] = "the final checkpoint as a PEFT adapter with a card"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    optional: ClassVar[tuple[str, ...]] = ("evaluation",)
    produces: ClassVar[tuple[str, ...]] = ("adapter",)
    roles: ClassVar[tuple[str, ...]] = ("teacher", "student")

    def estimate(self, ctx: StageContext) -> Estimate:
        """One adapter."""
        return Estimate(rows=1, requests=2)

    def further_inputs(self, ctx: StageContext) -> Any:
        """What the card tells beside models, traits and evaluation."""
        who = ctx.character
        told = {"id": who.id, "description": who.description, "stand_ins": dict(ctx.stand_ins)}
        return told | {key: value for key, value in _rights(ctx).items() if value}

    async def run(self, ctx: StageContext) -> None:
        """Download, check, describe."""
        checkpoints = await ctx.rows("checkpoint")
        if not checkpoints:
            what = f"{ctx.producers('checkpoint')[-1]} has no checkpoint on this engine"
            raise StageFailed(what, "name another stage under needs")
        checkpoint = checkpoints[-1]
        evaluation = (await ctx.rows("evaluation"))[-1] if ctx.has("evaluation") else None
        ctx.total(1)
        folder = await ctx.download(checkpoint, "export", "adapter")
        lacking = [name for name in _NEEDED if not (folder / name).exists()]
        if lacking:
            raise StageFailed(f"the engine's adapter has no {', '.join(lacking)}")
        facts = self._facts(ctx, checkpoint, evaluation)
        ctx.write("adapter/charrun.json", facts)
        ctx.write("adapter/README.md", _card(facts))
        ctx.publish(
            "adapter",
            [
                {
                    "folder": f"store/{ctx.folder.name}/adapter",
                    "checkpoint": checkpoint["state"],
                    "weights_sha256": hashlib.sha256((folder / _NEEDED[1]).read_bytes()).hexdigest(),
                }
            ],
        )
        ctx.advance()

    def _facts(self, ctx: StageContext, checkpoint: Row, evaluation: Row | None) -> dict[str, Any]:
        from charrun import versions

        return {
            "character": {
                "id": ctx.character.id,
                "name": ctx.character.name,
                "description": ctx.character.description,
                "traits": [trait.trait for trait in ctx.character.traits],
                **_rights(ctx),
            },
            "base_model": checkpoint["base_model"],
            "teacher": ctx.model("teacher").name,
            "stand_in_for": dict(ctx.stand_ins),
            "scale": ctx.scale.name,
            "adapter": checkpoint_note(checkpoint["lora_rank"]),
            "checkpoint": checkpoint["state"],
            "exported": str(checkpoint.get("stage", "")),
            "stages": [
                {"id": result.id, "rows": dict(result.rows), "tokens": result.usage.to_dict()}
                for result in ctx.finished()
            ],
            "evaluation": evaluation,
            "versions": versions(),
        }


def _rights(ctx: StageContext) -> dict[str, str]:
    """What a constitution from elsewhere says of itself; empty where it says nothing."""
    return {"licence": ctx.character.licence, "source": ctx.character.source}


def _card(facts: dict[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["json"] = json.dumps
    return environment.from_string((TEMPLATES / "card.md.j2").read_text(encoding="utf-8")).render(**facts) + "\n"


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `export`."""
    return [ExportStage]
