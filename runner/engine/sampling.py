"""Which sampling requests run next: batches of equal weights, admitted in the order of their arrival."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from charrun.engine.causal import CausalLM
from charrun.engine.decoding import DecodingBatch
from charrun.engine.errors import RequestRefused
from charrun.engine.lora import Adapter, merged
from charrun.engine.models import HostedModel
from charrun.engine.requests import SampleJob
from charrun.engine.settings import EngineSettings
from charrun.engine.slots import round_length, round_rows
from charrun.engine.training import micro_batches

STEPS_PER_TURN = 4
"""Decoding steps of one batch before the next batch has its turn."""
PATIENCE = 0.05
"""Seconds that a request waits for others to share its prompt pass with, while a batch is running."""
LOOK_AHEAD = 512
"""Waiting requests that are sorted by length at a time."""


@dataclass(frozen=True)
class Weights:
    """Weights to sample from.

    Attributes:
        key: Equal for equal weights.
        model: The base model.
        adapter: Reads the adapter; None for the base model itself.
    """

    key: str
    model: HostedModel
    adapter: Callable[[], Adapter] | None = field(default=None, compare=False)


class _Queue:
    """The requests and the running batch of one set of weights."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.waiting: deque[tuple[float, SampleJob]] = deque()
        self.scoring: deque[tuple[float, SampleJob]] = deque()
        self.batch: DecodingBatch | None = None

    @property
    def cache_bytes(self) -> int:
        """Memory that the batch's keys and values hold."""
        if self.batch is None or not self.batch.rows:
            return 0
        slots, positions = self.batch.slots.capacity
        return slots * positions * self.batch.model.cache_bytes_per_position

    @property
    def oldest(self) -> float:
        """When the request that waits longest arrived."""
        return min((queue[0][0] for queue in (self.waiting, self.scoring) if queue), default=float("inf"))

    @property
    def rows(self) -> int:
        return len(self.batch.rows) if self.batch is not None else 0

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.scoring or self.rows)

    def drop_cancelled(self) -> None:
        """Forgets requests whose clients gave up before they began."""
        for name in ("waiting", "scoring"):
            line: deque[tuple[float, SampleJob]] = getattr(self, name)
            if any(job.cancelled for _, job in line):
                setattr(self, name, deque(entry for entry in line if not entry[1].cancelled))

    def refuse(self, error: Exception) -> None:
        """Answers all that wait with an error."""
        for _, job in [*self.waiting, *self.scoring]:
            job.fail(error)
        self.waiting.clear()
        self.scoring.clear()


class SamplingScheduler:
    """Serves sampling jobs on the compute thread.

    Every set of weights has one running batch; batches take turns of a few steps. New requests join the running
    batch of their weights. Memory for keys and values is shared, and given in the order of arrival: while the
    request that waits longest does not fit, no other is let in before it, so that nobody waits for ever.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._queues: OrderedDict[str, _Queue] = OrderedDict()
        self._shelf: OrderedDict[str, CausalLM] = OrderedDict()

    @property
    def has_work(self) -> bool:
        return bool(self._queues)

    def add(self, weights: Weights, job: SampleJob) -> None:
        """Queues a job."""
        queue = self._queues.setdefault(weights.key, _Queue(weights))
        line = queue.scoring if job.spec.max_tokens == 1 else queue.waiting
        line.append((time.monotonic(), job))

    def work(self, seconds: float) -> None:
        """Works on the queue for about so long, or until it is empty."""
        deadline = time.monotonic() + seconds
        while self._queues and time.monotonic() < deadline:
            self._admit()
            for queue in list(self._queues.values()):
                self._turn(queue)
                if queue.idle:
                    del self._queues[queue.weights.key]

    def _turn(self, queue: _Queue) -> None:
        batch = queue.batch
        if batch is None:
            return
        try:
            for _ in range(STEPS_PER_TURN):
                if batch.rows:
                    batch.step()
        except Exception as error:
            batch.fail(error)

    def _admit(self) -> None:
        for queue in sorted(self._queues.values(), key=lambda each: each.oldest):
            queue.drop_cancelled()
            batch = self._open(queue)
            if batch is None:
                continue
            if queue.scoring:
                self._score(queue, batch)
            if queue.waiting:
                jobs, blocked = self._admissible(queue, batch)
                if jobs:
                    self._start(queue, batch, jobs)
                if blocked:
                    return

    def _open(self, queue: _Queue) -> DecodingBatch | None:
        """The queue's batch; where its weights cannot be had, all that wait are told so."""
        if queue.batch is None:
            try:
                queue.batch = DecodingBatch(self._weights(queue.weights))
            except Exception as error:
                queue.refuse(error)
        return queue.batch

    def _score(self, queue: _Queue, batch: DecodingBatch) -> None:
        jobs = [job for _, job in list(queue.scoring)[:LOOK_AHEAD]]
        chosen = set(map(id, self._first_micro_batch(jobs)))
        queue.scoring = deque(entry for entry in queue.scoring if id(entry[1]) not in chosen)
        self._run(batch, batch.score, [job for job in jobs if id(job) in chosen])

    def _start(self, queue: _Queue, batch: DecodingBatch, jobs: list[SampleJob]) -> None:
        waited = time.monotonic() - queue.oldest
        if queue.rows and waited < PATIENCE and sum(job.spec.samples for job in jobs) < queue.rows // 8:
            return
        chosen = set(map(id, self._first_micro_batch(jobs)))
        queue.waiting = deque(entry for entry in queue.waiting if id(entry[1]) not in chosen)
        self._run(batch, batch.admit, [job for job in jobs if id(job) in chosen])

    def _first_micro_batch(self, jobs: list[SampleJob]) -> list[SampleJob]:
        """Of jobs in order of arrival, those of similar length that share a prompt pass with the first."""
        lengths = [len(job.spec.prompt) for job in jobs]
        for numbers in micro_batches(lengths, self._settings.prefill_tokens):
            if 0 in numbers:
                return [jobs[number] for number in numbers]
        return []

    def _run(self, batch: DecodingBatch, serve: Callable[[list[SampleJob]], None], jobs: list[SampleJob]) -> None:
        if not jobs:
            return
        try:
            serve(jobs)
        except Exception as error:
            for job in jobs:
                job.fail(error)
            batch.fail(error)

    def _admissible(self, queue: _Queue, batch: DecodingBatch) -> tuple[list[SampleJob], bool]:
        """The waiting jobs that fit now, in order, and whether one did not for want of memory."""
        settings = self._settings
        others = sum(each.cache_bytes for each in self._queues.values() if each is not queue)
        slots, positions = batch.slots.capacity
        rows, jobs = queue.rows, list[SampleJob]()
        for _, job in list(queue.waiting)[:LOOK_AHEAD]:
            rows += job.spec.samples
            slots, positions = max(slots, round_rows(rows)), max(positions, round_length(job.spec.positions))
            fits = slots * positions * batch.model.cache_bytes_per_position + others <= settings.cache_bytes
            alone = rows == job.spec.samples and not others
            if rows > settings.max_sequences and not alone:
                return jobs, False
            if not fits and not alone:
                return jobs, True
            jobs.append(job)
        return jobs, False

    def _weights(self, weights: Weights) -> CausalLM:
        """The model to run: the base, or a copy with the adapter merged in, of which the latest ones are kept."""
        base = weights.model.weights()
        if weights.adapter is None:
            return base
        if weights.key not in self._shelf:
            self._shelf[weights.key] = merged(base, weights.adapter())
        self._shelf.move_to_end(weights.key)
        while len(self._shelf) > 1 and self._shelf_bytes() > self._settings.sampler_bytes:
            self._shelf.popitem(last=False)
        return self._shelf[weights.key]

    def _shelf_bytes(self) -> int:
        return sum(model.own_bytes for model in self._shelf.values())

    def forget(self, key: str) -> None:
        """Drops merged weights that nobody will ask for again and refuses what still waits for them."""
        self._shelf.pop(key, None)
        queue = self._queues.get(key)
        if queue is not None:
            queue.refuse(RequestRefused("The session of this sampler was finished."))
