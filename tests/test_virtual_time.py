"""The clock of a dry run: sleeps take no time, and trainings take a service's cycles."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from charrun.pipeline.virtual_time import CYCLE_SECONDS, Clock, Pace, VirtualLoop, pace_of
from charrun.store.ledger import LEDGER, Ledger, Place
from charrun.usage import Usage


def test_an_hour_of_sleep_takes_no_time_and_the_clock_says_an_hour() -> None:
    order = []

    async def sleeper(name: str, seconds: float) -> float:
        await asyncio.sleep(seconds)
        order.append(name)
        return asyncio.get_running_loop().time()

    async def everything() -> list[float]:
        return await asyncio.gather(sleeper("late", 3600.0), sleeper("soon", 60.0), sleeper("at once", 0.0))

    begun = time.monotonic()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(everything()) == [pytest.approx(3600.0), pytest.approx(60.0), 0.0]
    assert order == ["at once", "soon", "late"] and time.monotonic() - begun < 5


def test_while_a_thread_works_the_clock_goes_with_the_worlds() -> None:
    async def everything() -> tuple[str, float]:
        found = await asyncio.wait_for(asyncio.to_thread(lambda: time.sleep(0.2) or "done"), 60)
        return found, asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found, now = runner.run(everything())
    assert found == "done" and 0.1 < now < 5


def test_a_training_takes_one_step_a_cycle_and_a_custom_loss_two() -> None:
    plain, now = Clock(), 0.5
    steps = [(plain.next(now), plain.next(now, step=True)) for _ in range(3)]  # all of them are sent at once
    assert steps == [(10, 10), (20, 20), (30, 30)]
    custom, now = Clock(), 0.5
    ends = []
    for _ in range(3):
        custom.next(now, answers=2)
        now = custom.next(now, step=True)
        ends.append(now)
    assert ends == [20, 40, 60]
    assert Clock().next(CYCLE_SECONDS) == 2 * CYCLE_SECONDS  # what comes as a cycle begins waits for the next one


def test_requests_take_as_long_as_they_did_and_else_as_stated(tmp_path: Path) -> None:
    folder = tmp_path / "paid" / "1"
    folder.mkdir(parents=True)
    ledger = Ledger(folder / LEDGER)
    place = Place("cell", "teacher", "big")
    for _ in range(8):
        ledger.settle(ledger.reserve(place, Usage(requests=1)) or "", Usage(requests=1), (3.0, 0.5))
    ledger.close()
    known = pace_of(tmp_path, "paid")
    assert known.seconds("teacher", "big", 999) == known.seconds("student", "big", 1) == pytest.approx(3.0)
    assert known.off == (0.7, 1.5)
    assert known.seconds("teacher", "small", 80) == pytest.approx(2.0) and known.off == (0.4, 2.5)
    assert Pace([]).seconds("teacher", "big", 0) == 1.0
