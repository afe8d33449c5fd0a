"""How long the service's jobs take at the least, by what needs what; and done a few at a time, stage after stage.

A job needs those whose answers it was given, the save of the checkpoint that it uses, and in a training all that come
before it; a backward pass needs the answer of a forward pass over the same rows, and a training's first one what was
asked for to check it before. A training does what has come until a
clock cycle begins, up to and with one optimizer step, as the service does it.
"""

from __future__ import annotations

import heapq
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SAMPLING = ("sample", "score")


@dataclass
class Job:
    """A job of the log.

    Attributes:
        kind: What it is.
        stage: Whose it is.
        seconds: What the service takes for it, once it has begun; of sampling.
        samples: Sequences.
        queue: The training that it belongs to.
        needs: Numbers of jobs whose results it was made from.
        arrived: When it came, and
        done: was done, in the run that was seen.
    """

    kind: str
    stage: str
    seconds: float
    samples: int
    queue: str
    arrived: float
    done: float
    needs: set[int] = field(default_factory=set)


def read_jobs(path: Path) -> list[Job]:
    """The log, in the order in which its jobs came, with what each needs."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    lines.sort(key=lambda line: line["arrived"])
    jobs: list[Job] = []
    makers: dict[str, list[int]] = defaultdict(list)
    passes: dict[tuple[str, str], list[int]] = defaultdict(list)
    begun: set[str] = set()
    for number, line in enumerate(lines):
        queue = line.get("queue", "")
        job = Job(
            line["kind"],
            line["stage"],
            line.get("seconds", 0.0),
            line.get("samples", 1),
            queue,
            line["arrived"],
            line["done"],
        )
        given = [*line.get("texts", ()), *([line["path"]] if "path" in line and line["kind"] != "save" else [])]
        for name in given:
            job.needs |= _latest(jobs, makers[name], job)
        if line["kind"] == "backward":
            job.needs |= _latest(jobs, passes[queue, line["data"]], job)
            if queue not in begun:
                begun.add(queue)
                job.needs |= {n for n, each in enumerate(jobs) if each.stage == job.stage and each.done <= job.arrived}
        elif line["kind"] == "forward":
            passes[queue, line["data"]].append(number)
        for name in [*line.get("made", ()), *([line["path"]] if line["kind"] == "save" else [])]:
            makers[name].append(number)
        jobs.append(job)
    return jobs


def _latest(jobs: Sequence[Job], makers: Sequence[int], job: Job) -> set[int]:
    """The last of some jobs that was done before another one came."""
    found = [number for number in makers if jobs[number].done <= job.arrived]
    return {max(found, key=lambda number: jobs[number].done)} if found else set()


def least_seconds(jobs: Sequence[Job], cycle: float, cap: float = math.inf, *, in_stages: bool = False) -> float:
    """When the last job is done, if each is begun as soon as it can be.

    Args:
        jobs: As `read_jobs` gives them.
        cycle: Seconds of a clock cycle; 0 for none.
        cap: Sequences at once.
        in_stages: Whether no stage begins before the one before it has ended.
    """
    after: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    waits = [0] * len(jobs)
    ready = [0.0] * len(jobs)
    previous: dict[str, int] = {}
    stages = list(dict.fromkeys(job.stage for job in jobs))
    left = {stage: sum(job.stage == stage for job in jobs) for stage in stages}
    members = {stage: [n for n, job in enumerate(jobs) if job.stage == stage] for stage in stages}
    place = {stage: n for n, stage in enumerate(stages)}
    for number, job in enumerate(jobs):
        # A text that two stages happen to have made alike is no reason for the earlier one to wait for the later one.
        needs = [n for n in job.needs if not in_stages or place[jobs[n].stage] <= place[job.stage]]
        for need in needs:
            after[need].append((number, True))
        follows = job.kind not in SAMPLING and job.queue in previous
        if follows:  # in its turn, and it does not wait for an answer
            after[previous[job.queue]].append((number, False))
        if job.kind not in SAMPLING:
            previous[job.queue] = number
        waits[number] = len(needs) + follows + (in_stages and job.stage != stages[0])
    heap: list[tuple[float, int]] = [(0.0, number) for number in range(len(jobs)) if not waits[number]]
    running: list[tuple[float, int]] = []
    busy, last_start, end = 0, 0.0, 0.0
    slots: dict[str, float] = {}
    ended: dict[str, float] = {}

    def finish(number: int, when: float) -> None:
        nonlocal end
        end = max(end, when)
        stage = jobs[number].stage
        left[stage] -= 1
        ended[stage] = max(ended.get(stage, 0.0), when)
        for other, is_answer in after[number]:
            release(other, when if is_answer else 0.0)
        if in_stages and not left[stage] and stage != stages[-1]:
            following = stages[stages.index(stage) + 1]
            for other in members[following]:
                release(other, ended[stage])

    def release(number: int, when: float) -> None:
        waits[number] -= 1
        ready[number] = max(ready[number], when)
        if not waits[number]:
            heapq.heappush(heap, (ready[number], number))

    done: list[tuple[float, int]] = []
    while heap or done:
        if done and (not heap or done[0][0] <= heap[0][0]):
            when, number = heapq.heappop(done)
            finish(number, when)
            continue
        when, number = heapq.heappop(heap)
        job = jobs[number]
        if job.kind in SAMPLING:
            when = max(when, last_start)
            while running and (running[0][0] <= when or busy + job.samples > cap):
                freed_at, freed = heapq.heappop(running)
                busy -= freed
                when = max(when, freed_at) if busy + freed + job.samples > cap else when
            last_start = when
            busy += job.samples
            heapq.heappush(running, (when + job.seconds, job.samples))
            heapq.heappush(done, (when + job.seconds, number))
            continue
        if cycle:
            slot = (math.floor(round(ready[number] / cycle, 9)) + 1) * cycle  # an answer comes when its cycle is over
            slot = max(slot, slots.get(job.queue, 0.0))
            slots[job.queue] = slot + (cycle if job.kind == "step" else 0.0)
        else:
            slot = when
        heapq.heappush(done, (slot, number))
    if any(waits):
        raise ValueError("jobs that need each other")
    return end


def one_by_one(jobs: Sequence[Job]) -> list[Job]:
    """The same jobs with each sequence asked for by itself."""
    numbers: dict[int, list[int]] = {}
    found: list[Job] = []
    for number, job in enumerate(jobs):
        needs = {each for need in job.needs for each in numbers[need]}
        copies = job.samples if job.kind == "sample" else 1
        numbers[number] = list(range(len(found), len(found) + copies))
        found += [replace(job, samples=1, needs=set(needs)) for _ in range(copies)]
    return found


def summary(jobs: Sequence[Job]) -> dict[str, Any]:
    """How many of each kind there are."""
    counts: dict[str, int] = defaultdict(int)
    for job in jobs:
        counts[job.kind] += job.samples if job.kind == "sample" else 1
    return dict(counts)
