"""Preference pairs: the teacher's answer over the student's, after the gates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Row, Stage, StageFailed, assistant, hookimpl, user
from charrun.plugins._gates import fault_of
from charrun.plugins._training import MAX_LENGTH

if TYPE_CHECKING:
    from charrun import StageContext

_ROUNDS = 20


class PairsStage(Stage):
    """Exactly the scale's number of pairs. What a gate drops is counted by reason and topped up."""

    name: ClassVar[str] = "pairs"
    summary: ClassVar[str] = "gates, then preference pairs"
    consumes: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    produces: ClassVar[tuple[str, ...]] = ("pairs",)
    roles: ClassVar[tuple[str, ...]] = ("student",)
    measures: ClassVar[tuple[str, ...]] = ("student",)
    character_fields: ClassVar[tuple[str, ...]] = ()
    identity: ClassVar[Literal["rows", "lineage", "content"]] = "lineage"
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "most_dropped": {
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 0.5,
                "description": "Stop when the gates drop more than this share: the data are not fit to train on.",
            },
            "shuffle": {
                "type": "boolean",
                "default": False,
                "description": "Exchange chosen and rejected in a random half of the pairs, as a control.",
            },
            "max_length": MAX_LENGTH,
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """The scale's pairs."""
        return Estimate(rows=ctx.scale.pairs)

    async def run(self, ctx: StageContext) -> None:
        """Pair, gate, and ask for more until there are enough."""
        wanted = ctx.scale.pairs + ctx.extra
        ctx.total(wanted)
        chosen, rejected = await ctx.rows("chosen"), await ctx.rows("rejected")
        too_long = await _too_long(ctx)
        for _ in range(_ROUNDS):
            pairs, dropped = pair(chosen, rejected, too_long)
            lost = sum(dropped.values())
            if lost > ctx.options["most_dropped"] * len(chosen):
                raise StageFailed(
                    f"the gates dropped {lost} of {len(chosen)} pairs: {_listed(dropped)}",
                    f"read {ctx.folder.parent} to see why, or raise pairs.most_dropped",
                )
            if len(pairs) >= wanted:
                break
            missing = wanted - len(pairs)
            ctx.log(f"{missing} more needed: the gates dropped {_listed(dropped)}")
            chosen = await ctx.extend("chosen", missing)
            rejected = await ctx.extend("rejected", missing)
        else:
            raise StageFailed(f"{_ROUNDS} rounds of top-ups did not give {wanted} pairs: {_listed(dropped)}")
        ctx.write("gates.json", {"pairs": wanted, "answers": len(chosen), "dropped": dict(dropped)})
        if lost:
            ctx.log(f"the gates dropped {_listed(dropped)} of {len(chosen)}, all made up for")
        told = [exchanged(ctx, row) for row in pairs] if ctx.options["shuffle"] else pairs
        ctx.publish("pairs", told[:wanted])
        ctx.advance(wanted)


def exchanged(ctx: StageContext, row: Row) -> Row:
    """A pair that prefers one answer or the other by chance, the same one each time."""
    if ctx.rng("shuffle", row["id"]).random() < 0.5:
        return row
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"]}


async def _too_long(ctx: StageContext) -> Callable[[Row], bool]:
    """Whether a row with its prompt, as the student renders them, has more tokens than `max_length`."""
    longest = ctx.options.get("max_length")
    if longest is None:
        return lambda row: False
    chat = (await ctx.sampler("student")).chat

    def is_longer(row: Row) -> bool:
        (whole,) = chat.rows([user(row["prompt"]), assistant(row["answer"])])
        return bool(len(whole.tokens) > longest)

    return is_longer


def pair(
    chosen: list[Row], rejected: list[Row], too_long: Callable[[Row], bool] = lambda row: False
) -> tuple[list[Row], Counter[str]]:
    """Pairs by row id in the chosen rows' order, and how many the gates dropped by reason."""
    own = {row["id"]: row for row in rejected}
    dropped: Counter[str] = Counter()
    pairs: list[Row] = []
    for row in chosen:
        other = own.get(row["id"])
        if other is None:
            continue
        fault = _fault(row, other) or ("too long" if too_long(row) or too_long(other) else "")
        if fault:
            dropped[fault] += 1
        else:
            pairs.append(
                {
                    "id": row["id"],
                    "prompt": row["prompt"],
                    "chosen": row["answer"],
                    "rejected": other["answer"],
                }
            )
    return pairs, dropped


def _fault(chosen: Row, rejected: Row) -> str:
    for side, row in (("chosen", chosen), ("rejected", rejected)):
        fault = fault_of(row["answer"], complete=row["complete"])
        if fault:
            return f"{side} {fault}"
    return "both answers equal" if chosen["answer"] == rejected["answer"] else ""


def _listed(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.most_common()) or "none"


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `pairs`."""
    return [PairsStage]
