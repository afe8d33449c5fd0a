"""The SDK's clients with a meter: each request is in the ledger before it is sent, and settled when it is answered.

They take and return what the SDK's own clients do; what they do not meter is the client's own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from charrun.errors import CharrunError, StageFailed
from charrun.pipeline.spending import Spending
from charrun.service.endpoint_errors import refused_by_endpoint
from charrun.service.explained import refused
from charrun.service.session import Sampler, before_retry, when_sent
from charrun.store.ledger import Place
from charrun.usage import Usage, of_samples

if TYPE_CHECKING:
    import tinker
    from tinker import types

_FREE = ("_", "get_", "save_", "load_", "model", "holder", "retry", "unload", "close")
_SAMPLERS = ("save_weights_and_get_sampling_client", "save_weights_and_get_sampling_client_async")
_CHUNK_ROWS, _CHUNK_TOKENS = 1024, 100_000
"""What the SDK surely sends as one request: it splits at 1,024 rows and at 5 MB."""
_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass
class _Entry:
    """A request as it stands in the ledger.

    Attributes:
        number: Of its latest attempt; None where that one waits or does not fit.
        since: When that attempt began to wait, on the monotonic clock,
        sent: and when it left: a client of the SDK's may hold it back, as after others were turned away (429).
        settled: Whether the request has ended, whatever is still under way of it.
    """

    number: str | None
    since: float
    sent: float
    settled: bool = False

    def leaves(self) -> None:
        """It is sent now, once more where it was turned away before."""
        self.sent = time.monotonic()

    def is_settled(self) -> bool:
        """Whether it has ended, as far as is known now."""
        return self.settled


class Meter:
    """Enters the requests of one stage for one base model.

    Args:
        spending: The run's.
        place: For what the requests are.
        count: Adds what no record of a sample or score tells to the work's usage.
    """

    def __init__(self, spending: Spending, place: Place, count: Callable[[Usage], None]) -> None:
        self.spending = spending
        self._place = place
        self._count = count
        self._loop = asyncio.get_running_loop()

    def send(
        self,
        most: Usage,
        request: Callable[[], tinker.APIFuture[_T]],
        used: Callable[[_T], Usage],
        *,
        recorded: bool = False,
        since: float | None = None,
        single: bool = True,
    ) -> tinker.APIFuture[_T]:
        """Enter a request and send it.

        Args:
            most: The most that it can use.
            request: Sends it.
            used: What it used, by its answer.
            recorded: Whether a record of its answer tells of that too.
            since: When it began to wait, on the monotonic clock.
            single: Whether the SDK sends it as one: of several a part may be done when another one is refused.

        Raises:
            BudgetReached: It does not fit.
        """
        number = self.spending.enter(self._place, most)
        now = time.monotonic()
        entry = _Entry(number, now if since is None else since, now)
        told = when_sent.set(entry.leaves)
        given = before_retry.set(lambda: asyncio.run_coroutine_threadsafe(self._again(entry, most), self._loop))
        try:
            future = request()
        except BaseException:
            self.spending.ended(number, Usage())  # nothing was sent
            raise
        finally:
            before_retry.reset(given)
            when_sent.reset(told)

        def settle(done: concurrent.futures.Future[_T]) -> None:
            entry.settled = True
            usage = _usage_of(done, used, single)
            times = time.monotonic() - entry.sent, entry.sent - entry.since
            if entry.number is not None:
                self.spending.ended(entry.number, usage, times if usage is not None and usage.tokens else None)
            if usage is not None and not recorded:
                self._count(usage)

        self._hear(future, settle)
        return future

    async def _again(self, entry: _Entry, most: Usage) -> None:
        """The SDK sends a request once more; what the attempt before has used nobody knows."""
        before, entry.number = entry.number, None
        if entry.is_settled():
            return
        if before is not None:
            self.spending.ended(before, None)
        entry.since = time.monotonic()
        number = await self.spending.when_it_fits(partial(self.spending.enter, self._place, most))
        if entry.is_settled():  # given up meanwhile: it is not sent
            self.spending.ended(number, Usage())
        else:
            entry.number, entry.sent = number, time.monotonic()

    def count(self, future: tinker.APIFuture[_T], usage: Usage) -> tinker.APIFuture[_T]:
        """Count what costs nothing, in the ledger too, once it is done: before that there is nothing to reserve."""

        def settle(done: concurrent.futures.Future[_T]) -> None:
            if not done.cancelled() and done.exception() is None:
                ledger = self.spending.ledger
                if (number := ledger.reserve(self._place, usage)) is not None:
                    ledger.settle(number, usage)
                self._count(usage)

        self._hear(future, settle)
        return future

    def _hear(self, future: tinker.APIFuture[_T], settle: Callable[[concurrent.futures.Future[_T]], None]) -> None:
        def settled(done: concurrent.futures.Future[_T]) -> None:
            try:
                settle(done)
            except CharrunError as error:  # a full disk; nobody awaits this
                self.spending.failed(error)

        def hear(done: concurrent.futures.Future[_T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody knows
                self._loop.call_soon_threadsafe(settled, done)

        # It is the first to hear of it: the ledger has the end before anybody uses the answer.
        future.future().add_done_callback(hear)


def _usage_of(done: concurrent.futures.Future[_T], used: Callable[[_T], Usage], single: bool) -> Usage | None:
    if done.cancelled():
        return None
    error = done.exception()
    if error is not None:
        return Usage() if single and (refused(error) or refused_by_endpoint(error)) else None
    return used(done.result())


class MeteredSampler:
    """A sampling client of the SDK's, metered.

    Args:
        client: The SDK's sampling client.
        meter: The stage's.
        context_length: Longest prompt plus answer, in tokens, for requests without `max_tokens`; None if not known.
    """

    def __init__(self, client: Sampler, meter: Meter, context_length: int | None) -> None:
        self._client = cast("tinker.SamplingClient", client)
        self._meter = meter
        self._context_length = context_length

    def __getattr__(self, name: str) -> Any:
        return _free(self._client, name)

    async def sample_async(self, *args: Any, **options: Any) -> types.SampleResponse:
        """As the SDK's."""
        answer: types.SampleResponse = await self.sample(*args, **options)
        return answer

    async def compute_logprobs_async(self, *args: Any, **options: Any) -> list[float | None]:
        """As the SDK's."""
        found: list[float | None] = await self.compute_logprobs(*args, **options)
        return found

    def sample(
        self, prompt: types.ModelInput, num_samples: int, sampling_params: types.SamplingParams, **options: Any
    ) -> tinker.APIFuture[types.SampleResponse]:
        """As the SDK's."""
        return self._sample(prompt, num_samples, sampling_params, options, recorded=False)

    def compute_logprobs(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> tinker.APIFuture[list[float | None]]:
        """As the SDK's, which sends the same request and keeps to itself what was in the cache."""
        future = self._score(prompt, prompt_logprobs_last_n, recorded=False)
        return _changed(future, lambda response: cast("list[float | None]", response.prompt_logprobs))

    async def asked(
        self, prompt: types.ModelInput, num_samples: int, sampling_params: types.SamplingParams, since: float
    ) -> types.SampleResponse:
        """Samples whose answer will be recorded; waits, further to what it has since, until they fit the budget."""
        send = partial(self._sample, prompt, num_samples, sampling_params, {}, recorded=True, since=since)
        return await self._meter.spending.answer(send)

    async def scored(self, prompt: types.ModelInput, last_n: int, since: float) -> types.SampleResponse:
        """Log-probs of the prompt's last tokens, which will be recorded; waits as `asked` does."""
        send = partial(self._score, prompt, last_n, recorded=True, since=since)
        return await self._meter.spending.answer(send)

    def _score(
        self, prompt: types.ModelInput, last_n: int | None, *, recorded: bool, since: float | None = None
    ) -> tinker.APIFuture[types.SampleResponse]:
        from tinker import types

        options = {"include_prompt_logprobs": True, "prompt_logprobs_last_n": last_n}
        return self._sample(prompt, 1, types.SamplingParams(max_tokens=1), options, recorded=recorded, since=since)

    def _sample(
        self,
        prompt: types.ModelInput,
        n: int,
        params: types.SamplingParams,
        options: dict[str, Any],
        *,
        recorded: bool,
        since: float | None = None,
    ) -> tinker.APIFuture[types.SampleResponse]:
        length = prompt.length
        longest = params.max_tokens
        if longest is None:
            if self._context_length is None:
                raise StageFailed(
                    "a request says no max_tokens, and the engine does not say how long an answer can be",
                    "a defect of the stage: what it can cost is not known",
                )
            longest = max(0, self._context_length - length)
        return self._meter.send(
            of_samples(length, 0, n, n * longest),
            lambda: self._client.sample(prompt, n, params, **options),
            lambda response: usage_of(response, length, n),
            recorded=recorded,
            since=since,
        )


def usage_of(response: types.SampleResponse, prompt: int, samples: int) -> Usage:
    """What a sampling request used, by its answer."""
    hits = int(response.prompt_cache_hit_tokens or 0)
    return of_samples(prompt, hits, samples, sum(len(sequence.tokens) for sequence in response.sequences))


class MeteredTrainer:
    """A training client of the SDK's, metered."""

    def __init__(self, client: tinker.TrainingClient, meter: Meter) -> None:
        self._client = client
        self._meter = meter

    def __getattr__(self, name: str) -> Any:
        return _free(self._client, name)

    async def forward_async(self, *args: Any, **options: Any) -> Any:
        """As the SDK's."""
        return self.forward(*args, **options)

    async def forward_backward_async(self, *args: Any, **options: Any) -> Any:
        """As the SDK's."""
        return self.forward_backward(*args, **options)

    async def forward_backward_custom_async(self, *args: Any, **options: Any) -> Any:
        """As the SDK's."""
        return self.forward_backward_custom(*args, **options)

    async def optim_step_async(self, *args: Any, **options: Any) -> Any:
        """As the SDK's."""
        return self.optim_step(*args, **options)

    def forward(self, data: list[types.Datum], *args: Any, **options: Any) -> Any:
        """As the SDK's."""
        usage = Usage(forward_tokens=tokens_of(data))
        send = partial(self._client.forward, data, *args, **options)
        return self._meter.send(usage, send, lambda _: usage, single=_is_single(data))

    def forward_backward(self, data: list[types.Datum], *args: Any, **options: Any) -> Any:
        """As the SDK's."""
        usage = Usage(trained_tokens=tokens_of(data))
        send = partial(self._client.forward_backward, data, *args, **options)
        return self._meter.send(usage, send, lambda _: usage, single=_is_single(data))

    def forward_backward_custom(self, data: list[types.Datum], *args: Any, **options: Any) -> Any:
        """As the SDK's: a forward pass, the loss here, a forward-and-backward pass."""
        tokens = tokens_of(data)
        usage = Usage(forward_tokens=tokens, trained_tokens=tokens)
        return self._meter.send(
            usage, partial(self._client.forward_backward_custom, data, *args, **options), lambda _: usage, single=False
        )

    def optim_step(self, *args: Any, **options: Any) -> Any:
        """As the SDK's; costs nothing, and is counted."""
        return self._meter.count(self._client.optim_step(*args, **options), Usage(steps=1))


def _free(client: Any, name: str) -> Any:
    """What of a client costs nothing.

    Raises:
        StageFailed: It may, and would be in no ledger.
    """
    if not name.startswith(_FREE) or name in _SAMPLERS:
        raise StageFailed(
            f"{type(client).__name__}.{name} would be in no ledger",
            "a defect of the stage: sample through ctx.sampler, also from a checkpoint that ctx.save gives",
        )
    return getattr(client, name)


def _is_single(data: Sequence[types.Datum]) -> bool:
    return len(data) <= _CHUNK_ROWS and tokens_of(data) <= _CHUNK_TOKENS


def tokens_of(data: Sequence[types.Datum]) -> int:
    """Tokens that go through the model."""
    return sum(datum.model_input.length for datum in data)


def _changed(future: tinker.APIFuture[_T], change: Callable[[_T], _R]) -> tinker.APIFuture[_R]:
    """A future of what becomes of another one's result."""
    from tinker.lib.public_interfaces.api_future import AwaitableConcurrentFuture

    inner, outer = future.future(), concurrent.futures.Future[_R]()

    def done(found: concurrent.futures.Future[_T]) -> None:
        if found.cancelled():
            outer.cancel()
        if not outer.set_running_or_notify_cancel():
            return
        if (error := found.exception()) is not None:
            outer.set_exception(error)
        else:
            outer.set_result(change(found.result()))

    inner.add_done_callback(done)
    outer.add_done_callback(lambda each: inner.cancel() if each.cancelled() else None)
    return AwaitableConcurrentFuture(outer)
