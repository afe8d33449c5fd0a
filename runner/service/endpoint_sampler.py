"""A model at an endpoint as a sampler: it takes messages, which the endpoint renders, and gives texts."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from charrun.chat import Message, assistant
from charrun.endpoint import Endpoint
from charrun.errors import StageFailed
from charrun.secrets import hide_message
from charrun.service.endpoint_client import Attempts, attempts, open_client
from charrun.service.endpoint_errors import CHECK_ADDRESS
from charrun.service.session import Sampler

if TYPE_CHECKING:
    import openai
    import tinker

_THOUGHTS = ("reasoning_content", "reasoning")
"""Where servers put what a model thought, if not into the text."""
_THINKING = ("thinking", "reasoning")
"""How those that answer in parts call it."""
_SEEDS = 1 << 31
"""Some servers take 32 bits."""
_MOST_TOKENS = 1 << 40
_SHOWN = 200


@dataclass(frozen=True)
class ChatSequence:
    """One answer of an endpoint.

    Attributes:
        content: Its text; a think block may be in it.
        apart: Whether the endpoint gave the thoughts in a field of their own, so that there are none in the text.
        stop_reason: `stop` where the model ended the turn, `length` where it was cut, else what the endpoint says.
    """

    content: str
    stop_reason: str
    apart: bool = False


@dataclass(frozen=True)
class ChatResponse:
    """What an endpoint answers to one request.

    Attributes:
        sequences: At most as many as were asked for: some servers give one, whatever they are asked.
        prompt_tokens: Tokens of the prompt, paid for once; None where the endpoint does not say.
        cached_tokens: Those of them that were in its cache.
        sampled_tokens: Tokens of all sequences, thoughts included; None where the endpoint does not say.
    """

    sequences: Sequence[ChatSequence]
    prompt_tokens: int | None
    cached_tokens: int
    sampled_tokens: int | None


class ChatClient(Sampler, Protocol):
    """A sampler that takes messages and can't score: its `sample` and `compute_logprobs` raise."""

    endpoint: Endpoint
    room: asyncio.Semaphore

    def complete(
        self, messages: Sequence[Message], num_samples: int, params: Mapping[str, Any], *, seed: int, prefill: str
    ) -> tinker.APIFuture[ChatResponse]:
        """Answers to a conversation."""


class EndpointSampler:
    """Chat completions of one model.

    Attributes:
        endpoint: Where it lives.
        room: Held by each request, before it is entered in the ledger.

    Args:
        endpoint: Where it lives.
        chat: Arguments for the chat template there, for servers that take `chat_template_kwargs`.
    """

    def __init__(self, endpoint: Endpoint, chat: Mapping[str, Any]) -> None:
        self.endpoint = endpoint
        self._chat = dict(chat)
        self._client: openai.AsyncOpenAI | None = None
        self.room = asyncio.Semaphore(endpoint.concurrency)
        self._longest = "max_tokens"

    def sample(self, *args: Any, **options: Any) -> Any:
        """An endpoint renders conversations itself.

        Raises:
            StageFailed: Always.
        """
        raise StageFailed(
            f"{self.endpoint.address} takes messages and no tokens", "a defect of the stage: ask through ctx.sample"
        )

    def compute_logprobs(self, *args: Any, **options: Any) -> Any:
        """An endpoint does not score.

        Raises:
            StageFailed: Always.
        """
        raise StageFailed(
            f"{self.endpoint.address} gives no log-probs of a prompt",
            "name a scorer under models, with a model that the engine serves; a stage that scores says so in `scores`",
        )

    def complete(
        self, messages: Sequence[Message], num_samples: int, params: Mapping[str, Any], *, seed: int, prefill: str
    ) -> tinker.APIFuture[ChatResponse]:
        """Answers to a conversation.

        Args:
            messages: The conversation, as it is sent.
            num_samples: How many (`n`).
            params: `max_tokens`, `temperature`, `top_p`.
            seed: Best effort at most servers.
            prefill: How the answer begins, for an endpoint that `continues`.
        """
        request = self.request(messages, num_samples, params, seed=seed, prefill=prefill)
        return as_future(lambda: self._ask(request))

    def request(
        self, messages: Sequence[Message], num_samples: int, params: Mapping[str, Any], *, seed: int, prefill: str
    ) -> dict[str, Any]:
        """The fields of a request, `parameters` of the spec included."""
        fields: dict[str, Any] = {"messages": [dict(each) for each in messages], **params, "seed": seed % _SEEDS}
        if num_samples > 1:
            fields["n"] = num_samples
        if prefill:
            fields["messages"].append(dict(assistant(prefill)))
            fields |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._chat:
            fields["chat_template_kwargs"] = self._chat
        fields = {**fields, **self.endpoint.parameters, "model": self.endpoint.model}
        return {name: value for name, value in fields.items() if value is not None}

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.close()

    async def _ask(self, request: Mapping[str, Any]) -> ChatResponse:
        attempts.set(Attempts())
        try:
            return read(await self._send(request), self.endpoint)
        except Exception as error:
            if not self._wants_other_name(error):
                raise
        return read(await self._send(request), self.endpoint)

    async def _send(self, request: Mapping[str, Any]) -> bytes:
        if self._client is None:
            self._client = open_client(self.endpoint)
        fields = {self._longest if name == "max_tokens" else name: value for name, value in request.items()}
        known = {name: fields.pop(name) for name in ("messages", "model")}
        # Whatever the installed client knows of fields, the server is sent what the spec and the stage say, and what it
        # answers is looked at here.
        found = await self._client.chat.completions.with_raw_response.create(**known, extra_body=fields)
        body: bytes = found.content
        return body

    def _wants_other_name(self, error: Exception) -> bool:
        """Whether a request was refused because the model takes `max_completion_tokens` alone, as OpenAI's newer do."""
        if getattr(error, "status_code", None) != 400 or "max_completion_tokens" not in str(error):
            return False
        if self._longest == "max_completion_tokens":
            return False
        self._longest = "max_completion_tokens"
        return True


def read(body: bytes, endpoint: Endpoint) -> ChatResponse:
    """What an endpoint answers as charrun keeps it.

    Args:
        body: JSON, if the endpoint is one.
        endpoint: Who answers.

    Raises:
        StageFailed: It holds no answer.
    """
    try:
        found = json.loads(body)
        choices = found["choices"]
        sequences = [_sequence(choice) for choice in choices]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        sequences = []
    if not sequences:
        raise StageFailed(f"{endpoint.address} gives no answer but {_begin(body)}", CHECK_ADDRESS)
    usage = _mapping(found.get("usage"))
    return ChatResponse(
        sequences,
        _tokens(usage.get("prompt_tokens")),
        _tokens(_mapping(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
        _tokens(usage.get("completion_tokens")),
    )


def _sequence(choice: Any) -> ChatSequence:
    """One answer.

    Raises:
        AttributeError, KeyError, TypeError: It is not in the form of one.
    """
    message = choice["message"]
    content = message.get("content") or ""
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    text = "".join(part["text"] for part in parts if part.get("type") == "text")
    apart = any(message.get(name) for name in _THOUGHTS) or any(part.get("type") in _THINKING for part in parts)
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # JSON can hold half a character
    return ChatSequence(whole, str(choice.get("finish_reason") or "stop"), apart)


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tokens(value: Any) -> int | None:
    """A number of tokens; None for what cannot be one."""
    return int(value) if isinstance(value, int | float) and 0 <= value < _MOST_TOKENS else None


def _begin(body: bytes) -> str:
    """How what is no answer begins, for people."""
    text = " ".join(hide_message(body[: 2 * _SHOWN].decode(errors="replace")).split())
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def as_future(work: Callable[[], Coroutine[Any, Any, ChatResponse]]) -> tinker.APIFuture[ChatResponse]:
    """Work of this loop as the SDK's futures are: it begins at once, and ends where its future is cancelled."""
    from tinker.lib.public_interfaces.api_future import AwaitableConcurrentFuture

    outer: concurrent.futures.Future[ChatResponse] = concurrent.futures.Future()
    task = asyncio.ensure_future(work())

    def done(inner: asyncio.Task[ChatResponse]) -> None:
        if inner.cancelled():
            outer.cancel()
        elif not outer.set_running_or_notify_cancel():
            if not inner.cancelled():
                inner.exception()  # nobody is left to hear of it
        elif (error := inner.exception()) is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())

    task.add_done_callback(done)
    outer.add_done_callback(lambda each: task.cancel() if each.cancelled() else None)
    return AwaitableConcurrentFuture(outer)
