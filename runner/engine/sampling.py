"""Which sampling requests run next, and where: one station per base model, its requests in the order of arrival."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch

from charrun.engine.blocks import BLOCK, BlockPool, Parent, blocks_for
from charrun.engine.errors import RequestRefused
from charrun.engine.fused import FusedComputer
from charrun.engine.general import GeneralComputer
from charrun.engine.lanes import Lane, Lanes, Prompt, Turn
from charrun.engine.lora import Adapter, merged
from charrun.engine.models import HostedModel
from charrun.engine.packed_batch import Computer, Network
from charrun.engine.requests import SampleJob
from charrun.engine.settings import EngineSettings

logger = logging.getLogger(__name__)

STEPS_PER_TURN = 4
"""Decoding steps before finished sequences are handed over and new requests let in."""
LOOK_AHEAD = 64
"""Waiting requests that are looked at while the first ones wait for a prompt that others compute."""


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


class Crew:
    """Threads that each carry a part of a model's sequences through the model."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(size, "sampling", initializer=torch.set_num_threads, initargs=(1,))

    def turns(self, several: list[Lanes], steps: int) -> list[Turn]:
        """A turn of each, side by side."""
        return list(self._threads.map(lambda lanes: lanes.turn(steps), several))


class Station:
    """One base model's running sequences, its cache of keys and values, and the requests that wait."""

    def __init__(self, model: HostedModel, settings: EngineSettings, crew: Crew) -> None:
        causal = model.weights()
        count = settings.cache_blocks(causal.cache_bytes_per_position * BLOCK, model.context)
        self.computer: Computer = FusedComputer.of(causal, count) or GeneralComputer(causal, count)
        self.pool = BlockPool(count)
        self.waiting: deque[tuple[Weights, SampleJob]] = deque()
        self._settings = settings
        self._crew = crew
        parts = crew.size if self.computer.parallel else 1
        self._parts = [Lanes(self.computer, settings.prefill_tokens) for _ in range(parts)]
        self._computing: dict[tuple[Parent, bytes], Prompt] = {}

    @property
    def rows(self) -> int:
        """Sequences that run."""
        return sum(len(part.all_lanes()) for part in self._parts)

    @property
    def busy(self) -> bool:
        return bool(self.waiting) or any(part.busy for part in self._parts)

    def turn(self, network: Callable[[Weights], Network]) -> None:
        """Lets requests in, takes some steps, and hands over what is finished."""
        self._admit(network)
        parts = [part for part in self._parts if part.busy]
        if not parts:
            return
        if self.computer.parallel:
            turns = self._crew.turns(parts, STEPS_PER_TURN)
        else:
            turns = [part.turn(STEPS_PER_TURN) for part in parts]
        for part, turn in zip(parts, turns, strict=True):
            self._collect(part, turn)

    def _collect(self, part: Lanes, turn: Turn) -> None:
        """Hands over what a turn gave, and only then looks after the blocks."""
        failed = part.all_lanes() if turn.error is not None else []
        for lane in turn.ended:
            if not lane.job.cancelled:
                lane.job.add(lane.index, lane.result())
        for job in {id(lane.job): lane.job for lane in failed}.values():
            assert turn.error is not None
            job.cancelled = True  # samples of it that wait need not begin
            job.fail(turn.error)
        for prompt in turn.completed:
            self.pool.remember(prompt.lanes[0].weights, prompt.job.spec.prompt, prompt.lanes[0].blocks)
            prompt.computed = True
        for lane in turn.ended + failed:
            self._free(lane)
        if failed:
            part.clear()
        self._computing = {
            name: prompt for name, prompt in self._computing.items() if not (prompt.computed or prompt.job.cancelled)
        }

    def fail(self, error: Exception) -> None:
        """Answers every request that runs or waits with an error."""
        running = [lane.job for part in self._parts for lane in part.all_lanes()]
        for job in {id(job): job for job in [*running, *(job for _, job in self.waiting)]}.values():
            if len(job.sequences) < job.spec.samples:
                job.fail(error)

    def _free(self, lane: Lane) -> None:
        """Gives a lane's blocks back; what they hold stays findable."""
        spec = lane.job.spec
        if lane.tokens:
            known = np.concatenate([spec.prompt, np.array(lane.tokens[:-1], np.int64)])
            self.pool.remember(lane.weights, known, lane.blocks)
        self.pool.give_back(lane.blocks)

    def _admit(self, network: Callable[[Weights], Network]) -> None:
        """Lets waiting requests in, in their order, while there is room."""
        room = self._settings.max_sequences - self.rows if self.waiting else 0
        later: list[tuple[Weights, SampleJob]] = []
        while self.waiting and room > 0 and len(later) < LOOK_AHEAD:
            weights, job = self.waiting.popleft()
            if job.cancelled:
                continue
            try:
                begun = self._begin(weights, job, room, network)
            except Exception as error:
                job.fail(error)
                continue
            room -= begun or 0
            if begun is None:
                later.append((weights, job))
            elif job.begun < job.spec.samples:  # there is no room for the rest: nobody may overtake
                self.waiting.appendleft((weights, job))
                break
        self.waiting.extendleft(reversed(later))

    def _begin(self, weights: Weights, job: SampleJob, room: int, network: Callable[[Weights], Network]) -> int | None:
        """Starts as many of a request's samples as there is room for.

        Returns:
            Their number, or None where another request just computes the prompt that this one begins with.

        Raises:
            RequestRefused: Not even one sample fits into an empty cache.
        """
        spec, length = job.spec, len(job.spec.prompt)
        first = length - 1 if job.begun else spec.first_state
        found, missing = self.pool.find(weights.key, spec.prompt, first // BLOCK)
        if missing in self._computing:
            return None
        total, full = blocks_for(spec.positions - 1), length // BLOCK
        if total > self.pool.count:
            raise RequestRefused(
                f"The prompt and max_tokens take {spec.positions} positions; the engine has memory for keys and values "
                f"of {self.pool.count * BLOCK}."
            )
        own = network(weights)  # before blocks are lent: an adapter that cannot be read must not cost any
        self.pool.share(found)
        fits = 1 + (self.pool.available - (total - len(found))) // max(1, total - full)
        samples = min(spec.samples - job.begun, room, fits) if self.pool.available >= total - len(found) else 0
        if not samples:
            self.pool.give_back(found)
            return 0
        blocks = found + self.pool.lend(total - len(found))
        shared = blocks[:full]
        lists = [blocks]
        for _ in range(samples - 1):
            self.pool.share(shared)
            lists.append(shared + self.pool.lend(total - full))
        lanes = [Lane(job, job.begun + number, weights.key, own, some) for number, some in enumerate(lists)]
        prompt = Prompt(lanes, len(found) * BLOCK, first)
        if missing is not None:
            self._computing[missing] = prompt
        if not job.begun:
            job.cached_tokens = prompt.done
        job.begun += samples
        min(self._parts, key=lambda part: part.load).add(prompt)
        return samples


class SamplingScheduler:
    """Serves sampling jobs: the stations take turns."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._crew = Crew(settings.compute_threads)
        self._stations: dict[str, Station] = {}
        self._arrivals: OrderedDict[str, deque[tuple[Weights, SampleJob]]] = OrderedDict()
        self._shelf: OrderedDict[str, Network] = OrderedDict()

    @property
    def has_work(self) -> bool:
        return bool(self._arrivals) or any(station.busy for station in self._stations.values())

    def add(self, weights: Weights, job: SampleJob) -> None:
        """Queues a job."""
        self._arrivals.setdefault(weights.model.name, deque()).append((weights, job))

    def work(self, seconds: float) -> None:
        """Works on the queue for about so long, or until it is empty."""
        deadline = time.monotonic() + seconds
        while self.has_work and time.monotonic() < deadline:
            self._distribute()
            for name, station in list(self._stations.items()):
                if not station.busy:
                    continue
                try:
                    station.turn(self._network)
                except Exception as error:  # nothing is known of its state: the next request gets a new one
                    logger.exception("sampling from %s failed", name)
                    del self._stations[name]
                    station.fail(error)

    def _distribute(self) -> None:
        """Brings arrivals to their stations; the first request for a model loads it."""
        while self._arrivals:
            name, arrived = self._arrivals.popitem(last=False)
            try:
                if name not in self._stations:
                    self._stations[name] = Station(arrived[0][0].model, self._settings, self._crew)
                self._stations[name].waiting += arrived
            except Exception as error:
                for _, job in arrived:
                    job.fail(error)

    def _network(self, weights: Weights) -> Network:
        """The base weights, or those with the adapter merged in, of which the latest ones are kept."""
        if weights.key not in self._shelf:
            causal = weights.model.weights()
            if weights.adapter is not None:
                causal = merged(causal, weights.adapter())
            self._shelf[weights.key] = self._stations[weights.model.name].computer.network(causal)
        self._shelf.move_to_end(weights.key)
        while len(self._shelf) > 1 and self._shelf_bytes() > self._settings.sampler_bytes:
            self._shelf.popitem(last=False)
        return self._shelf[weights.key]

    def _shelf_bytes(self) -> int:
        return sum(network.own_bytes for network in self._shelf.values())
