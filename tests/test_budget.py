"""Prices, and what a run may spend: the contract of `charrun.pipeline.spending`, and the clients that are metered."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS, charrun

from charrun.errors import BudgetReached, EnvironmentProblem, StageFailed
from charrun.pipeline.meter import Meter, MeteredSampler, MeteredTrainer
from charrun.pipeline.spending import NotNow, Spending
from charrun.spec.prices import FREE, Cost, Rates, dollars, own_rates, picodollars
from charrun.store.ledger import LEDGER, Ledger, Place, read_ledger
from charrun.usage import Usage

RATES = Rates(prefill=680_000, cached=136_000, sample=1_700_000, train=None)
MODEL = Rates(prefill=100, cached=20, sample=1000, train=500)
PLACE = Place("cell", "teacher", "model")


# -- prices -------------------------------------------------------------------------------------------------------


def test_money_is_counted_in_whole_picodollars() -> None:
    assert own_rates({"prefill": 0.68, "sample": 1.7}) == RATES
    assert picodollars(5.7) == 5_700_000_000_000 and dollars(picodollars(0.1)) == 0.1
    assert MODEL.cost(Usage(prefill_tokens=3, cached_tokens=2, sampled_tokens=1)) == Cost(1340, 1340)
    assert MODEL.cost(Usage(forward_tokens=10, trained_tokens=10)) == Cost(6000, 10000)  # as prefill, or as training
    assert FREE.cost(Usage(prefill_tokens=10**9, trained_tokens=10**9)) == Cost()
    assert RATES.cost(Usage(trained_tokens=1)) is RATES.cost(Usage(forward_tokens=1)) is None  # nobody knows


# -- spending -----------------------------------------------------------------------------------------------------


@pytest.fixture
def broke() -> list[BudgetReached]:
    return []


@pytest.fixture
def spend(tmp_path: Path, broke: list[BudgetReached]) -> Iterator[Callable[..., Spending]]:
    made: list[Spending] = []

    def spending(usd: float | None, stages: dict[str, float] | None = None, rates: Rates | None = MODEL) -> Spending:
        def open_ledger(heard: Any) -> Ledger:
            return Ledger(tmp_path / LEDGER, heard)

        made.append(Spending(open_ledger, lambda model: rates, usd, stages or {}, broke.append))
        return made[-1]

    yield spending
    for each in made:
        each.close()


def test_an_answer_that_used_more_than_a_server_was_asked_for_stops_a_run_whose_budget_is_exceeded_by_it(
    spend: Callable[..., Spending], broke: list[BudgetReached]
) -> None:
    purse = spend(9000e-12, {"teacher": 5000e-12})
    one = Usage(sampled_tokens=1)
    purse.ended(purse.enter(PLACE, one), Usage(sampled_tokens=5))
    assert not broke  # the limit still holds
    purse = spend(9000e-12, {"teacher": 7000e-12})
    purse.ended(purse.enter(PLACE, one), Usage(sampled_tokens=3))
    (error,) = broke
    assert error.message == (
        "the budget of teacher is exceeded: $0.0000000080 of $0.0000000070 are spent, and model says that a request "
        "used 3 sampled tokens of 1 at most"
    )
    assert error.hint.endswith("a higher budget.stages.teacher") and error.exit_code == 6


def test_a_request_is_sent_only_if_the_most_that_it_can_cost_still_fits_the_budget(
    spend: Callable[..., Spending], broke: list[BudgetReached]
) -> None:
    purse = spend(3000e-12)  # three sampled tokens
    one, two = Usage(sampled_tokens=1), Usage(sampled_tokens=2)
    first = purse.enter(PLACE, two)
    with pytest.raises(NotNow):
        purse.enter(PLACE, two)
    assert not broke
    assert purse.settled() == Cost() and purse.held == 2000
    purse.ended(first, one)
    second = purse.enter(PLACE, two)  # to the last token
    purse.ended(second, two)
    assert purse.spent() == Cost(3000, 3000)
    with pytest.raises(BudgetReached, match=r"the budget is reached: .* the next request of teacher may cost"):
        purse.enter(PLACE, one)
    assert len(broke) == 1


def test_a_stage_has_a_budget_of_its_own(spend: Callable[..., Spending]) -> None:
    purse = spend(1.0, {"teacher": 1000e-12})
    purse.ended(purse.enter(PLACE, Usage(sampled_tokens=1)), Usage(sampled_tokens=1))
    with pytest.raises(BudgetReached, match="the budget of teacher is reached") as told:
        purse.enter(PLACE, Usage(sampled_tokens=1))
    assert "budget.stages.teacher" in told.value.hint
    purse.enter(Place("cell", "student", "model"), Usage(sampled_tokens=1))


def test_a_request_that_does_not_fit_waits_for_those_in_flight_to_end_and_then_stops_the_run(
    spend: Callable[..., Spending], broke: list[BudgetReached]
) -> None:
    purse = spend(5000e-12)
    three = Usage(sampled_tokens=3)

    async def waiting() -> None:
        first = purse.enter(PLACE, three)
        tasks = [asyncio.create_task(purse.when_it_fits(lambda: purse.enter(PLACE, three))) for _ in range(2)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        purse.ended(first, Usage(sampled_tokens=1))
        await asyncio.sleep(0.01)
        (number,) = [task.result() for task in tasks if task.done()]
        purse.ended(number, three)
        with pytest.raises(BudgetReached):
            await asyncio.gather(*tasks)

    asyncio.run(waiting())
    assert len(broke) == 1 and purse.spent() == Cost(4000, 4000)


def test_what_a_killed_process_had_in_flight_counts_at_the_most_that_it_can_cost(
    spend: Callable[..., Spending],
) -> None:
    spend(1.0).enter(PLACE, Usage(sampled_tokens=3))
    again = spend(4000e-12)  # another process; the first one's request has no end
    with pytest.raises(BudgetReached):
        again.enter(PLACE, Usage(sampled_tokens=2))
    again.enter(PLACE, Usage(sampled_tokens=1))


def test_a_stop_tells_what_is_spent_from_what_is_held_and_how_that_is_freed(
    spend: Callable[..., Spending], tmp_path: Path
) -> None:
    killed = spend(1.0)
    for _ in range(2):
        killed.enter(PLACE, Usage(sampled_tokens=3))
    killed.enter(Place("cell", "student", "model"), Usage(sampled_tokens=3))
    again = spend(1.0, {"teacher": 8000e-12})
    again.ended(again.enter(PLACE, Usage(sampled_tokens=1)), Usage(sampled_tokens=1))
    with pytest.raises(BudgetReached) as told:
        again.enter(PLACE, Usage(sampled_tokens=2))
    assert (
        "the budget of teacher is reached: $0.0000000010 of $0.0000000080 are spent and $0.0000000060 held for "
        "2 requests without an end, and" in told.value.message
    )
    run = f"{tmp_path.parent.name}/{tmp_path.name}"
    assert f"or after `charrun cost {run} --reconcile --settle` once the engine's bill is complete" in told.value.hint
    for number in [number for number, (place, _) in again.ledger.totals.open.items() if place == PLACE]:
        again.ledger.settle(number, Usage(sampled_tokens=1))
    with pytest.raises(BudgetReached) as told:
        again.enter(PLACE, Usage(sampled_tokens=6))
    assert "$0.0000000030 of $0.0000000080 are spent, and" in told.value.message and "settle" not in told.value.hint


def test_an_end_that_cannot_be_entered_is_told_at_the_next_request(
    spend: Callable[..., Spending], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when an answer comes: nobody awaits that the ledger has it."""
    from concurrent.futures import Future

    purse, counted = spend(1.0), list[Usage]()

    class Sent:
        def __init__(self) -> None:
            self.inner: Future[int] = Future()

        def future(self) -> Future[int]:
            return self.inner

    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def send() -> None:
        meter = Meter(purse, PLACE, counted.append)
        sent: Any = Sent()
        meter.send(Usage(sampled_tokens=3), lambda: sent, lambda tokens: Usage(sampled_tokens=tokens))
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            sent.inner.set_result(2)
            await asyncio.sleep(0.01)
        with pytest.raises(EnvironmentProblem, match=r"ledger.jsonl: No space left"):
            meter.send(Usage(sampled_tokens=3), lambda: sent, lambda tokens: Usage())

    asyncio.run(send())
    assert not counted and read_ledger(tmp_path / LEDGER).in_doubt() == {PLACE: Usage(sampled_tokens=3)}


def test_what_would_be_in_no_ledger_is_refused(spend: Callable[..., Spending]) -> None:
    from tinker import types

    client: Any = type("Client", (), {"get_tokenizer": lambda self: "tokens", "forward_async": None})()

    async def use() -> None:
        meter = Meter(spend(1.0), PLACE, lambda usage: None)
        trainer, sampler = MeteredTrainer(client, meter), MeteredSampler(client, meter, None)
        assert trainer.get_tokenizer() == sampler.get_tokenizer() == "tokens"
        for name in ("save_weights_and_get_sampling_client", "create_sampling_client", "something_new"):
            with pytest.raises(StageFailed, match="would be in no ledger"):
                getattr(trainer, name)
        with pytest.raises(StageFailed, match="says no max_tokens"):  # its most is not known
            sampler.sample(types.ModelInput.from_ints([1] * 50), 1, types.SamplingParams())

    asyncio.run(use())


def test_an_answer_that_comes_after_the_end_leaves_its_most(spend: Callable[..., Spending], tmp_path: Path) -> None:
    purse = spend(1.0)
    number = purse.enter(PLACE, Usage(sampled_tokens=3))
    purse.close()
    purse.ended(number, Usage(sampled_tokens=1))
    assert read_ledger(tmp_path / LEDGER).in_doubt() == {PLACE: Usage(sampled_tokens=3)}


@pytest.mark.parametrize("usd", ["nan", "inf", "0", "-1", "x"])
def test_a_budget_is_a_sum_of_money(usd: str, tmp_path: Path) -> None:
    for words in (("plan",), ("run", "--yes")):
        told = charrun(*words, SPECS / "pirate-smoke.yaml", "--runs-dir", tmp_path / "runs", "--budget", usd)
        assert told.code == 2 and "--budget" in told.err and "Traceback" not in told.text


def test_a_budget_needs_prices(spend: Callable[..., Spending]) -> None:
    with pytest.raises(EnvironmentProblem, match="nobody knows what model costs, and the run has a budget"):
        spend(1.0, rates=None).enter(PLACE, Usage(sampled_tokens=1))
    with pytest.raises(EnvironmentProblem, match="nobody knows what training model costs"):
        spend(1.0, rates=RATES).enter(PLACE, Usage(trained_tokens=1))
    free = spend(None, rates=None)
    free.ended(free.enter(PLACE, Usage(trained_tokens=1)), Usage(trained_tokens=1))
    assert free.spent() == Cost()
