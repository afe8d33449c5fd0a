"""What a sampling request asks for and what it gets, in the engine's own terms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from charrun.engine.stops import StopRule

EMPTY_LOGPROB = -99999.0
"""What the protocol puts into a cell of a top-k table that holds nothing."""


@dataclass(frozen=True)
class SampleSpec:
    """A validated sampling request.

    Attributes:
        prompt: Token ids, [length] int64.
        samples: Number of sequences.
        max_tokens: Most tokens per sequence.
        temperature: 0 means greedy.
        top_p: In (0, 1].
        top_k: Below 1 means no limit.
        seed: Seed of the noise.
        stop: When a sequence ends.
        score_from: First prompt position (at least 1) whose log-prob is wanted; None where none is.
        top_prompt: How many of the likeliest tokens are wanted per scored prompt position.
    """

    prompt: NDArray[np.int64]
    samples: int
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    seed: int
    stop: StopRule
    score_from: int | None = None
    top_prompt: int = 0

    @property
    def positions(self) -> int:
        """Positions that one sequence may occupy."""
        return len(self.prompt) + self.max_tokens


@dataclass(frozen=True)
class Sequence:
    """One sampled sequence; `stopped` tells a stop from the token limit."""

    tokens: list[int]
    logprobs: list[float]
    stopped: bool


@dataclass(frozen=True)
class PromptScores:
    """Log-probs of a prompt's tokens.

    Attributes:
        logprobs: [length] fp32, NaN where nothing was asked for.
        top_tokens: [length, k] int32 or None.
        top_logprobs: [length, k] fp32 or None.
    """

    logprobs: NDArray[np.float32]
    top_tokens: NDArray[np.int32] | None = None
    top_logprobs: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class SampleResult:
    """The sequences of one request, in order, and its prompt's scores where they were asked for."""

    sequences: list[Sequence]
    scores: PromptScores | None


@dataclass
class SampleJob:
    """A request on its way: `finish` or `fail` is called once, on the compute thread."""

    spec: SampleSpec
    finish: Callable[[SampleResult], None]
    fail: Callable[[Exception], None]
    scores: PromptScores | None = None
    sequences: dict[int, Sequence] = field(default_factory=dict)
    cancelled: bool = False

    def add(self, index: int, sequence: Sequence) -> None:
        """Records sample `index`; the last one finishes the job."""
        self.sequences[index] = sequence
        if len(self.sequences) == self.spec.samples:
            ordered = [self.sequences[number] for number in range(self.spec.samples)]
            self.finish(SampleResult(ordered, self.scores))
