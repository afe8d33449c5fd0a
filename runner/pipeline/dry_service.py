"""What takes an engine's place in a dry run: it answers at once, with texts of given lengths, and trains nothing.

Log-probs are the same for every token, and higher for an answer after the very prompt that it was made for, as any
model's are, or after one that begins alike: checks of trainings hold, and a scorer tells characters apart, also by one
of their traits.
"""

from __future__ import annotations

import base64
import json
import random
import struct
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from charrun.chat import Chat, load_tokenizer
from charrun.endpoint import Endpoint
from charrun.errors import EnvironmentProblem
from charrun.pipeline.dry_clients import DryEndpoint, DrySampler, DryTrainer, beginning
from charrun.pipeline.prompt_cache import SentBefore, WarmCache
from charrun.service.endpoint_sampler import ChatClient
from charrun.service.models import hub_name, local_folder
from charrun.service.service import Service
from charrun.service.session import Sampler, Session

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
            self._dry_samplers[key] = DrySampler(self, base_model, self._dry_chats[base_model], key, warm)
        self._recall(key, base_model)
        found: Sampler = self._dry_samplers[key]
        return found

    def elsewhere(self, model: str, endpoint: Endpoint, options: Mapping[str, Any], chat: Chat) -> ChatClient:
        """What answers in the place of a model at an endpoint."""
        return DryEndpoint(self, model, endpoint, chat)

    async def new_adapter(self, base_model: str, rank: int, seed: int) -> Any:
        """What trains nothing."""
        return DryTrainer(self)

    async def adapter_from(self, state_path: str) -> Any:
        """What trains nothing."""
        return DryTrainer(self)

    async def resumed_adapter(self, state_path: str) -> Any:
        """What trains nothing."""
        return DryTrainer(self)

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
        self.made |= {(hash(tuple(prompt)), answer), (beginning(prompt), answer)}

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


def _training(path: str) -> str:
    """What of a checkpoint's path names its training: earlier states of it go no later than what it ended with."""
    return path.removeprefix("tinker://").partition("/")[0]
