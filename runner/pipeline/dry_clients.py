"""The SDK's clients in a dry run: they answer at once, and tell when an answer would have come."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from charrun.chat import Chat, Message
from charrun.endpoint import Endpoint
from charrun.pipeline.prompt_cache import PromptCache, WarmCache
from charrun.pipeline.virtual_time import Clock
from charrun.service.endpoint_sampler import ChatResponse, ChatSequence, EndpointSampler

if TYPE_CHECKING:
    from charrun.pipeline.dry_service import DryService

_LOGPROB, _ALIKE_LOGPROB, _OWN_LOGPROB = -1.0, -0.75, -0.5
_ALIKE = 32
"""Tokens that two prompts begin with that begin alike."""


class DrySampler:
    """The SDK's sampling client, as far as stages use it.

    Args:
        service: Its session.
        model: The base model.
        chat: The rendering.
        key: The checkpoint's path or the base model: of different ones answers differ, as a judge of both expects.
        warm: What it was sent before.
    """

    def __init__(self, service: DryService, model: str, chat: Chat, key: str, warm: WarmCache | None = None) -> None:
        self._service = service
        self._model = model
        self._chat = chat
        self._rng = random.Random(key)
        self._cache = PromptCache()
        self._warm = warm or self._cache

    def recall(self, tokens: Sequence[int]) -> None:
        """It was sent this before."""
        self._warm.keep(tokens)

    def sample(self, prompt: Any, num_samples: int, sampling_params: Any, **options: Any) -> Any:
        """Answers cut from the texts; or log-probs, where they are asked for."""
        tokens = prompt.to_ints()
        scores = bool(options.get("include_prompt_logprobs"))
        hits = self._cache.hits(tokens)
        self._service.note(self._model, hits, hits if self._warm is self._cache else self._warm.hits(tokens), scores)
        if scores:
            self._service.keep(self._model, tokens)
            values = self._logprobs(tokens, options.get("prompt_logprobs_last_n"))
            sequences = [self._sequence(tokens, 1)]
            found = SimpleNamespace(sequences=sequences, prompt_cache_hit_tokens=0, prompt_logprobs=values)
            return _done(found, self._service.seconds(self._model, 1))
        sequences = [self._sequence(tokens, sampling_params.max_tokens) for _ in range(num_samples)]
        for sequence in sequences:
            for cache in {self._cache, self._warm}:
                cache.keep([*tokens, *sequence.tokens])
        found = SimpleNamespace(sequences=sequences, prompt_cache_hit_tokens=0, prompt_logprobs=None)
        return _done(found, self._service.seconds(self._model, max(len(each.tokens) for each in sequences)))

    def texts(self, tokens: list[int], num_samples: int, longest: int) -> Any:
        """Answers as an endpoint gives them."""
        self._service.note(self._model, 0, 0, False)
        sequences = [self._sequence(tokens, longest) for _ in range(num_samples)]
        lengths = [len(each.tokens) for each in sequences]
        found = ChatResponse(
            [ChatSequence(self._chat.answer(each.tokens), each.stop_reason) for each in sequences],
            len(tokens),
            0,
            sum(lengths),
        )
        return _done(found, self._service.seconds(self._model, max(lengths)))

    def compute_logprobs(self, prompt: Any, prompt_logprobs_last_n: int | None = None) -> Any:
        """Log-probs of a prompt's tokens."""
        return _done(self._logprobs(prompt.to_ints(), prompt_logprobs_last_n))

    def _sequence(self, prompt: Sequence[int], longest: int) -> SimpleNamespace:
        length, cut = self._service.length(self._model, longest)
        source = self._service.text(self._chat)
        start = self._rng.randrange(max(1, len(source) - length))
        end = source[start + length - 1] if cut else self._chat.end_of_turn
        tokens = [*source[start : start + length - 1], end]
        self._service.made_by(self._chat, prompt, tokens)
        return SimpleNamespace(tokens=tokens, logprobs=None, stop_reason="length" if cut else "stop")

    def _logprobs(self, tokens: list[int], last_n: int | None) -> list[float | None]:
        value = _LOGPROB
        if last_n:
            prompt, answer = tokens[:-last_n], self._chat.answer(tokens[-last_n:])
            if (hash(tuple(prompt)), answer) in self._service.made:
                value = _OWN_LOGPROB
            elif (beginning(prompt), answer) in self._service.made:
                value = _ALIKE_LOGPROB
        return [None, *([value] * (len(tokens) - 1))]


class DryEndpoint:
    """A model at an endpoint, as far as `ctx.sample` uses it; tokens are those of the student's tokenizer."""

    def __init__(self, service: DryService, model: str, endpoint: Endpoint, chat: Chat) -> None:
        self.endpoint = endpoint
        self.room = asyncio.Semaphore(endpoint.concurrency)
        self._sampler = DrySampler(service, model, chat, model)
        self._chat = chat

    def __getattr__(self, name: str) -> Any:
        return getattr(EndpointSampler(self.endpoint, {}), name)

    def complete(
        self, messages: Sequence[Message], num_samples: int, params: Mapping[str, Any], *, seed: int, prefill: str
    ) -> Any:
        """Answers cut from the texts."""
        prompt = self._chat.prompt(messages, prefill)
        return self._sampler.texts(prompt, num_samples, int(params["max_tokens"]))


class DryTrainer:
    """The SDK's training client, as far as stages use it."""

    def __init__(self, service: DryService) -> None:
        self._service = service
        self._clock = Clock()

    def forward(self, data: Sequence[Any], *args: Any, **options: Any) -> Any:
        """Log-probs, all the same."""
        outputs = [{"logprobs": SimpleNamespace(data=[_LOGPROB] * datum.model_input.length)} for datum in data]
        return self._in_turn(SimpleNamespace(loss_fn_outputs=outputs, metrics=self._metrics))

    def forward_backward(self, data: Sequence[Any], *args: Any, **options: Any) -> Any:
        """The metrics of a loss."""
        return self._in_turn(SimpleNamespace(metrics=self._metrics, loss_fn_outputs=[]))

    def forward_backward_custom(self, data: Sequence[Any], loss: Any, *args: Any, **options: Any) -> Any:
        """The metrics of a loss that the stage computes."""
        import torch

        _, metrics = loss(list(data), [torch.full((datum.model_input.length,), _LOGPROB) for datum in data])
        return self._in_turn(SimpleNamespace(metrics={**self._metrics, **metrics}, loss_fn_outputs=[]), answers=2)

    def optim_step(self, *args: Any, **options: Any) -> Any:
        """Nothing; it is counted."""
        self._service.stepped()
        return self._in_turn(SimpleNamespace(metrics={}), step=True)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("save_"):
            raise AttributeError(name)
        return lambda name="", *args, **options: self._in_turn(SimpleNamespace(path=f"tinker://dry-run/{name}"))

    def _in_turn(self, result: Any, *, step: bool = False, answers: int = 1) -> Any:
        now = asyncio.get_running_loop().time()
        return _done(result, self._clock.next(now, step=step, answers=answers) - now)

    @cached_property
    def _metrics(self) -> dict[str, float]:
        return {"loss:sum": 0.0}


def beginning(prompt: Sequence[int]) -> int:
    """A name for how a prompt begins, which is no prompt's own."""
    return hash(("beginning", tuple(prompt[:_ALIKE])))


def _done(result: Any, seconds: float = 0.0) -> Any:
    """A future of the SDK's that has its result; who awaits it does so until it is due."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    future.set_result(result)
    return _Future(future, asyncio.get_running_loop().time() + seconds)


class _Future:
    """A finished `APIFuture`; awaiting it lets others go on."""

    def __init__(self, future: concurrent.futures.Future[Any], due: float) -> None:
        self._future = future
        self._due = due

    def future(self) -> concurrent.futures.Future[Any]:
        """The standard library's."""
        return self._future

    def result(self, timeout: float | None = None) -> Any:
        """The result."""
        return self._future.result()

    async def coroutine(self) -> Any:
        """The result."""
        await asyncio.sleep(max(0.0, self._due - asyncio.get_running_loop().time()))
        return self._future.result()

    def __await__(self) -> Any:
        return self.coroutine().__await__()
