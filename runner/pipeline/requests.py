"""Durable sampling and scoring: a request is keyed by what it asks, stored when answered, and never asked twice."""

from __future__ import annotations

import json
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charrun import events
from charrun.chat import Chat, Message
from charrun.errors import DoesNotFit, StageFailed
from charrun.pipeline.answers import Answers
from charrun.pipeline.endpoint_requests import MeteredEndpoint, answered_elsewhere, endpoint_key
from charrun.pipeline.meter import MeteredSampler
from charrun.pipeline.together import gather
from charrun.service.explained import explained
from charrun.service.service import RoleSampler
from charrun.service.session import Sampler
from charrun.store.canonical import digest, seed_from
from charrun.store.items import ANSWERS, AnsweredPart, ItemStore, Record, Score
from charrun.store.items import Sequence as StoredSequence

if TYPE_CHECKING:
    from tinker import types

    from charrun.pipeline.stage_run import StageRun

MOST_SEQUENCES = 16
"""Sequences of one response: a torn response loses at most these."""


@dataclass(frozen=True)
class Answer:
    """One sampled turn.

    Attributes:
        text: Visible text, without end-of-turn tokens and think block.
        tokens: Sampled token ids, shape [n], end-of-turn token included; kept compact. Of a model at an endpoint, which
            gives texts, those of the visible text by the student's tokenizer.
        complete: Whether the model ended the turn; False where the length limit cut it.
        index: Sample index of the request.
        closed: Whether every think block that was opened is closed; without, there is no visible text.
    """

    text: str
    tokens: Sequence[int]
    complete: bool
    index: int
    closed: bool = True


@dataclass(frozen=True)
class _Request:
    """One prompt to one sampler: what its key is made of, and what its record says of it."""

    sampler: RoleSampler
    prompt: list[int]
    params: Mapping[str, Any]
    key: str
    given: Mapping[str, Any]
    seed: int | None
    messages: Sequence[Message]
    prefill: str


class Requests:
    """The requests of one stage, answered from its store folder where they were answered before."""

    def __init__(self, run: StageRun) -> None:
        self._run = run

    async def sample(
        self,
        sampler: RoleSampler,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        *,
        item: str,
        count: int,
        seed: int | None,
        shared: bool,
        prefill: str = "",
        arrived: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """Answers of sample indexes 0 to count - 1; see `StageContext.sample`."""
        request = self._request(sampler, messages, params, item, seed, prefill)
        answers = await self._answers(sampler, shared)
        async with answers.turns.of(request.key):
            await self._ask_missing(answers.items, request, count, arrived or (lambda n: None))
        found = [_answer_of(stored, index) for index, stored in enumerate(answers.items.sequences(request.key, count))]
        if len(found) < count:
            raise StageFailed(f"{self._run.item.id}: the engine returned fewer sequences than asked for")
        return found

    def _request(
        self,
        sampler: RoleSampler,
        messages: Sequence[Message],
        params: Mapping[str, Any],
        item: str,
        seed: int | None,
        prefill: str,
    ) -> _Request:
        run_seed = self._run.cell.seed
        if sampler.endpoint is None:
            prompt = sampler.chat.prompt(messages, prefill)
            params = {**params, "max_tokens": self._room(sampler, prompt, params["max_tokens"])}
            key = request_key(sampler.fingerprint, prompt, item, params, seed, run_seed)
        else:
            prompt = []
            key = endpoint_key(sampler.fingerprint, messages, prefill, item, params, seed, run_seed)
        more: dict[str, Any] = {} if seed is None else {"seed": seed}
        if prefill:
            more["prefill"] = prefill
        given = {"messages": json.dumps(list(messages), ensure_ascii=False), "item": item, **params, **more}
        return _Request(sampler, prompt, params, key, given, seed, messages, prefill)

    async def _ask_missing(
        self, items: ItemStore, request: _Request, count: int, arrived: Callable[[int], None]
    ) -> None:
        client = request.sampler.client

        def missing() -> list[tuple[int, int]]:
            most = client.most if isinstance(client, MeteredEndpoint) else MOST_SEQUENCES
            return list(items.missing(request.key, count, most))

        async def ask(start: int, n: int) -> None:
            if isinstance(client, MeteredEndpoint):
                arrived(await self._ask_elsewhere(items, client, request, start, n))
            else:
                arrived(await self._ask(items, request, start, n))

        wanted = missing()
        arrived(count - sum(n for _, n in wanted))
        while wanted:  # an endpoint may give fewer answers than it was asked for, and at least one
            await gather([ask(start, n) for start, n in wanted])
            wanted = missing() if isinstance(client, MeteredEndpoint) else []

    async def score(
        self, sampler: RoleSampler, prompt: Sequence[int], completion: Sequence[int], *, shared: bool
    ) -> float:
        """Mean log-prob per token of a completion, in nats; see `StageContext.score`."""
        if not completion:
            raise ValueError("an empty completion has no score")
        tokens = [*prompt, *completion]
        key = digest({"weights": sampler.fingerprint, "score": tokens, "last": len(completion)})
        answers = await self._answers(sampler, shared)
        async with answers.turns.of(key):
            known = answers.items.score(key)
            return known if known is not None else await self._score(answers.items, sampler, key, tokens, completion)

    async def _answers(self, sampler: RoleSampler, shared: bool) -> Answers:
        work = self._run.attempt.work
        return await work.common(f"{ANSWERS}{sampler.fingerprint[:16]}") if shared else work.answers

    async def _score(
        self, items: ItemStore, sampler: RoleSampler, key: str, tokens: list[int], completion: Sequence[int]
    ) -> float:
        from tinker import types

        shared, since = self._run.cell.shared, time.monotonic()
        async with shared.slots.of(1, self._run.attempt.work.name):
            shared.go_on()
            with explained():
                whole = types.ModelInput.from_ints(tokens)
                found, hits = await _logprobs(sampler.client, whole, len(completion), since)
            shared.slots.answered(sampler.client, 1)
        last = [float(value) for value in found[-len(completion) :] if value is not None]
        if len(last) != len(completion):
            raise StageFailed(f"the engine scored {len(last)} of {len(completion)} tokens of an answer")
        score: Score = {
            "key": key,
            "model": sampler.model,
            "mean_logprob": sum(last) / len(last),
            "tokens": len(last),
            "prompt_tokens": len(tokens),
            "cache_hit_tokens": hits,
            "work": self._run.attempt.work.name,
        }
        items.append_score(score)
        self._run.tell(events.RowStored(*self._run.place, sampler.model, 0, len(tokens), 0))
        self._run.attempt.progress()
        return score["mean_logprob"]

    def _room(self, sampler: RoleSampler, prompt: Sequence[int], max_tokens: int) -> int:
        if sampler.context_length is None:
            return max_tokens
        room = sampler.context_length - len(prompt)
        if room < 1:
            raise DoesNotFit(
                f"{self._run.item.id}: a prompt of {len(prompt)} tokens does not fit the context of "
                f"{sampler.context_length} tokens of '{sampler.model}'",
                "use fewer turns, a shorter character, or a model with a longer context",
            )
        return min(max_tokens, room)

    async def _ask(self, items: ItemStore, request: _Request, start: int, n: int) -> int:
        """How many were answered."""
        from tinker import types

        seed = request.seed if request.seed is not None else seed_from(request.key, start)
        shared, since = self._run.cell.shared, time.monotonic()
        async with shared.slots.of(n, self._run.attempt.work.name):
            shared.go_on()
            with explained():
                response = await _samples(
                    request.sampler.client,
                    types.ModelInput.from_ints(request.prompt),
                    n,
                    types.SamplingParams(stop=request.sampler.chat.stop_tokens, seed=seed, **request.params),
                    since,
                )
            shared.slots.answered(request.sampler.client, n)
        return self._keep(
            items, request, start, answered(response, request.sampler.chat, len(request.prompt), request.prefill)
        )

    async def _ask_elsewhere(
        self, items: ItemStore, client: MeteredEndpoint, request: _Request, start: int, n: int
    ) -> int:
        """How many were answered."""
        response = await client.asked(
            request.messages,
            n,
            request.params,
            seed=request.seed if request.seed is not None else seed_from(request.key, start),
            prefill=request.prefill,
            go_on=self._run.cell.shared.go_on,
        )
        return self._keep(items, request, start, answered_elsewhere(response, request.sampler.chat, request.prefill))

    def _keep(self, items: ItemStore, request: _Request, start: int, part: AnsweredPart) -> int:
        record: Record = {
            "key": request.key,
            "start": start,
            "model": request.sampler.model,
            "input": dict(request.given),
            **part,
            "work": self._run.attempt.work.name,
        }
        items.append(record)
        stored = len(record["sequences"]), record["prompt_tokens"], record["sampled_tokens"]
        self._run.tell(events.RowStored(*self._run.place, request.sampler.model, *stored))
        self._run.attempt.progress()
        return len(record["sequences"])


def weights_name(identity: Any, chat: Chat) -> str:
    """What keys call weights and the rendering of what they are asked."""
    return digest([identity, chat.template_text])


def request_key(
    weights: str, prompt: Sequence[int], item: str, params: Mapping[str, Any], seed: int | None, run_seed: int
) -> str:
    """What makes a sampling request the same as another one."""
    asked = {"weights": weights, "prompt": prompt, "item": item, "seed": seed, **params}
    return digest({**asked, "run_seed": run_seed})


def answered(response: types.SampleResponse, chat: Chat, prompt_tokens: int, prefill: str = "") -> AnsweredPart:
    """What a record keeps of a response."""
    return {
        "sequences": [_stored(sequence, chat, prefill) for sequence in response.sequences],
        "prompt_tokens": prompt_tokens,
        "sampled_tokens": sum(len(sequence.tokens) for sequence in response.sequences),
        "cache_hit_tokens": int(response.prompt_cache_hit_tokens or 0),
    }


def _stored(sequence: types.SampledSequence, chat: Chat, prefill: str) -> StoredSequence:
    text, closed = chat.spoken(sequence.tokens, prefill)
    found: StoredSequence = {"text": text, "tokens": list(sequence.tokens), "stop_reason": sequence.stop_reason}
    return found if closed else {**found, "closed": False}


def _answer_of(stored: StoredSequence, index: int) -> Answer:
    complete, closed = stored["stop_reason"] == "stop", stored.get("closed", True)
    return Answer(stored["text"], array("i", stored["tokens"]), complete, index, closed)


async def _samples(
    client: Sampler, prompt: types.ModelInput, n: int, params: types.SamplingParams, since: float
) -> types.SampleResponse:
    """Samples, entered in the ledger; a sampler of a stage's own is not in it."""
    if isinstance(client, MeteredSampler):
        return await client.asked(prompt, n, params, since)
    response: types.SampleResponse = await client.sample(prompt, n, params)
    return response


async def _logprobs(
    client: Sampler, prompt: types.ModelInput, last_n: int, since: float
) -> tuple[Sequence[float | None], int]:
    """Log-probs of a prompt's last tokens, and how many of its tokens were in the engine's cache."""
    if not isinstance(client, MeteredSampler):
        return await client.compute_logprobs(prompt, prompt_logprobs_last_n=last_n), 0
    response = await client.scored(prompt, last_n, since)
    return response.prompt_logprobs or [], int(response.prompt_cache_hit_tokens or 0)
