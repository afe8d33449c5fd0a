"""What takes the place of computing: answers cut from texts, trainings that only count, all at their time."""

from __future__ import annotations

import heapq
import math
import os
import random
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoTokenizer

import charrun.specs
from charrun.engine.adam import AdamStep
from charrun.engine.causal import CausalLM
from charrun.engine.desk import Operation, settle
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import Outcome, Ticket
from charrun.engine.lora import LoraSpec
from charrun.engine.losses import Loss
from charrun.engine.requests import PromptScores, SampleJob, SampleResult
from charrun.engine.requests import Sequence as Sampled
from charrun.engine.sampling import Weights
from charrun.engine.settings import EngineSettings
from charrun.engine.training import Datum, PassResult, TrainingRun
from charrun.engine.worker import Worker
from charrun.pipeline.prompt_cache import PromptCache
from service_sim.jobs import JobLog, Texts, data_name, named
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
        most_rank: Highest LoRA rank that it trains.
        lost: Share of answers that the service bills and loses (410).
        cycle: Seconds of a training clock cycle, in which a training takes one optimizer step at the most; 0 trains at
            once.
        prices: US dollars per million tokens by model: `prefill`, `sample`, `train`; its billing rows estimate by them.
    """

    tokens: float = 60.0
    spread: float = 0.4
    seconds: float = 0.0
    token_seconds: float = 0.0
    jitter: float = 0.0
    cap: int = 1_000_000
    lost: float = 0.0
    most_rank: int = 512
    cycle: float = 0.0
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class SimWorker(Worker):
    """Does each piece of work when its time has come, in one thread."""

    def __init__(self, settings: EngineSettings, service: Service, meter: Meter, log: JobLog) -> None:
        self.busy_seconds = 0.0
        self.log = log
        self.texts = Texts()
        self.told: dict[str, Any] = {}
        """What the training operation that runs now says of itself, and
        session: whose it is."""
        self.session = ""
        self.most_rank = service.most_rank
        self.lose: Callable[[str], None] = lambda request_id: None
        self._chance = random.Random(7)
        self._queues: dict[str, deque[tuple[Ticket, Operation, float]]] = {}
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
        """Queues a training's operation for the next clock cycle."""
        if not isinstance(operation, partial) or operation.func is not settle:
            self._at(time.monotonic(), operation)
            return
        ticket, work = operation.args
        key = ticket.request_id.rpartition(":")[0]
        with self._wake:
            queue = self._queues.setdefault(key, deque())
            queue.append((ticket, work, self.log.now()))
            if len(queue) == 1:
                self._at(self._next_cycle(), partial(self._train, key))

    def _next_cycle(self) -> float:
        cycle, now = self._service.cycle, time.monotonic()
        return self._started + (math.floor((now - self._started) / cycle) + 1) * cycle if cycle else now

    def _train(self, key: str) -> None:
        """What a training does in one clock cycle."""
        queue = self._queues[key]
        while True:
            ticket, work, arrived = queue[0]
            self.told, self.session = {"kind": "other"}, key.partition(":")[0]

            def watched(work: Operation = work) -> Outcome:
                outcome = work()
                if isinstance(outcome, Mapping) and "path" in outcome:
                    kind = "save" if str(outcome["type"]).startswith("save") else "load"
                    self.told = {"kind": kind, "path": outcome["path"]}
                return outcome

            settle(ticket, watched)
            self.log.done(self.session, arrived, queue=key, **self.told)
            with self._wake:
                queue.popleft()
                if not queue:
                    return
                if self.told["kind"] == "step" and self._service.cycle:
                    self._at(self._next_cycle(), partial(self._train, key))
                    return

    def sample(self, weights: Weights, job: SampleJob) -> None:
        """Queues a sampling job for when it is done."""
        answers = self._answers.of(weights, job)
        longest, arrived = max(len(each.tokens) for each in answers), self.log.now()
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
            session, folder = job.request_id.partition(":")[0], weights.model.folder
            self._meter.sampled(session, weights.model.name, len(spec.prompt), hits, spec.samples, tokens)
            _, path, _ = f"{weights.key}||".split("|", 2)
            about = {"path": path} if path else {}
            is_score = spec.score_from is not None
            made = [] if is_score else [named(text) for text in self._answers.texts(weights, answers)]
            self.log.done(
                session,
                arrived,
                kind="score" if is_score else "sample",
                seconds=round(seconds, 4),
                samples=spec.samples,
                texts=self.texts.within(folder, spec.prompt),
                made=made,
                **about,
            )
            job.finish(SampleResult(answers, scores, hits))
            if self._chance.random() < self._service.lost:
                self.lose(job.request_id)

        self._at(time.monotonic() + seconds, finish)

    def _at(self, due: float, work: Callable[[], None]) -> None:
        with self._wake:  # a lock that its holder may take again
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
            try:
                work()
            except Exception:  # an instrument that is broken measures nothing
                traceback.print_exc()
                os._exit(1)


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
            name = weights.key.split("|")[1].rpartition("/")[2] if "|" in weights.key else ""  # of a checkpoint
            rng = random.Random(f"{spec.prompt.tobytes().hex()} {spec.seed} {index} {name}")
            wanted = max(2, round(self._service.tokens * math.exp(rng.gauss(0, self._service.spread))))
            length = min(wanted, spec.max_tokens)
            start = rng.randrange(len(source) - length)
            stopped = length == wanted
            tokens = [*source[start : start + length - 1], end] if stopped else source[start : start + length]
            text = tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=False).strip()
            self._made.add((hash(spec.prompt.tobytes()), text))
            found.append(Sampled(tokens, [LOGPROB] * length, stopped))
        return found

    def texts(self, weights: Weights, answers: Sequence[Sampled]) -> list[str]:
        """What answers say."""
        tokenizer, _, end = self._source(weights.model.folder)
        whole = [each.tokens[:-1] if each.tokens[-1] == end else each.tokens for each in answers]
        return [tokenizer.decode(tokens, skip_special_tokens=False).strip() for tokens in whole]

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
        worker: The service's.
        names: Served names by folder, each of which has one.
    """

    meter: ClassVar[Meter]
    worker: ClassVar[SimWorker]
    names: ClassVar[Mapping[Path, str]]

    def __init__(self, base: CausalLM, spec: LoraSpec, folder: Path, activation_bytes: int) -> None:
        if spec.rank > self.worker.most_rank:
            raise RequestRefused(f"LoRA rank {spec.rank} is more than {self.worker.most_rank}.")
        super().__init__(base, spec, folder, activation_bytes)
        self._name = self.names[folder]
        self._folder = folder

    def run(self, data: Sequence[Datum], loss: Loss, backward: bool) -> PassResult:
        """Log-probs, all the same."""
        self.meter.passed(self.worker.session, self._name, sum(len(datum.tokens) for datum in data), backward)
        self.worker.told = {
            "kind": "backward" if backward else "forward",
            "data": data_name(datum.tokens for datum in data),
            "texts": [name for datum in data for name in self.worker.texts.within(self._folder, datum.tokens)],
        }
        logprobs = [np.full(datum.targets.shape, LOGPROB, np.float32) for datum in data]
        return PassResult(logprobs, 0.0)

    def optim_step(self, adam: AdamStep) -> dict[str, float]:
        """A step that goes nowhere."""
        self.step += 1
        self.worker.told = {"kind": "step"}
        return {"step:max": float(self.step)}

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """No moments."""
        return {}
