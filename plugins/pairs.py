"""Preference pairs: the teacher's answer over the student's, after the gates."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from charrun import Estimate, Row, Stage, StageFailed, assistant, hookimpl, user
from charrun.plugins._answers import own_fault
from charrun.plugins._audit import PAIRS_AUDIT, audit_pairs, audited
from charrun.plugins._gates import GATES, Fault, Gates
from charrun.plugins._tally import Tally, distinct, gates_of
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
    cache_version: ClassVar[int] = 2
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
            "gates": GATES,
            "audit": PAIRS_AUDIT,
        },
        "additionalProperties": False,
    }

    def estimate(self, ctx: StageContext) -> Estimate:
        """The scale's pairs."""
        return Estimate(rows=ctx.scale.pairs)

    def further_inputs(self, ctx: StageContext) -> Any:
        """The spec's other characters, whose cues are dropped."""
        others = [other for other in ctx.characters if other.id != ctx.character.id]
        return sorted([other.name, *(trait.trait for trait in other.traits)] for other in others)

    async def run(self, ctx: StageContext) -> None:
        """Pair, gate, and ask for more until there are enough."""
        wanted = ctx.scale.pairs + ctx.extra
        ctx.total(wanted)
        chosen, rejected = await ctx.rows("chosen"), await ctx.rows("rejected")
        gates, too_long = gates_of(ctx, ctx.characters), await _too_long(ctx)
        judged: Judged = {}
        for _ in range(_ROUNDS):
            pairs, dropped = pair(chosen, rejected, gates, too_long, judged)
            lost = dropped.lost
            if lost > ctx.options["most_dropped"] * len(chosen):
                ctx.write("gates.json", dropped.report())
                raise StageFailed(
                    f"the gates dropped {lost} of {len(chosen)} pairs: {dropped.listed()}",
                    f"read {ctx.folder}/gates.json to see why, or raise pairs.most_dropped",
                )
            if len(pairs) >= wanted:
                break
            missing = wanted - len(pairs)
            ctx.log(f"{missing} more needed: the gates dropped {dropped.listed()}")
            more = dropped.to_get(missing)
            # Where one side fails, what the other has asked for is awaited: it is paid.
            chosen, rejected = await _both(ctx.extend("chosen", more), ctx.extend("rejected", more))
        else:
            raise StageFailed(f"{_ROUNDS} rounds of top-ups did not give {wanted} pairs: {dropped.listed()}")
        ctx.write("gates.json", {"pairs": wanted, "answers": len(chosen), **dropped.report()})
        if lost:
            ctx.log(f"the gates dropped {dropped.listed()} of {len(chosen)}, all made up for")
        sides = ([row[side] for row in pairs[:wanted]] for side in ("chosen", "rejected"))
        audited(ctx, audit_pairs(*sides))
        told = [exchanged(ctx, row) for row in pairs] if ctx.options["shuffle"] else pairs
        ctx.publish("pairs", told[:wanted])
        ctx.advance(wanted)


async def _both(one: Awaitable[list[Row]], other: Awaitable[list[Row]]) -> tuple[list[Row], list[Row]]:
    """Both, and the first error once both have ended."""
    import asyncio

    found = await asyncio.gather(one, other, return_exceptions=True)
    for each in found:
        if isinstance(each, BaseException):
            raise each
    return cast("tuple[list[Row], list[Row]]", tuple(found))


def exchanged(ctx: StageContext, row: Row) -> Row:
    """A pair that prefers one answer or the other by chance, the same one each time."""
    if ctx.rng("shuffle", row["id"]).random() < 0.5:
        return row
    return {**row, "chosen": row["rejected"], "rejected": row["chosen"], "exchanged": True}


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


Judged = dict[str, tuple[str, Fault | None]]
"""By row id which answer of a pair is at fault, and why."""


def pair(
    chosen: Sequence[Row],
    rejected: Sequence[Row],
    gates: Gates,
    too_long: Callable[[Row], bool] = lambda row: False,
    judged: Judged | None = None,
) -> tuple[list[Row], Tally]:
    """Pairs by row id in the chosen rows' order, and what the gates dropped.

    Args:
        chosen: The teacher's answers.
        rejected: The student's.
        gates: What judges them.
        too_long: Whether an answer with its prompt is.
        judged: Rows that were judged before, as a top-up finds them; those that are now are added.
    """
    own = {row["id"]: row for row in rejected}
    plain, tally, known = gates.plain(), Tally(), {} if judged is None else judged
    pairs: list[Row] = []
    for row in chosen:
        other = own.get(row["id"])
        if other is None:
            continue
        if row["id"] not in known:
            known[row["id"]] = _fault(row, other, gates, plain, too_long)
        side, fault = known[row["id"]]
        if tally.count(fault, (other if side == "rejected" else row)["answer"], row["id"], side):
            texts = {"chosen": row["answer"], "rejected": other["answer"]}
            pairs.append({"id": row["id"], "prompt": row["prompt"], **texts})
    return distinct(pairs, [row["chosen"] for row in pairs], gates, tally, "chosen"), tally


def _fault(
    chosen: Row, rejected: Row, gates: Gates, plain: Gates, too_long: Callable[[Row], bool]
) -> tuple[str, Fault | None]:
    for side, row, judge in (("chosen", chosen, gates), ("rejected", rejected, plain)):
        if fault := own_fault(row) or judge.fault(row["answer"], complete=row["complete"], prompt=row["prompt"]):
            return side, fault
    if chosen["answer"] == rejected["answer"]:
        return "", Fault("both answers equal")
    long = next((side for side, row in (("rejected", rejected), ("chosen", chosen)) if too_long(row)), "")
    return long, Fault("too long") if long else None


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `pairs`."""
    return [PairsStage]
