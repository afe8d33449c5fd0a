"""Requests to a model at an endpoint: keyed by the conversation itself, entered in the ledger, recorded like others."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from charrun.chat import Chat, Message, is_open, spoken
from charrun.pipeline.meter import Meter
from charrun.service.endpoint_errors import explained_endpoint
from charrun.service.endpoint_sampler import ChatClient, ChatResponse, ChatSequence
from charrun.store.canonical import digest
from charrun.store.items import AnsweredPart
from charrun.store.items import Sequence as StoredSequence
from charrun.usage import Usage, of_samples

if TYPE_CHECKING:
    import tinker
    from tinker import types

_OF_MESSAGE, _OF_PROMPT = 32, 128
"""Tokens by which a template may mark a message, and what it may add of its own."""


class MeteredEndpoint:
    """A model at an endpoint, metered."""

    def __init__(self, client: ChatClient, meter: Meter) -> None:
        self._client = client
        self._meter = meter
        self.endpoint = client.endpoint
        self.most = client.endpoint.samples_per_request

    def sample(self, *args: Any, **options: Any) -> tinker.APIFuture[types.SampleResponse]:
        """As the endpoint's, which raises."""
        return self._client.sample(*args, **options)

    def compute_logprobs(self, *args: Any, **options: Any) -> tinker.APIFuture[list[float | None]]:
        """As the endpoint's, which raises."""
        return self._client.compute_logprobs(*args, **options)

    async def asked(
        self,
        messages: Sequence[Message],
        n: int,
        params: Mapping[str, Any],
        *,
        seed: int,
        prefill: str,
        go_on: Callable[[], None],
    ) -> ChatResponse:
        """Answers that will be recorded; waits until the endpoint has room and they fit the budget.

        Returns:
            At most `n`; what the endpoint does not tell of its usage is taken to be the most that it can be.
        """
        since = time.monotonic()
        most = of_samples(most_tokens(messages, prefill), 0, 1, n * int(params["max_tokens"]))
        send = partial(
            self._meter.send,
            most,
            partial(self._client.complete, messages, n, params, seed=seed, prefill=prefill),
            partial(_used, most),
            recorded=True,
            since=since,
        )
        async with self._client.room:
            go_on()
            with explained_endpoint(self.endpoint):
                response = await self._meter.spending.answer(send)
        if len(response.sequences) < n:
            self.most = 1  # it takes no notice of `n`
        return _complete(response, most)


def most_tokens(messages: Sequence[Message], prefill: str = "") -> int:
    """The most tokens that a prompt can be, whoever renders it.

    A token is at least one byte of UTF-8 with any tokenizer that charrun knows of; a template adds its marks.
    """
    texts = [*(message["content"] for message in messages), prefill]
    return sum(len(text.encode()) + _OF_MESSAGE for text in texts) + _OF_PROMPT


def endpoint_key(
    weights: str,
    messages: Sequence[Message],
    prefill: str,
    item: str,
    params: Mapping[str, Any],
    seed: int | None,
    run_seed: int,
) -> str:
    """What makes a request to an endpoint the same as another one."""
    asked = {"weights": weights, "messages": [dict(each) for each in messages], "prefill": prefill, "item": item}
    return digest({**asked, "seed": seed, **params, "run_seed": run_seed})


def answered_elsewhere(response: ChatResponse, chat: Chat, prefill: str) -> AnsweredPart:
    """What a record keeps of a response.

    Args:
        response: The response.
        chat: Counts the tokens of the visible text, which is all that an endpoint gives: the student's.
        prefill: How the answers began.
    """
    return {
        "sequences": [_sequence(each, chat, is_open(prefill) if prefill else None) for each in response.sequences],
        "prompt_tokens": response.prompt_tokens or 0,
        "sampled_tokens": response.sampled_tokens or 0,
        "cache_hit_tokens": response.cached_tokens,
        "prompt_once": True,
    }


def _sequence(given: ChatSequence, chat: Chat, thinking: bool | None) -> StoredSequence:
    """One answer; its thoughts are left out, wherever they are."""
    text, closed = spoken(given.content, False if given.apart else thinking)
    if given.apart and not text:
        closed = False
    tokens = chat.completion(text) if given.stop_reason == "stop" else chat.encode(text)
    found: StoredSequence = {"text": text, "tokens": tokens, "stop_reason": given.stop_reason}
    return found if closed else {**found, "closed": False}


def _used(most: Usage, response: ChatResponse) -> Usage:
    told = _complete(response, most)
    return of_samples(told.prompt_tokens or 0, told.cached_tokens, 1, told.sampled_tokens or 0)


def _complete(response: ChatResponse, most: Usage) -> ChatResponse:
    """With the most that it can have used, where the endpoint does not say."""
    prompt = most.prefill_tokens if response.prompt_tokens is None else response.prompt_tokens
    sampled = most.sampled_tokens if response.sampled_tokens is None else response.sampled_tokens
    return ChatResponse(response.sequences, prompt, min(response.cached_tokens, prompt), sampled)
