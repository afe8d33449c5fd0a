"""Self-reflection: the DPO checkpoint writes about itself (Maiya et al., 2025, introspection)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Estimate, Row, Stage, StageFailed, hookimpl, system, user
from charrun.plugins._answers import OPTIONS_SCHEMA, WRITER, writer_of
from charrun.plugins._audit import REFLECTIONS_AUDIT, audit_texts, audited
from charrun.plugins._gates import GATES, Fault
from charrun.plugins._lines import empty_lists, lines_of
from charrun.plugins._tally import (
    FIRST,
    MOST_DROPPED,
    Tally,
    check_dropped,
    check_first,
    distinct,
    first_of,
    gates_of,
)

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
            "most_dropped": MOST_DROPPED,
            "audit": REFLECTIONS_AUDIT,
        },
    }
    templates: ClassVar[dict[str, Path]] = {
        name: TEMPLATES / f"{name}.j2" for name in ("character", "reflection", "reflection_prompts")
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """One row a reflection."""
        return Estimate(rows=ctx.scale.reflections, requests=-(-ctx.scale.reflections // 16))

    def problems(self, ctx: StageContext) -> list[str]:
        """Nothing to reflect on, or a prompt without its traits."""
        ctx.character_prompt(template="reflection")
        return empty_lists(ctx, ["reflection_prompts"])

    async def run(self, ctx: StageContext) -> None:
        """Sample each kind until it has its share of sound reflections."""
        wanted = ctx.scale.reflections + ctx.extra
        prompts = lines_of(ctx, "reflection_prompts")
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

        faults: list[list[Fault | None]] = [[] for _ in prompts]

        def sound_of(kind: int, answers: Sequence[Answer], own: Tally) -> list[Row]:
            """Rows of those that the gates let pass, no two of them near-duplicates; each is judged once."""
            known, rows = faults[kind], list[Row]()
            known += [
                gates.fault(answer.text, complete=answer.complete, prompt=prompts[kind])
                for answer in answers[len(known) :]
            ]
            for answer, fault in zip(answers, known, strict=True):
                row = _row(kind, prompts[kind], answer)
                if own.count(fault, answer.text, row["id"]):
                    rows.append(row)
            return distinct(rows, [row["text"] for row in rows], gates, own)

        first = first_of(ctx, wanted)
        if 0 < first < wanted:
            early, each, passed = Tally(), -(-first // len(prompts)), list[str]()
            for kind, held in enumerate(await ctx.gather([ask(kind, each) for kind in range(len(prompts))])):
                own = Tally()
                passed += [row["text"] for row in sound_of(kind, held, own)]
                early.add(own)
            check_first(ctx, "reflection", early, passed)

        async def reflect(kind: int) -> list[Row]:
            share = shares[kind]
            asked, came = share - (share // _HELD_BACK if share >= _LARGE else 0), 0

            def arrived(n: int) -> None:
                nonlocal came
                ctx.advance(min(came + n, share) - min(came, share))
                came += n

            for _ in range(_ROUNDS):
                arrived(-came)  # those that are known count again at once
                own = Tally()
                sound = sound_of(kind, await ask(kind, asked, arrived), own)[:share]
                if len(sound) == share:
                    tallies[kind] = own
                    return sound
                check_dropped(ctx, "reflection", own, f"texts of kind {kind + 1}")
                asked += own.to_get(share - len(sound))
            raise StageFailed(
                f"reflection kind {kind + 1} gave {len(sound)} sound texts of {own.judged}, {share} were wanted: "
                f"{own.listed()}",
                f"read {ctx.folder}/items.jsonl; where they are cut, raise reflection.max_tokens; where they repeat "
                "each other, raise reflection.temperature or its gates.near_duplicate",
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
