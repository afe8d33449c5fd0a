"""Sequences in flight: in their order, as many as fit, and fewer where the engine turns some away."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from charrun.pipeline import slots
from charrun.pipeline.slots import FIRST, Slots


def test_requests_pass_in_their_order_as_many_as_fit() -> None:
    async def run() -> list[str]:
        room, seen = Slots(), []
        room.limit = 10
        most = 0

        async def request(name: str, sequences: int, seconds: float) -> None:
            nonlocal most
            async with room.of(sequences):
                seen.append(name)
                most = max(most, room.taken)
                await asyncio.sleep(seconds)

        wide = asyncio.create_task(request("too wide", 16, 0.02))  # more than the limit: alone
        others = [asyncio.create_task(request(name, n, 0.01)) for name, n in (("a", 6), ("b", 6), ("c", 1))]
        await asyncio.gather(wide, *others)
        assert most == 16 and room.taken == 0
        return seen

    assert asyncio.run(run()) == ["too wide", "a", "b", "c"]


def test_a_stage_that_asks_for_everything_at_once_leaves_room_for_the_others() -> None:
    async def run() -> tuple[list[str], int]:
        room, seen = Slots(), []
        room.limit = 8

        async def request(stage: str, sequences: int) -> None:
            async with room.of(sequences, stage):
                seen.append(stage)
                await asyncio.sleep(0.001)

        async def chain() -> None:
            for _ in range(4):
                await request("talk", 1)

        many = [asyncio.create_task(request("many", 4)) for _ in range(12)]
        await asyncio.sleep(0)
        await asyncio.gather(*many, *(chain() for _ in range(3)))
        return seen, room.taken

    seen, taken = asyncio.run(run())
    assert taken == 0 and seen.count("many") == 12 and seen.count("talk") == 12
    last = len(seen) - 1 - seen[::-1].index("talk")
    assert seen[:last].count("many") < 8  # first in, first out would have let all twelve before


def test_small_requests_fill_what_large_ones_leave_and_neither_waits_for_the_end_of_the_other() -> None:
    async def run() -> tuple[list[tuple[str, int]], int]:
        room, seen = Slots(), []
        room.limit = 50

        async def request(stage: str, sequences: int) -> None:
            async with room.of(sequences, stage):
                seen.append((stage, room.taken))
                await asyncio.sleep(0.001 * (1 + len(seen) % 3))

        await asyncio.gather(*(request("large", 16) for _ in range(40)), *(request("small", 1) for _ in range(40 * 16)))
        return seen, room.taken

    seen, taken = asyncio.run(run())
    assert taken == 0 and len(seen) == 40 * 17
    middle = seen[len(seen) // 4 : 3 * len(seen) // 4]
    shares = {
        stage: sum(n for s, n in (("large", 16), ("small", 1)) for each, _ in middle if each == s == stage)
        for stage in ("large", "small")
    }
    assert 0.5 < shares["large"] / shares["small"] < 2
    assert sum(held == 50 for _, held in middle) > len(middle) // 2


def test_who_gives_up_leaves_no_gap() -> None:
    async def run() -> None:
        room = Slots()
        room.limit = 1
        entered = asyncio.Event()

        async def hold() -> None:
            async with room.of(1):
                entered.set()
                await asyncio.sleep(10)

        first = asyncio.create_task(hold())
        await entered.wait()
        entered.clear()
        second, third = asyncio.create_task(hold()), asyncio.create_task(hold())
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait_for(entered.wait(), 1)
        third.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert room.taken == 0

    asyncio.run(run())


def test_the_limit_learns_what_the_engine_takes() -> None:
    async def run() -> None:
        room, client = Slots(), SimpleNamespace(holder=SimpleNamespace(_sample_backoff_until=None))
        other = SimpleNamespace(holder=SimpleNamespace(_sample_backoff_until=None))
        room.answered(client, 1000)
        assert room.limit == FIRST  # it holds nothing back: nobody has seen what more there could be
        room._waiting = {"stage": [(0, 0, 1, asyncio.get_running_loop().create_future())]}
        for _ in range(40):
            room.answered(client, 10)
        assert room.limit == pytest.approx(FIRST + 20)
        room.taken = 300
        client.holder._sample_backoff_until = other.holder._sample_backoff_until = 12.5  # the SDK was turned away
        before = time.monotonic()
        room.answered(client, 10)
        assert room.limit == 297 and room._still_until >= before + 60
        until = room._still_until
        room.answered(client, 10)  # the same refusal
        room.answered(other, 10)  # and at the same time another client's
        assert room.limit == 297 and room._still_until == until
        room._still_until = 0.0
        room.answered(client, 10)
        assert room.limit == 297.5
        client.holder._sample_backoff_until = 47.5  # again: it waits longer before it tries once more
        before = time.monotonic()
        room.answered(client, 10)
        assert room.limit == 297 and room._still_until >= before + 120
        room._still_until = 0.0
        room.limit = slots.MOST
        room.answered(client, 1000)
        assert room.limit == slots.MOST
        room.answered(SimpleNamespace(), 1)  # a sampler of a stage's own

    asyncio.run(run())
