"""What a run may spend: every request is entered at the most that it can cost, and sent only if that still fits.

Contract:
1. A request is sent only if the most that it can cost still fits the budget.
2. A request that does not fit waits for those in flight to end and then stops the run.
3. What stopped for its budget goes on under a higher one.
4. What probes for a run have paid counts against its budget.
5. An answer that used more than a server was asked for stops a run whose budget is exceeded by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from charrun.errors import BudgetReached, CharrunError, EnvironmentProblem
from charrun.spec.prices import Cost, Rates, picodollars, usd
from charrun.store.ledger import Ledger, Place
from charrun.store.probes import probes_of, take_probes
from charrun.usage import Usage

if TYPE_CHECKING:
    import tinker

_T = TypeVar("_T")
_LOOK_SECONDS = 0.2


class NotNow(BudgetReached):
    """A request that does not fit as long as others are in flight at the most that they can cost."""


class Spending:
    """A run's ledger against its limits.

    Attributes:
        limit_usd: US dollars for all of the run; None for no limit.
        held: Picodollars that requests without an end may cost, as `settled` has looked it up; 0 without a limit.

    Args:
        ledger: Opens the ledger; called when a request is first entered, or when what was spent is first asked for.
        rates: What a model's tokens cost; None where nobody knows.
        limit: US dollars for all of the run; None for no limit.
        stages: US dollars for single stage items.
        broke: Called with the reason when the run has to stop.
        go_on: Raises where nothing may be begun any more.
    """

    def __init__(
        self,
        ledger: Callable[[Callable[[Place, Usage], None]], Ledger],
        rates: Callable[[str], Rates | None],
        limit: float | None,
        stages: Mapping[str, float],
        broke: Callable[[BudgetReached], None],
        go_on: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit_usd = limit
        self.held = 0
        self._open = ledger
        self._rates = rates
        self._limit = None if limit is None else picodollars(limit)
        self._caps = {id: picodollars(usd) for id, usd in stages.items()}
        self._broke = broke
        self._go_on = go_on
        self._ledger: Ledger | None = None
        self._probed = self._settled = Cost()
        self._look_again = 0.0
        self._spent: dict[str, Cost] = {}
        self._flying = 0
        self._failure: CharrunError | None = None
        self._is_closed = False
        self._changed = asyncio.Event()

    @property
    def ledger(self) -> Ledger:
        """The ledger, open."""
        if self._ledger is None:
            ledger = self._ledger = self._open(self._heard)
            if not ledger.totals.lines:
                take_probes(ledger.path.parent)
            if self.limited:
                self._probed = self._cost_of_probes(ledger.path.parent)
        return self._ledger

    @property
    def lines(self) -> int:
        """How many lines of the ledger are known; 0 while it is not open."""
        return self._ledger.totals.lines if self._ledger else 0

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return self._limit is not None or bool(self._caps)

    def spent(self, stage: str | None = None) -> Cost:
        """What is counted: ended requests as they were, others at the most that they can cost."""
        found = self._spent.values() if stage is None else [self._spent.get(stage, Cost())]
        return sum(found, Cost())

    def settled(self) -> Cost:
        """What ended requests cost, looked up a few times a second; 0 where a price is not known."""
        if self._ledger is not None and time.monotonic() >= self._look_again:
            used = self._ledger.totals.used.items()
            self._settled = sum((self._cost(place.model, usage) for place, usage in used), Cost())
            self.held = self.spent().high - self._settled.high if self.limited else 0
            self._look_again = time.monotonic() + _LOOK_SECONDS
        return self._settled

    def enter(self, place: Place, most: Usage) -> str:
        """Enter a request that is about to be sent; returns its number.

        Raises:
            NotNow: It does not fit as long as others are in flight.
            BudgetReached: It does not fit; the run stops.
            EnvironmentProblem: The ledger can't be written, now or when an earlier request ended.
        """
        if self._failure is not None:
            raise self._failure
        number = self.ledger.reserve(place, most, self._fits if self.limited else None)
        if number is not None:
            self._flying += 1
            return number
        if self._flying:
            raise NotNow(*self._told(place, most))
        error = BudgetReached(*self._told(place, most))
        self._broke(error)
        self._wake()
        raise error

    async def answer(self, send: Callable[[], tinker.APIFuture[_T]]) -> _T:
        """What a request is answered that a call enters and sends, as soon as it fits; raises as `when_it_fits`."""
        return await (await self.when_it_fits(send))

    async def when_it_fits(self, send: Callable[[], _T]) -> _T:
        """What a call returns that enters a request and sends it, as soon as it fits.

        Raises:
            BudgetReached: It does not fit although nothing is in flight any more.
            Interrupted: The run is being stopped.
        """
        while True:
            try:
                return send()
            except NotNow:
                await self._changed.wait()
                self._go_on()

    def ended(self, number: str, used: Usage | None, times: tuple[float, float] | None = None) -> None:
        """A request has ended.

        Args:
            number: Its number.
            used: What it used; None where that is not known, and the most that it can have used stays counted.
            times: Seconds until it was answered, and those that it waited to be sent.
        """
        self._flying -= 1
        try:
            if used is not None and not self._is_closed:
                place, most = self.ledger.totals.open[number]
                self.ledger.settle(number, used, times)
                self._check_reserved(place, most, used)
        finally:
            self._wake()

    def _check_reserved(self, place: Place, most: Usage, used: Usage) -> None:
        """Stop the run where an answer used more than was reserved for it, and the limit no longer holds."""
        if not self.limited or self._cost(place.model, used).high <= self._cost(place.model, most).high:
            return
        if (obstacle := self._obstacle(place, Usage())) is None:
            return
        whose, option, spent, limit = obstacle
        told = (
            f"the budget {whose}is exceeded: ${usd(spent)} of ${usd(limit)} are spent, and {place.model} "
            f"says that a request used {used.sampled_tokens:,} sampled tokens of {most.sampled_tokens:,} at most"
        )
        self._broke(BudgetReached(told, f"what is recorded stays; the same command goes on with a higher {option}"))

    def failed(self, error: CharrunError) -> None:
        """The end of a request could not be entered: nothing more is sent."""
        self._failure = self._failure or error

    def close(self) -> None:
        """Close the ledger; what ends afterwards stays counted at its most."""
        self._is_closed = True
        if self._ledger is not None:
            self._ledger.close()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _fits(self, place: Place, most: Usage) -> bool:
        return self._obstacle(place, most) is None

    def _obstacle(self, place: Place, most: Usage) -> tuple[str, str, int, int] | None:
        """Which limit a request does not fit: whose it is, how it is raised, what of it is spent, and all of it."""
        cost = self._cost(place.model, most).high
        cap = self._caps.get(place.stage)
        if cap is not None and (spent := self.spent(place.stage).high) + cost > cap:
            return f"of {place.stage} ", f"budget.stages.{place.stage}", spent, cap
        if self._limit is not None and (spent := self.spent().high + self._probed.high) + cost > self._limit:
            return "", "--budget", spent, self._limit
        return None

    def _cost_of_probes(self, run: Path) -> Cost:
        """What probes for a run have paid, those without an end at their most."""
        totals = probes_of(run)
        found = [*totals.used.items(), *totals.in_doubt().items()]
        return sum((self._cost(place.model, usage) for place, usage in found), Cost())

    def _heard(self, place: Place, change: Usage) -> None:
        self._spent[place.stage] = self._spent.get(place.stage, Cost()) + self._cost(place.model, change)

    def _cost(self, model: str, usage: Usage) -> Cost:
        rates = self._rates(model)
        cost = None if rates is None else rates.cost(usage)
        if cost is not None or not self.limited:
            return cost or Cost()
        what = model if rates is None else f"training {model}"
        raise EnvironmentProblem(
            f"nobody knows what {what} costs, and the run has a budget", "say it under `prices` in the spec"
        )

    def _told(self, place: Place, most: Usage) -> tuple[str, str]:
        whose, option, spent, limit = self._obstacle(place, most) or ("", "--budget", 0, 0)
        cost = self._cost(place.model, most).high
        by_probes = f" (${usd(self._probed.high)} by probes)" if self._probed.high and not whose else ""
        held, many = (0, 0) if self._flying else self._held(place.stage if whose else None)
        kept = freed = ""
        if many:
            kept = f" and ${usd(held)} held for {many:,} request{'s' if many > 1 else ''} without an end"
            run = "/".join(self.ledger.path.parts[-3:-1])
            freed = f", or after `charrun cost {run} --reconcile --settle` once the engine's bill is complete"
        return (
            f"the budget {whose}is reached: ${usd(spent - held)} of ${usd(limit)} are spent{by_probes}"
            f"{kept}, and the next request of {place.stage} may cost ${usd(cost)}",
            f"what is recorded stays; the same command goes on with a higher {option}{freed}",
        )

    def _held(self, stage: str | None) -> tuple[int, int]:
        """The most that requests without an end can cost, in picodollars, and how many they are; of a stage, or all."""
        found = [each for each in self.ledger.totals.open.values() if stage in (None, each[0].stage)]
        return sum(self._cost(place.model, most).high for place, most in found), len(found)
