"""What takes the place of computing: answers cut from texts, trainings that only count, all at their time."""

from __future__ import annotations

import heapq
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoTokenizer

import charrun.specs
from charrun.engine.adam import AdamStep
from charrun.engine.causal import CausalLM
from charrun.engine.desk import Desk
from charrun.engine.lora import LoraSpec
from charrun.engine.losses import Loss
from charrun.engine.requests import PromptScores, SampleJob, SampleResult
from charrun.engine.requests import Sequence as Sampled
from charrun.engine.sampling import Weights
from charrun.engine.settings import EngineSettings
from charrun.engine.training import Datum, PassResult, TrainingRun
from charrun.engine.worker import Worker
from charrun.pipeline.dry_service import PromptCache
from service_sim.meter import Meter

LOGPROB, OWN_LOGPROB = -1.0, -0.5
"""Of any token; of an answer's after the very prompt that it was made for."""


@dataclass(frozen=True)
class Service:
    """How the service behaves.

    Attributes:
        tokens: Mean length of an answer, in tokens.
        spread: Standard deviation of the logarithm of lengths.
        seconds: Of a request until its first token.
        token_seconds: For each token of an answer.
        jitter: Standard deviation of the logarithm of a request's time.
        cap: Sequences at once; more are answered with 429.
        cycle: Seconds of a training clock cycle; 0 trains at once.
    """

    tokens: float = 60.0
    spread: float = 0.4
    seconds: float = 0.0
    token_seconds: float = 0.0
    jitter: float = 0.0
    cap: int = 1_000_000
    cycle: float = 0.0


class SimWorker(Worker):
    """Does each piece of work when its time has come, in one thread."""

    def __init__(self, settings: EngineSettings, service: Service, meter: Meter) -> None:
        self.busy_seconds = 0.0
        self._service = service
        self._meter = meter
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._open = 0
        self._stopping = False
        self._wake = threading.Condition()
        self._started = time.monotonic()
        self._answers = Answers(service)
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    @property
    def crowded(self) -> bool:
        """Whether clients should come back later."""
        return self._open >= self._service.cap

    def run_soon(self, operation: Callable[[], None]) -> None:
        """Queues an operation for the next clock cycle."""
        cycle, now = self._service.cycle, time.monotonic()
        due = self._started + math.ceil((now - self._started) / cycle) * cycle if cycle else now
        self._at(due, operation)

    def sample(self, weights: Weights, job: SampleJob) -> None:
        """Queues a sampling job for when it is done."""
        answers = self._answers.of(weights, job)
        longest = max(len(each.tokens) for each in answers)
        rng = random.Random(hash((job.spec.prompt.tobytes(), job.spec.seed)))
        seconds = (self._service.seconds + longest * self._service.token_seconds) * math.exp(
            rng.gauss(0, self._service.jitter)
        )
        with self._wake:
            self._open += job.spec.samples

        def finish() -> None:
            if job.cancelled:
                return
            spec = job.spec
            hits, scores = self._answers.hits(weights, spec.prompt), self._answers.scores(weights, job)
            tokens = sum(len(each.tokens) for each in answers)
            self._meter.sampled(
                job.request_id.partition(":")[0], weights.model.name, len(spec.prompt), hits, spec.samples, tokens
            )
            job.finish(SampleResult(answers, scores, hits))

        self._at(time.monotonic() + seconds, finish)

    def _at(self, due: float, work: Callable[[], None]) -> None:
        with self._wake:
            heapq.heappush(self._due, (due, next(self._numbers), work))
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._stopping and (not self._due or self._due[0][0] > time.monotonic()):
                    self._wake.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if self._stopping:
                    return
                work = heapq.heappop(self._due)[2]
            self._operate(work)


class Answers:
    """Texts of given lengths that depend on nothing but the request, and a cache of prompts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._text = (Path(charrun.specs.__path__[0]) / "prompts" / "general.txt").read_text(encoding="utf-8")
        self._made: set[tuple[int, str]] = set()
        self._cached: dict[str, PromptCache] = {}
        self._source = cache(self._tokens)

    def of(self, weights: Weights, job: SampleJob) -> list[Sampled]:
        """A job's sequences."""
        spec = job.spec
        tokenizer, source, end = self._source(weights.model.folder)
        found = []
        for index in range(spec.samples):
            rng = random.Random(f"{spec.prompt.tobytes().hex()} {spec.seed} {index}")
            wanted = max(2, round(self._service.tokens * math.exp(rng.gauss(0, self._service.spread))))
            length = min(wanted, spec.max_tokens)
            start = rng.randrange(len(source) - length)
            stopped = length == wanted
            tokens = [*source[start : start + length - 1], end] if stopped else source[start : start + length]
            text = tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=False).strip()
            self._made.add((hash(spec.prompt.tobytes()), text))
            found.append(Sampled(tokens, [LOGPROB] * length, stopped))
        return found

    def hits(self, weights: Weights, prompt: Any) -> int:
        """How much of a prompt is in the cache; it is from now on."""
        return self._cached.setdefault(weights.key, PromptCache()).hits(prompt.tolist())

    def scores(self, weights: Weights, job: SampleJob) -> PromptScores | None:
        """Log-probs of the prompt's own tokens, where they are asked for."""
        spec = job.spec
        if spec.score_from is None:
            return None
        scores = PromptScores.empty(spec)
        assert scores.logprobs is not None
        tokenizer, _, end = self._source(weights.model.folder)
        completion = [token for token in spec.prompt[spec.score_from :].tolist() if token != end]
        text = tokenizer.decode(completion, skip_special_tokens=False).strip()
        own = (hash(spec.prompt[: spec.score_from].tobytes()), text) in self._made
        scores.logprobs[spec.score_from :] = OWN_LOGPROB if own else LOGPROB
        return scores

    def _tokens(self, folder: Path) -> tuple[Any, list[int], int]:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        lines = (tokenizer.encode(line, add_special_tokens=False) for line in self._text.splitlines())
        return tokenizer, [token for line in lines for token in line], int(tokenizer.eos_token_id)


class SimTraining(TrainingRun):
    """A training run that counts and moves nothing. Its adapter is a real one, and is saved as one.

    Attributes:
        meter: The service's.
        names: Served names by folder, each of which has one.
        desk: The server's parts.
    """

    meter: ClassVar[Meter]
    names: ClassVar[Mapping[Path, str]]
    desk: ClassVar[list[Desk]] = []

    def __init__(self, base: CausalLM, spec: LoraSpec, folder: Path, activation_bytes: int) -> None:
        super().__init__(base, spec, folder, activation_bytes)
        self._name = self.names[folder]

    @cached_property
    def _session(self) -> str:
        """Whose training run this is."""
        sessions = self.desk[0].sessions.all()
        found = (each.id for each in sessions for run in each.runs.values() if run.training is self)
        return next(found, "")

    def run(self, data: Sequence[Datum], loss: Loss, backward: bool) -> PassResult:
        """Log-probs, all the same."""
        self.meter.passed(self._session, self._name, sum(len(datum.tokens) for datum in data), backward)
        logprobs = [np.full(datum.targets.shape, LOGPROB, np.float32) for datum in data]
        return PassResult(logprobs, 0.0)

    def optim_step(self, adam: AdamStep) -> dict[str, float]:
        """A step that goes nowhere."""
        self.step += 1
        return {"step:max": float(self.step)}

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """No moments."""
        return {}
