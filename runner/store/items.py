"""The responses of one stage: `items.jsonl` and `scores.jsonl`, written before anything uses or counts them.

Contract:
1. A response is stored before it is used or counted.
2. A response of several sequences is one record.
3. A stored response is found by its request's key and sample index.
4. A torn record is asked for again.
5. A damaged record is named and asked for again.
6. Responses stay on the disk, and the memory holds where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from charrun.faults import reached
from charrun.store.files import make_folder
from charrun.store.lines import AppendFile, read_lines
from charrun.usage import Usage, of_samples

ITEMS, SCORES = "items.jsonl", "scores.jsonl"
RECORDS = (ITEMS, SCORES)
ANSWERS = "answers-"
"""What the names of store folders begin with whose responses depend on no character."""
USAGE = "usage.jsonl"
"""Tokens that went through neither."""
_KEPT_RECORDS = 512
"""Records that are kept once they were read: the sequences of one are asked for one after the other."""


class Sequence(TypedDict):
    """One sampled sequence; `closed` is there, and false, where a think block was left open."""

    text: str
    tokens: list[int]
    stop_reason: str
    closed: NotRequired[bool]


class AnsweredPart(TypedDict):
    """What a record says of the response itself.

    Attributes:
        sequences: What was sampled.
        prompt_tokens: Tokens of the prompt, counted once.
        sampled_tokens: Tokens of all sequences.
        cache_hit_tokens: Prompt tokens that the engine had in its cache.
        prompt_once: Whether further sequences have the prompt for nothing, as chat completions do; by default they pay
            for it as a cache hit.
    """

    sequences: list[Sequence]
    prompt_tokens: int
    sampled_tokens: int
    cache_hit_tokens: int
    prompt_once: NotRequired[bool]


class Record(AnsweredPart):
    """One line of `items.jsonl`: a response.

    Attributes:
        key: Digest of the request, the weights and the rendering.
        start: Sample index of the first sequence.
        model: Model name or checkpoint path.
        input: The request, for people.
        work: For which work it was asked: the stage's folder and the name of its ticket.
    """

    key: str
    start: int
    model: str
    input: dict[str, Any]
    work: str


class Score(TypedDict):
    """One line of `scores.jsonl`: the mean log-prob per token, in nats, of one answer.

    `tokens` are those of the answer, `prompt_tokens` all that went through the model.
    """

    key: str
    model: str
    mean_logprob: float
    tokens: int
    prompt_tokens: int
    cache_hit_tokens: int
    work: str


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a record lies, and which sample indexes it holds."""

    start: int
    count: int
    offset: int
    length: int


class ItemStore:
    """The open record files of one store folder; whoever opens it holds the folder's lock.

    Attributes:
        folder: The store folder.
        damaged: Lines that can't be used, such as `items.jsonl:7`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self.damaged: list[str] = []
        self._places: dict[str, list[_Place]] = {}
        self._scores: dict[str, float] = {}
        self._usage: dict[str, Usage] = {}
        self._items = AppendFile(folder / ITEMS)
        self._scored = AppendFile(folder / SCORES)
        self._load()
        self._record = lru_cache(maxsize=_KEPT_RECORDS)(self._read)

    def sequences(self, key: str, count: int) -> Iterator[Sequence]:
        """The stored sequences of a request at sample indexes 0 to count - 1, as far as they are there."""
        for index in range(count):
            found = self.sequence(key, index)
            if found is None:
                return
            yield found

    def sequence(self, key: str, index: int) -> Sequence | None:
        """The stored sequence of a request at a sample index, if any."""
        for place in reversed(self._places.get(key, ())):
            if place.start <= index < place.start + place.count:
                found: Sequence = self._record(place)[index - place.start]
                return found
        return None

    def missing(self, key: str, count: int, most: int) -> Iterator[tuple[int, int]]:
        """Spans (start, length) of sample indexes below `count` that are not stored, each at most `most` long."""
        have = {i for place in self._places.get(key, ()) for i in range(place.start, place.start + place.count)}
        start = 0
        while start < count:
            if start in have:
                start += 1
                continue
            end = start
            while end < count and end not in have and end - start < most:
                end += 1
            yield start, end - start
            start = end

    def append(self, record: Record) -> None:
        """Store one response. Returns when the line is written.

        Raises:
            EnvironmentProblem: The disk is full or the file can't be written.
        """
        reached("row.before")
        line = self._items.append(dict(record))
        reached("row.after")
        self._keep(record, line.offset, line.length)

    def score(self, key: str) -> float | None:
        """The stored mean log-prob of a scoring request, if any."""
        return self._scores.get(key)

    def append_score(self, score: Score) -> None:
        """Store one answer's score, as `append` stores a response."""
        reached("row.before")
        self._scored.append(dict(score))
        reached("row.after")
        self._keep_score(score)

    def usage(self, work: str) -> Usage:
        """What the stored records of one piece of work add up to, whichever process asked for them."""
        return self._usage.get(work, Usage())

    def close(self) -> None:
        """Make the records durable and close the files."""
        self._items.close()
        self._scored.close()

    def _read(self, place: _Place) -> list[Sequence]:
        found: list[Sequence] = self._items.read(place.offset, place.length)["sequences"]
        return found

    def _keep(self, record: Record, offset: int, length: int) -> None:
        place = _Place(record["start"], len(record["sequences"]), offset, length)
        self._places.setdefault(record["key"], []).append(place)
        samples = 1 if record.get("prompt_once") else max(1, len(record["sequences"]))
        used = of_samples(record["prompt_tokens"], record["cache_hit_tokens"], samples, record["sampled_tokens"])
        self._usage.setdefault(record["work"], Usage()).add(used)

    def _keep_score(self, score: Score) -> None:
        self._scores[score["key"]] = score["mean_logprob"]
        used = of_samples(score["prompt_tokens"], score["cache_hit_tokens"], 1, 1)
        self._usage.setdefault(score["work"], Usage()).add(used)

    def _load(self) -> None:
        keep_item: Any = lambda line: self._keep(line.value, line.offset, line.length)  # noqa: E731
        keep_score: Any = lambda line: self._keep_score(line.value)  # noqa: E731
        for name, keep in ((ITEMS, keep_item), (SCORES, keep_score)):
            numbers: list[int] = []
            for line in read_lines(self.folder / name, numbers):
                keep(line)
            self.damaged += [f"{name}:{number}" for number in numbers]
