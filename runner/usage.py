"""Tokens and requests, counted where they happen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class Usage:
    """What was used at an engine, in the parts that a service charges for.

    Attributes:
        requests: Sampling and scoring requests.
        prefill_tokens: Prompt tokens that went through the model.
        cached_tokens: Prompt tokens that are billed as cache hits: those that the engine had in its cache, and the
            prompt of each further sample of a request.
        sampled_tokens: Generated tokens; a scoring request generates one.
        forward_tokens: Tokens through a training client's forward passes, those of custom losses included.
        trained_tokens: Tokens through its forward-and-backward passes.
        steps: Optimiser steps.
    """

    requests: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    sampled_tokens: int = 0
    forward_tokens: int = 0
    trained_tokens: int = 0
    steps: int = 0

    @classmethod
    def of(cls, counts: Mapping[str, Any]) -> Usage:
        """The counts by name; those that are not there are 0."""
        return cls(**{name: int(counts.get(name, 0)) for name in _NAMES})

    @property
    def tokens(self) -> int:
        """All tokens together."""
        return self.input_tokens + self.sampled_tokens + self.forward_tokens + self.trained_tokens

    @property
    def input_tokens(self) -> int:
        """Prompt tokens, whether they were in the cache or not."""
        return self.prefill_tokens + self.cached_tokens

    def add(self, other: Usage, times: int = 1) -> None:
        """Add another's counts to this one's, or with `times=-1` take them away."""
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + times * getattr(other, name))

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)

    def counted(self) -> dict[str, int]:
        """The counts by name that are not 0."""
        return {name: value for name, value in asdict(self).items() if value}


_NAMES = tuple(field.name for field in fields(Usage))


def of_samples(prompt: int, hits: int, samples: int, sampled: int) -> Usage:
    """What a sampling request used.

    The prompt is paid for once, as far as it was in the cache as a hit, and for each further sample as a hit
    (docstring of `SampleResponse.prompt_cache_hit_tokens`, tinker 0.38).

    Args:
        prompt: Tokens of the prompt.
        hits: How many of them the engine had in its cache.
        samples: Sequences that were asked for.
        sampled: Tokens of all sequences.
    """
    cached = hits + (samples - 1) * prompt
    return Usage(requests=1, prefill_tokens=prompt - hits, cached_tokens=cached, sampled_tokens=sampled)
