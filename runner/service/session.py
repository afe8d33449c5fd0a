"""A session at the engine with the SDK's clients that belong to it; what they ask for is billed to it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from charrun.service.engine import Connection
from charrun.service.explained import explained

if TYPE_CHECKING:
    import tinker
    from tinker import types

before_retry: ContextVar[Callable[[], concurrent.futures.Future[None]] | None] = ContextVar(
    "before_retry", default=None
)
"""Set where a request is sent: called in the SDK's thread before each further attempt, which waits for what it gives;
where that raises, the request ends with it."""
when_sent: ContextVar[Callable[[], None] | None] = ContextVar("when_sent", default=None)
"""Set where a request is sent: called in the SDK's thread as each attempt leaves, which the SDK may have held back."""
_T = TypeVar("_T")


class Sampler(Protocol):
    """The two methods by which charrun samples and scores, in the SDK's own types."""

    def sample(
        self, prompt: types.ModelInput, num_samples: int, sampling_params: types.SamplingParams
    ) -> tinker.APIFuture[types.SampleResponse]:
        """Sample sequences after a prompt."""

    def compute_logprobs(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> tinker.APIFuture[list[float | None]]:
        """Log-probs of a prompt's own tokens; the first is None."""


class Session:
    """One session of the SDK's; `open` begins it.

    Args:
        connection: The engine.
        note: What the session carries there, as its `user_metadata`.
    """

    _client: tinker.ServiceClient

    def __init__(self, connection: Connection, note: Mapping[str, str]) -> None:
        self.connection = connection
        self.metadata = dict(note)
        self._address: dict[str, Any] = {"base_url": connection.base_url, "api_key": connection.api_key}
        self._is_open = False
        self._samplers: dict[str, Sampler] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def open(self) -> None:
        """Begin the session."""
        os.environ.setdefault("TINKER_TELEMETRY", "0")
        import tinker

        with explained():
            # Its constructor waits for the session: not here, where somebody may press Ctrl-C meanwhile.
            self._client = await _in_thread(partial(tinker.ServiceClient, user_metadata=self.metadata, **self._address))
            self._is_open = True

    async def sampler(self, base_model: str, path: str | None = None) -> Sampler:
        """A sampling client of a base model, or of a checkpoint's sampler weights."""
        from charrun.service.retries import ask_before_retries, tell_when_sent

        key = path or base_model
        async with self._opening[key]:
            if key not in self._samplers:
                with explained():
                    client = await (
                        self._client.create_sampling_client(model_path=path)
                        if path
                        else self._client.create_sampling_client(base_model=base_model)
                    )
                ask_before_retries(client)
                tell_when_sent(client)
                self._samplers[key] = client
        return self._samplers[key]

    async def new_adapter(self, base_model: str, rank: int, seed: int) -> tinker.TrainingClient:
        """A fresh LoRA adapter on attention and MLP, not on the output layer."""
        with explained():
            client: tinker.TrainingClient = await self._client.create_lora_training_client(
                base_model=base_model,
                rank=rank,
                seed=seed,
                train_mlp=True,
                train_attn=True,
                train_unembed=False,
            )
        return client

    async def adapter_from(self, state_path: str) -> tinker.TrainingClient:
        """An adapter that continues a saved state's weights with a fresh optimizer."""
        with explained():
            client: tinker.TrainingClient = await self._client.create_training_client_from_state(state_path)
        return client

    async def resumed_adapter(self, state_path: str) -> tinker.TrainingClient | None:
        """An adapter that goes on from a saved state, optimizer included; None where the engine cannot give it."""
        import tinker
        from tinker.types import RequestErrorCategory

        with explained():
            try:
                client: tinker.TrainingClient = await self._client.create_training_client_from_state_with_optimizer(
                    state_path
                )
            except (tinker.NotFoundError, tinker.BadRequestError):
                return None
            except tinker.RequestFailedError as error:
                if error.category != RequestErrorCategory.User:
                    raise
                return None
        return client

    async def close(self, status: str = "success") -> None:
        """End the session at the engine; an engine that is gone already is no error."""
        if not self._is_open:
            return
        self._is_open = False
        # Requests that an interruption gave up fail within the SDK now, and nobody is left to hear of it.
        logging.getLogger("asyncio").addFilter(_is_news)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.shield(self._client.close(status).coroutine()), timeout=5)  # type: ignore[arg-type]


async def _in_thread(work: Callable[[], _T]) -> _T:
    """What a call returns that blocks: in a thread that nobody waits for at the end."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failed = None, None
        try:
            result = work()
        except BaseException as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, daemon=True).start()
    return await answer


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message of asyncio's is about more than a task that was given up."""
    message = record.getMessage()
    return "was never retrieved" not in message and "was destroyed but it is pending" not in message
