"""Tokens of many sequences that go through a model together, and what computes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.causal import CausalLM


@dataclass(frozen=True)
class TokenBatch:
    """Tokens whose predecessors are in the cache or in the same batch before them.

    Attributes:
        tokens: [n] int64.
        positions: [n] int64, each token's position in its sequence.
        rows: [n] int64, the line of `tables` of its sequence; tokens of a sequence are neighbours.
        tables: [sequences, blocks] int32, the blocks of each sequence in order.
        chosen: [m] int64, ascending: tokens whose hidden states are wanted.
        spans: Networks with the end of their tokens, in order: the first one computes tokens 0 to its end, and so on.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]
    tables: NDArray[np.int32]
    chosen: NDArray[np.int64]
    spans: Sequence[tuple[Any, int]]

    @property
    def chosen_spans(self) -> list[tuple[Any, int]]:
        """Like `spans`, for the chosen tokens."""
        ends = np.searchsorted(self.chosen, [end for _, end in self.spans])
        return [(network, int(end)) for (network, _), end in zip(self.spans, ends, strict=True)]


class Network(Protocol):
    """One set of weights.

    Attributes:
        own_bytes: Bytes that it shares with no other.
        vocabulary: Width of the logits.
    """

    own_bytes: int
    vocabulary: int

    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits [rows, vocabulary] of hidden states [rows, width]."""


class Computer(Protocol):
    """Runs one base model's networks over a cache of keys and values.

    Attributes:
        parallel: Whether several threads may call `hidden` at once, for different sequences.
    """

    parallel: bool

    def network(self, causal: CausalLM) -> Network:
        """The weights of a model with the same architecture as the base."""

    def hidden(self, batch: TokenBatch) -> Tensor:
        """Stores the batch's keys and values; returns the last hidden states [m, width] of the chosen tokens."""

    def copy_block(self, source: int, targets: Sequence[int]) -> None:
        """Copies a block's keys and values."""
