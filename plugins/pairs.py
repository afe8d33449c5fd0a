"""Preference pairs: the teacher's answer over the student's, after the gates."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun import Estimate, Row, Stage, StageFailed, hookimpl
from charrun.plugins._gates import fault_of

if TYPE_CHECKING:
    from charrun import StageContext

_ROUNDS = 20


class PairsStage(Stage):
    """Exactly the scale's number of pairs. What a gate drops is counted by reason and topped up."""

    name: ClassVar[str] = "pairs"
    summary: ClassVar[str] = "gates, then preference pairs"
    consumes: ClassVar[tuple[str, ...]] = ("chosen", "rejected")
    produces: ClassVar[tuple[str, ...]] = ("pairs",)
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
            }
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
        for _ in range(_ROUNDS):
            pairs, dropped = pair(chosen, rejected)
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
        ctx.publish("pairs", pairs[:wanted])
        ctx.advance(wanted)


def pair(chosen: list[Row], rejected: list[Row]) -> tuple[list[Row], Counter[str]]:
    """Pairs by row id in the chosen rows' order, and how many the gates dropped by reason."""
    own = {row["id"]: row for row in rejected}
    dropped: Counter[str] = Counter()
    pairs: list[Row] = []
    for row in chosen:
        other = own.get(row["id"])
        if other is None:
            continue
        fault = _fault(row, other)
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
        fault = row.get("fault") or fault_of(row["answer"], complete=row["complete"])
        if fault:
            return f"{side} {fault}"
    return "both answers equal" if chosen["answer"] == rejected["answer"] else ""


def _listed(dropped: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in dropped.most_common()) or "none"


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `pairs`."""
    return [PairsStage]
