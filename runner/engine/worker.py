"""The one compute thread: training operations and sampling take turns, so that neither starves the other."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import torch

from charrun.engine.requests import SampleJob
from charrun.engine.sampling import SamplingScheduler, Weights
from charrun.engine.settings import EngineSettings

SHORTEST_SLICE, LONGEST_SLICE = 0.05, 1.0
"""Seconds of sampling between two training operations: as long as the last one took, within these."""

logger = logging.getLogger(__name__)


class Worker:
    """Runs everything that touches a model's weights."""

    def __init__(self, settings: EngineSettings) -> None:
        self._threads = settings.compute_threads
        self._limit = settings.max_waiting
        self._scheduler = SamplingScheduler(settings)
        self._operations: deque[Callable[[], None]] = deque()
        self._arrivals: deque[tuple[Weights, SampleJob]] = deque()
        self._open = 0
        self._wake = threading.Condition()
        self._stopping = False
        self.busy_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience: float) -> None:
        """Lets the operation that runs finish and ends the thread, waiting at most so many seconds."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(patience)

    @property
    def crowded(self) -> bool:
        """Whether so many sequences wait that clients should come back later."""
        return self._open >= self._limit

    def run_soon(self, operation: Callable[[], None]) -> None:
        """Queues an operation; operations run in the order in which they come."""
        with self._wake:
            self._operations.append(operation)
            self._wake.notify()

    def sample(self, weights: Weights, job: SampleJob) -> None:
        """Queues a sampling job."""
        with self._wake:
            self._arrivals.append((weights, job))
            self._open += job.spec.samples
            self._wake.notify()

    def closed(self, job: SampleJob) -> None:
        """Counts a job out that was answered."""
        with self._wake:
            self._open -= job.spec.samples

    def _run(self) -> None:
        torch.set_num_threads(self._threads)
        while self._wait():
            began = time.monotonic()
            took = 0.0
            if self._operations:
                started = time.monotonic()
                self._operate(self._operations.popleft())
                took = time.monotonic() - started
            self._take_arrivals()
            if self._scheduler.has_work:
                pressed = bool(self._operations)
                self._scheduler.work(min(max(took, SHORTEST_SLICE), LONGEST_SLICE) if pressed else SHORTEST_SLICE)
            self.busy_seconds += time.monotonic() - began

    def _wait(self) -> bool:
        """Waits for work; False when the thread should end."""
        with self._wake:
            while not (self._operations or self._arrivals or self._scheduler.has_work or self._stopping):
                self._wake.wait()
            return not self._stopping

    def _operate(self, operation: Callable[[], None]) -> None:
        try:
            operation()
        except Exception:
            logger.exception("an operation failed without an answer")

    def _take_arrivals(self) -> None:
        while self._arrivals:
            self._scheduler.add(*self._arrivals.popleft())
