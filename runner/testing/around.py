"""The stages around the one that is tested: those that publish the given rows, and one that keeps the published."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from charrun.errors import StageFailed
from charrun.stage import Row, Stage
from charrun.store.canonical import digest
from charrun.usage import Usage

if TYPE_CHECKING:
    from charrun.pipeline.context import StageContext

KEEPER = "charrun-testing-keeper"


def giving(kind: str, rows: Sequence[Row], reserve: Sequence[Row]) -> type[Stage]:
    """A stage that publishes rows of a kind, and as many of the reserve as later stages ask for."""

    class Given(Stage):
        name: ClassVar[str] = f"given-{kind}"
        summary: ClassVar[str] = f"the {kind} that the test gives"
        produces: ClassVar[tuple[str, ...]] = (kind,)
        character_fields: ClassVar[tuple[str, ...]] = ()
        identity: ClassVar[Literal["rows", "lineage", "content"]] = "rows"

        def further_inputs(self, ctx: StageContext) -> Any:
            return digest([list(rows), list(reserve)])

        async def run(self, ctx: StageContext) -> None:
            if ctx.extra > len(reserve):
                raise StageFailed(
                    f"{ctx.extra} more {kind} were asked for, and the test holds {len(reserve)} in reserve",
                    f"give more: reserve={{{kind!r}: [...]}}",
                )
            ctx.publish(kind, [*rows, *reserve[: ctx.extra]])

    return Given


class Kept:
    """What the keeper saw of a stage: its rows by kind, and whether it was found done.

    Attributes:
        rows: Published rows by kind.
        usage: What the run asked of the engine; all zero where the stage was found done.
        cached: Whether the stage was found done.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.usage = Usage()
        self.cached = False


def keeping(id: str, kinds: Sequence[str], kept: Kept) -> type[Stage]:
    """A stage that hands the rows of another one to the test; it runs anew each time, found done or not."""

    class Keeper(Stage):
        name: ClassVar[str] = KEEPER
        summary: ClassVar[str] = "hands the rows to the test"
        consumes: ClassVar[tuple[str, ...]] = tuple(kinds)
        character_fields: ClassVar[tuple[str, ...]] = ()

        def further_inputs(self, ctx: StageContext) -> Any:
            return uuid.uuid4().hex

        async def run(self, ctx: StageContext) -> None:
            kept.rows = {kind: await ctx.rows(kind) for kind in kinds}
            (result,) = [result for result in ctx.finished() if result.id == id]
            kept.cached = result.cached
            kept.usage = Usage() if result.cached else result.usage

    return Keeper
