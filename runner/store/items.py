"""The responses of one stage: `items.jsonl`, written before anything uses or counts them.

Contract:
1. A record is one response of the service: its request's key, the index of its first sequence, its sequences.
2. It is appended by one write of one line; a line without its newline was in flight when the writer died and is cut
   off when the file is next opened for writing.
3. `append` returns after the write; the kernel holds the line, so the death of this process loses nothing.
4. Whoever opens it holds the folder's lock (`charrun.store.lock`).
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypedDict

from charrun.errors import EnvironmentProblem
from charrun.store.canonical import canonical
from charrun.store.files import cut_torn_line, make_folder, read_rows


class Sequence(TypedDict):
    """One sampled sequence."""

    text: str
    tokens: list[int]
    stop_reason: str


class Record(TypedDict):
    """One line of `items.jsonl`."""

    key: str
    start: int
    model: str
    input: dict[str, Any]
    sequences: list[Sequence]
    prompt_tokens: int
    sampled_tokens: int
    cache_hit_tokens: int


class Score(TypedDict):
    """One line of `scores.jsonl`: the mean log-prob per token, in nats, of one answer."""

    key: str
    model: str
    mean_logprob: float
    tokens: int


class ItemStore:
    """The open record files of one store folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(folder)
        self.path = folder / "items.jsonl"
        self.scores_path = folder / "scores.jsonl"
        self._sequences: dict[str, dict[int, Sequence]] = defaultdict(dict)
        self._scores: dict[str, float] = {}
        try:
            self._load(self.path, self._keep)
            self._load(self.scores_path, self._keep_score)
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            self._score_handle = os.open(self.scores_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise EnvironmentProblem(f"cannot write {self.path}: {error.strerror or error}") from error

    def sequence(self, key: str, index: int) -> Sequence | None:
        """The stored sequence of a request at a sample index, if any."""
        return self._sequences[key].get(index) if key in self._sequences else None

    def missing(self, key: str, count: int, most: int) -> Iterator[tuple[int, int]]:
        """Spans (start, length) of sample indexes below `count` that are not stored, each at most `most` long."""
        have = self._sequences.get(key, {})
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
        self._write(self._handle, record)
        self._keep(record)

    def score(self, key: str) -> float | None:
        """The stored mean log-prob of a scoring request, if any."""
        return self._scores.get(key)

    def append_score(self, key: str, model: str, mean_logprob: float, tokens: int) -> None:
        """Store one answer's score, as `append` stores a response."""
        score: Score = {"key": key, "model": model, "mean_logprob": mean_logprob, "tokens": tokens}
        self._write(self._score_handle, score)
        self._keep_score(score)

    def close(self) -> None:
        """Make the records durable and close the files."""
        for handle in (self._handle, self._score_handle):
            with contextlib.suppress(OSError):
                os.fsync(handle)
            os.close(handle)

    def _write(self, handle: int, record: Record | Score) -> None:
        line = (canonical(record) + "\n").encode()
        try:
            written = os.write(handle, line)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write into {self.folder}: {error.strerror or error}",
                "what is recorded stays; make room and run the same command again",
            ) from error
        if written != len(line):
            raise EnvironmentProblem(f"cannot write into {self.folder}: the disk is full", "make room and run again")

    def _keep(self, record: Record) -> None:
        for offset, sequence in enumerate(record["sequences"]):
            self._sequences[record["key"]][record["start"] + offset] = sequence

    def _keep_score(self, score: Score) -> None:
        self._scores[score["key"]] = score["mean_logprob"]

    def _load(self, path: Path, keep: Callable[[Any], None]) -> None:
        if not path.exists():
            return
        try:
            for record in read_rows(path):
                keep(record)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise EnvironmentProblem(
                f"{path} is damaged: {error}", f"move {self.folder} away and run again to make its rows anew"
            ) from error
        cut_torn_line(path)
