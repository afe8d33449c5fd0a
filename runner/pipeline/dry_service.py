"""What takes an engine's place in a dry run: it answers at once, with texts of given lengths, and trains nothing.

Log-probs are the same for every token, and higher for an answer after the very prompt that it was made for, as any
model's are, or after one that begins alike: checks of trainings hold, and a scorer tells characters apart, also by one
of their traits.
"""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import json
import random
import struct
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

from charrun.chat import Chat, Message, load_tokenizer
from charrun.endpoint import Endpoint
from charrun.errors import EnvironmentProblem
from charrun.pipeline.prompt_cache import PromptCache as PromptCache
from charrun.pipeline.prompt_cache import SentBefore, WarmCache
from charrun.pipeline.virtual_time import Clock
from charrun.service.endpoint_sampler import ChatClient, ChatResponse, ChatSequence, EndpointSampler
from charrun.service.models import hub_name, local_folder
from charrun.service.service import Service
from charrun.service.session import Sampler, Session

_LOGPROB, _ALIKE_LOGPROB, _OWN_LOGPROB = -1.0, -0.75, -0.5
_ALIKE = 32
"""Tokens that two prompts begin with that begin alike."""
_DEMO = "charrun/demo-student"
_CONFIG = json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 32, "target_modules": ["layer"]}).encode()
_HEADER = json.dumps(
    {
        f"base_model.model.layer.lora_{side}.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [at, at + 4]}
        for side, at in (("A", 0), ("B", 4))
    }
).encode()
_WEIGHTS = struct.pack("<Q", len(_HEADER)) + _HEADER + struct.pack("<ff", 1.0, 1.0)

Draw = Callable[[str, int], tuple[int, bool]]
"""Length of an answer, given the base model and the most that it may have, and whether that cuts it."""
Note = Callable[[str, int, int, bool], None]
"""Told of each request's base model, how many of its prompt's tokens an engine may find in its cache, how many where
that still has what was sent before, and whether it scores its prompt."""
Seconds = Callable[[str, int], float]
"""How long a request takes, given the base model and the tokens of its longest answer."""
KEPT_SCORED = 512
"""Scoring requests of each model that a dry run keeps for a probe, chosen among all."""


class DryService(Service):
    """A session with nobody.

    Attributes:
        unknown: Models whose tokenizer is not on this machine; charrun's own takes its place.
        bases: Base model of each checkpoint that was sampled from, by its path.
        scored: Some prompts that each base model was to score.
        stepped: Called at each optimizer step.
        lost: Paths of checkpoints that are taken to be gone.

    Args:
        draw: How long answers are.
        texts: What they are made of.
        note: Told what may be in an engine's cache; the answers themselves say that nothing was.
        contexts: Longest prompt plus answer by model, where it is known.
        seconds: How long requests take.
        before: What was sent before; by default nothing.
        warm: Whether an engine's cache may still have that.
    """

    def __init__(
        self,
        draw: Draw,
        note: Note,
        texts: str,
        contexts: dict[str, int],
        seconds: Seconds,
        before: SentBefore | None = None,
        *,
        warm: bool = False,
    ) -> None:
        self._draw = draw
        self.seconds = seconds
        self._texts = texts
        self.note = note
        self.contexts = contexts
        self._before = before
        self._warm = warm
        self._recalled: dict[str, int] = {}
        self._chats_of: dict[str, list[Chat]] = {}
        self._tokens: dict[Chat, list[int]] = {}
        self._dry_chats: dict[str, Chat] = {}
        self._dry_samplers: dict[str, Any] = {}
        self.stepped: Callable[[], None] = lambda: None
        self.unknown: set[str] = set()
        self.lost: Collection[str] = ()
        self.bases: dict[str, str] = {}
        self.scored: dict[str, list[list[int]]] = {}
        self._scores: dict[str, int] = {}
        self._rng = random.Random(0)
        self.made: set[tuple[int, str]] = set()
        """Prompts by hash with the answers that they were given; also by how they begin."""

    def context_length(self, model: str) -> int | None:
        """As the engine says where it was asked, else as the price book does."""
        return self.contexts.get(model)

    async def chat(self, model: str, options: Mapping[str, Any]) -> Chat:
        """The rendering of a model, if its tokenizer is here."""
        key = f"{model} {sorted(options.items())}"
        if key not in self._dry_chats:
            self._dry_chats[key] = Chat(self._tokenizer(model), options, name=model)
            self._chats_of.setdefault(model, []).append(self._dry_chats[key])
        self._dry_chats[model] = self._dry_chats[key]
        return self._dry_chats[key]

    async def begin(self, note: Mapping[str, str]) -> Session:
        """Itself."""
        return self

    async def sampler(self, base_model: str, path: str | None = None) -> Sampler:
        """What answers in a model's place."""
        key = path or base_model
        self.bases[key] = base_model
        if key not in self._dry_samplers:
            warm = WarmCache(self._before, key, base_model) if self._before and self._warm else None
            self._dry_samplers[key] = _Sampler(self, base_model, self._dry_chats[base_model], key, warm)
        self._recall(key, base_model)
        found: Sampler = self._dry_samplers[key]
        return found

    def elsewhere(self, model: str, endpoint: Endpoint, options: Mapping[str, Any], chat: Chat) -> ChatClient:
        """What answers in the place of a model at an endpoint."""
        return _Elsewhere(self, model, endpoint, chat)

    async def new_adapter(self, base_model: str, rank: int, seed: int) -> Any:
        """What trains nothing."""
        return _Trainer(self)

    async def adapter_from(self, state_path: str) -> Any:
        """What trains nothing."""
        return _Trainer(self)

    async def resumed_adapter(self, state_path: str) -> Any:
        """What trains nothing."""
        return _Trainer(self)

    async def exists(self, path: str, expires: float | None = None) -> bool:
        """All that was recorded is taken to be there until it expires, but for trainings that have lost something."""
        return _training(path) not in map(_training, self.lost) and (expires is None or time.time() < expires)

    async def base_model(self, path: str) -> str | None:
        """Nobody says."""
        return None

    async def size(self, *paths: str) -> int | None:
        """Nobody says."""
        return None

    async def delete(self, path: str) -> None:
        """Nothing is deleted."""

    async def download_urls(self, external_path: str) -> dict[str, str]:
        """The smallest adapter there is, so that whatever is made of a checkpoint's files can be foreseen."""
        files = {"adapter_config.json": _CONFIG, "adapter_model.safetensors": _WEIGHTS}
        return {name: f"data:;base64,{base64.b64encode(content).decode()}" for name, content in files.items()}

    async def close(self, status: str = "success") -> None:
        """Nothing was opened."""

    def made_by(self, chat: Chat, prompt: Sequence[int], tokens: Sequence[int]) -> None:
        """Note an answer."""
        answer = chat.answer(tokens)
        self.made |= {(hash(tuple(prompt)), answer), (_beginning(prompt), answer)}

    def _recall(self, key: str, model: str) -> None:
        """What a model or checkpoint was sent before, by those of its renderings that have come since the last call."""
        chats = self._chats_of.get(model, [])
        for chat in chats[self._recalled.get(key, 0) :]:
            for prompt, tokens in self._before.answers(key, chat) if self._before else ():
                self.made_by(chat, prompt, tokens)
                if self._warm:
                    self._dry_samplers[key].recall([*prompt, *tokens])
        self._recalled[key] = len(chats)

    def length(self, model: str, longest: int) -> tuple[int, bool]:
        """How long an answer is, and whether it is cut."""
        return self._draw(model, longest)

    def keep(self, model: str, tokens: list[int]) -> None:
        """Keep a prompt that is scored, as likely as any other one."""
        kept, number = self.scored.setdefault(model, []), self._scores.get(model, 0)
        self._scores[model] = number + 1
        if number < KEPT_SCORED:
            kept.append(tokens)
        elif (place := self._rng.randrange(number + 1)) < KEPT_SCORED:
            kept[place] = tokens

    def text(self, chat: Chat) -> list[int]:
        """Tokens that answers are cut from."""
        if chat not in self._tokens:
            lines = (chat.encode(line) for line in self._texts.splitlines())
            self._tokens[chat] = [token for line in lines for token in line]
        return self._tokens[chat]

    def _tokenizer(self, model: str) -> Any:
        folder = local_folder(model)
        if folder:
            return load_tokenizer(folder)
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(hub_name(model), local_files_only=True)
        except (OSError, ValueError):
            self.unknown.add(model)
        demo = local_folder(_DEMO)
        if demo is None:
            raise EnvironmentProblem(f"charrun's own model {_DEMO} is missing")
        return load_tokenizer(demo)


class _Sampler:
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
            elif (_beginning(prompt), answer) in self._service.made:
                value = _ALIKE_LOGPROB
        return [None, *([value] * (len(tokens) - 1))]


class _Elsewhere:
    """A model at an endpoint, as far as `ctx.sample` uses it; tokens are those of the student's tokenizer."""

    def __init__(self, service: DryService, model: str, endpoint: Endpoint, chat: Chat) -> None:
        self.endpoint = endpoint
        self.room = asyncio.Semaphore(endpoint.concurrency)
        self._sampler = _Sampler(service, model, chat, model)
        self._chat = chat

    def __getattr__(self, name: str) -> Any:
        return getattr(EndpointSampler(self.endpoint, {}), name)

    def complete(
        self, messages: Sequence[Message], num_samples: int, params: Mapping[str, Any], *, seed: int, prefill: str
    ) -> Any:
        """Answers cut from the texts."""
        prompt = self._chat.prompt(messages, prefill)
        return self._sampler.texts(prompt, num_samples, int(params["max_tokens"]))


class _Trainer:
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


def _training(path: str) -> str:
    """What of a checkpoint's path names its training: earlier states of it go no later than what it ended with."""
    return path.removeprefix("tinker://").partition("/")[0]


def _beginning(prompt: Sequence[int]) -> int:
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
