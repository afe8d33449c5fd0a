"""Tokens and requests, counted where they happen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields


@dataclass
class Usage:
    """What a stage used at the engine.

    Attributes:
        requests: Sampling and scoring requests.
        prefill_tokens: Prompt tokens of those requests, once a request.
        sampled_tokens: Generated tokens.
        scored_tokens: Tokens through forward passes without a gradient, reference and checks included.
        trained_tokens: Tokens through forward-and-backward passes.
        steps: Optimiser steps.
    """

    requests: int = 0
    prefill_tokens: int = 0
    sampled_tokens: int = 0
    scored_tokens: int = 0
    trained_tokens: int = 0
    steps: int = 0

    @property
    def tokens(self) -> int:
        """All tokens together."""
        return self.prefill_tokens + self.sampled_tokens + self.scored_tokens + self.trained_tokens

    def add(self, other: Usage) -> None:
        """Add another's counts to this one's."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def to_dict(self) -> dict[str, int]:
        """The counts by name."""
        return asdict(self)
