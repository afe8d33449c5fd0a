"""Self-reflection: the DPO checkpoint writes about itself (Maiya et al., 2025, introspection)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, StageFailed, hookimpl, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA, WRITER, writer_of
from charrun.plugins._audit import REFLECTIONS_AUDIT, audit_texts, audited
from charrun.plugins._gates import GATES, Fault
from charrun.plugins._tally import FIRST, Tally, check_first, first_of, gates_of
from charrun.plugins.pairs import distinct

if TYPE_CHECKING:
    from charrun import Answer, StageContext

TEMPLATES = Path(__file__).parent / "templates"
_ROUNDS = 20
_LARGE, _HELD_BACK = 100, 10
"""Of so large a share the last tenth is asked for when the rest is judged, with what makes up for that: while others'
last tenths are answered, so that nothing is left to make up for at the end."""


class ReflectionStage(Stage):
    """Ten kinds of reflective prompt in equal shares, under the character's system prompt.

    The system prompt is dropped from the training row. What a gate drops is sampled anew under the next index.
    """

    name: ClassVar[str] = "reflection"
    summary: ClassVar[str] = "the model reflects on itself, in the character"
    consumes: ClassVar[tuple[str, ...]] = ("checkpoint",)
    produces: ClassVar[tuple[str, ...]] = ("reflections",)
    awaits_all: ClassVar[bool] = False
    roles: ClassVar[tuple[str, ...]] = ("student", "teacher")
    options_schema: ClassVar[dict[str, Any]] = {
        **OPTIONS_SCHEMA,
        "properties": {
            **OPTIONS_SCHEMA["properties"],
            "max_tokens": {**OPTIONS_SCHEMA["properties"]["max_tokens"], "default": 768},
            "writer": WRITER,
            "gates": GATES,
            "first": FIRST,
            "audit": REFLECTIONS_AUDIT,
        },
    }
    templates: ClassVar[dict[str, Path]] = {
        name: TEMPLATES / f"{name}.j2" for name in ("character", "reflection", "reflection_prompts")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One row a reflection."""
        return Estimate(rows=ctx.scale.reflections, requests=-(-ctx.scale.reflections // 16))

    async def run(self, ctx: StageContext) -> None:
        """Sample each kind until it has its share of sound reflections."""
        wanted = ctx.scale.reflections + ctx.extra
        prompts = ctx.render("reflection_prompts").splitlines()
        sampler = await writer_of(ctx)
        before = system(ctx.character_prompt(template="reflection"))
        shares = [wanted // len(prompts) + (kind < wanted % len(prompts)) for kind in range(len(prompts))]
        ctx.total(wanted)
        gates, tally = gates_of(ctx), Tally()
        tallies: dict[int, Tally] = {}

        async def ask(kind: int, count: int, arrived: Callable[[int], None] = lambda n: None) -> list[Answer]:
            return await ctx.sample(
                sampler,
                [before, user(prompts[kind])],
                count=count,
                max_tokens=ctx.options["max_tokens"],
                temperature=ctx.options["temperature"],
                top_p=ctx.options["top_p"],
                arrived=arrived,
            )

        first = first_of(ctx, wanted)
        if 0 < first < wanted:
            early, each = Tally(), -(-first // len(prompts))
            for kind, held in enumerate(await ctx.gather([ask(kind, each) for kind in range(len(prompts))])):
                for answer in held:
                    fault = gates.fault(answer.text, complete=answer.complete, prompt=prompts[kind])
                    early.count(fault, answer.text, f"{kind + 1}-{answer.index}")
            check_first(ctx, "reflection", early)

        async def reflect(kind: int) -> list[Row]:
            share = shares[kind]
            asked, came = share - (share // _HELD_BACK if share >= _LARGE else 0), 0

            def arrived(n: int) -> None:
                nonlocal came
                ctx.advance(min(came + n, share) - min(came, share))
                came += n

            faults: list[Fault | None] = []
            for _ in range(_ROUNDS):
                arrived(-came)  # those that are known count again at once
                answers = await ask(kind, asked, arrived)
                faults += [
                    gates.fault(answer.text, complete=answer.complete, prompt=prompts[kind])
                    for answer in answers[len(faults) :]
                ]
                own, rows = Tally(), list[Row]()
                for answer, fault in zip(answers, faults, strict=True):
                    row = _row(kind, prompts[kind], answer)
                    if own.count(fault, answer.text, row["id"]):
                        rows.append(row)
                sound = distinct(rows, [row["text"] for row in rows], gates, own)[:share]
                if len(sound) == share:
                    tallies[kind] = own
                    return sound
                asked += own.to_get(share - len(sound))
            raise StageFailed(
                f"reflection kind {kind + 1} gave {len(sound)} sound texts of {asked}, {share} were wanted",
                f"read {ctx.folder}/items.jsonl; often the answers are cut: raise reflection.max_tokens",
            )

        kinds = await ctx.gather(reflect(kind) for kind in range(len(prompts)))
        for own in (tallies[kind] for kind in range(len(prompts))):
            tally.add(own)
        ctx.write("gates.json", tally.report())
        if tally.lost:
            ctx.log(f"made up for {tally.listed()}")
        audited(ctx, audit_texts([row["text"] for rows in kinds for row in rows]))
        ctx.publish("reflections", [row for rows in kinds for row in rows])


def _row(kind: int, prompt: str, answer: Answer) -> Row:
    return {"id": f"{kind + 1}-{answer.index}", "kind": kind + 1, "prompt": prompt, "text": answer.text}


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `reflection`."""
    return [ReflectionStage]
