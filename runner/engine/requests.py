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
        top_sample: How many of the likeliest tokens are wanted per sampled token.
        targets: [length - 1, k] int64, tokens whose log-probs are wanted at positions 1 and on; -1 names none.
        alternatives: How many tokens are drawn from the distribution at each prompt position after the first.
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
    top_sample: int = 0
    targets: NDArray[np.int64] | None = None
    alternatives: int = 0

    @property
    def positions(self) -> int:
        """Positions that one sequence may occupy."""
        return len(self.prompt) + self.max_tokens

    @property
    def first_state(self) -> int:
        """The first prompt position whose hidden state is wanted; the last one always is."""
        first = len(self.prompt) - 1
        if self.score_from is not None:
            first = min(first, self.score_from - 1)
        if self.targets is not None:
            named = np.flatnonzero((self.targets >= 0).any(1))
            first = min(first, int(named[0])) if len(named) else first
        return 0 if self.alternatives else first


@dataclass(frozen=True)
class Sequence:
    """One sampled sequence.

    Attributes:
        tokens: Token ids, the one that stopped it included.
        logprobs: Their log-probs in the model's own distribution, at temperature 1 and before any cut.
        stopped: Whether it stopped, rather than reaching the token limit.
        top_tokens: [tokens, k] int32, where they were asked for.
        top_logprobs: [tokens, k] fp32.
    """

    tokens: list[int]
    logprobs: list[float]
    stopped: bool
    top_tokens: NDArray[np.int32] | None = None
    top_logprobs: NDArray[np.float32] | None = None


@dataclass
class PromptScores:
    """What was asked for about a prompt's tokens; None where nothing was.

    Attributes:
        logprobs: [length] fp32, NaN where nothing was asked for.
        top_tokens: [length, k] int32.
        top_logprobs: [length, k] fp32.
        targets: [length - 1, k] fp32 log-probs of the named tokens, 0 where none was named.
        alternative_tokens: [length - 1, k] int64.
        alternative_logprobs: [length - 1, k] fp32, in the model's own distribution.
    """

    logprobs: NDArray[np.float32] | None = None
    top_tokens: NDArray[np.int32] | None = None
    top_logprobs: NDArray[np.float32] | None = None
    targets: NDArray[np.float32] | None = None
    alternative_tokens: NDArray[np.int64] | None = None
    alternative_logprobs: NDArray[np.float32] | None = None

    @classmethod
    def empty(cls, spec: SampleSpec) -> PromptScores:
        """Tables of the right shapes that hold nothing yet."""
        length, top, draws = len(spec.prompt), spec.top_prompt, spec.alternatives
        return cls(
            np.full(length, np.nan, np.float32) if spec.score_from is not None else None,
            np.zeros((length, top), np.int32) if top else None,
            np.full((length, top), EMPTY_LOGPROB, np.float32) if top else None,
            np.zeros(spec.targets.shape, np.float32) if spec.targets is not None else None,
            np.zeros((length - 1, draws), np.int64) if draws else None,
            np.zeros((length - 1, draws), np.float32) if draws else None,
        )


@dataclass(frozen=True)
class SampleResult:
    """What a request gets.

    Attributes:
        sequences: In order.
        scores: Where any were asked for.
        cached_tokens: Prompt tokens whose keys and values were there already.
    """

    sequences: list[Sequence]
    scores: PromptScores | None
    cached_tokens: int = 0


@dataclass
class SampleJob:
    """A request on its way: `finish` or `fail` is called once, on the compute thread.

    `request_id` begins with its session's id, where it has one.
    """

    spec: SampleSpec
    finish: Callable[[SampleResult], None]
    fail: Callable[[Exception], None]
    request_id: str = ""
    scores: PromptScores | None = None
    sequences: dict[int, Sequence] = field(default_factory=dict)
    cached_tokens: int = 0
    begun: int = 0
    cancelled: bool = False

    def add(self, index: int, sequence: Sequence) -> None:
        """Records sample `index`; the last one finishes the job."""
        self.sequences[index] = sequence
        if len(self.sequences) == self.spec.samples:
            ordered = [self.sequences[number] for number in range(self.spec.samples)]
            self.finish(SampleResult(ordered, self.scores, self.cached_tokens))
