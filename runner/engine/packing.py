"""Rows laid end to end, so that nothing but attention ever sees a row's end, and no layer computes padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIKE_ON_CPU, ALIKE_ELSEWHERE = 0.8, 0.5
"""Rows attend in one call where the shortest has this share of the longest's length; a GPU minds padding less."""


@dataclass(frozen=True)
class RowGroup:
    """Neighbouring rows whose attention is computed in one call.

    Attributes:
        start: Their first token.
        stop: Behind their last token.
        rows: How many.
        length: Tokens of the longest.
        places: Where each token [stop - start] lies in a padded [rows * length]; None where all are equally long.
    """

    start: int
    stop: int
    rows: int
    length: int
    places: Tensor | None

    def spread(self, packed: Tensor) -> Tensor:
        """[rows, length, heads, size] of packed [tokens, heads, size]; zeros behind each row's end."""
        part = packed[self.start : self.stop]
        if self.places is not None:
            padded = part.new_zeros((self.rows * self.length, *part.shape[1:]))
            part = padded.index_copy_(0, self.places, part)
        return part.view(self.rows, self.length, *part.shape[1:])

    def collect(self, padded: Tensor, into: Tensor) -> None:
        """Copies [rows, length, heads, size] to this group's tokens of a packed [tokens, heads, size]."""
        flat = padded.reshape(self.rows * self.length, *padded.shape[2:])
        into[self.start : self.stop] = flat if self.places is None else flat[self.places]


@dataclass(frozen=True)
class Packing:
    """Rows of one micro-batch.

    Attributes:
        lengths: Tokens of each row.
        tokens: All rows' token ids [tokens] int64.
        positions: Each token's position within its row [tokens] int64.
        groups: The rows by attention call.
    """

    lengths: tuple[int, ...]
    tokens: Tensor
    positions: Tensor
    groups: tuple[RowGroup, ...]


def pack(rows: Sequence[NDArray[np.int64]], device: torch.device) -> Packing:
    """Lays rows end to end; neighbours should have similar lengths."""
    lengths = [len(row) for row in rows]
    positions = np.concatenate([np.arange(length) for length in lengths])
    groups = []
    start, first = 0, 0
    alike = ALIKE_ON_CPU if device.type == "cpu" else ALIKE_ELSEWHERE
    for last in _group_ends(lengths, alike):
        group = lengths[first:last]
        groups.append(_group(start, group, device))
        start, first = groups[-1].stop, last
    return Packing(tuple(lengths), flat(rows, device), torch.from_numpy(positions).to(device), tuple(groups))


def flat(rows: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """Arrays one after the other, as a tensor."""
    return torch.from_numpy(np.concatenate(rows)).to(device)


def packed_batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Numbers of rows that go through the model together: longest first, at most `budget` tokens unless one row."""
    order = sorted(range(len(lengths)), key=lambda each: lengths[each], reverse=True)
    batches = max(1, -(-sum(lengths) // budget))
    even = sum(lengths) / batches
    batch: list[int] = []
    size = 0
    for number in order:
        if (batch and size + lengths[number] > budget) or size >= even:
            yield batch
            batch, size = [], 0
        batch.append(number)
        size += lengths[number]
    if batch:
        yield batch


def _group_ends(lengths: Sequence[int], alike: float) -> Iterator[int]:
    longest = shortest = lengths[0]
    for number, length in enumerate(lengths):
        low, high = min(shortest, length), max(longest, length)
        if low < alike * high:
            yield number
            low = high = length
        shortest, longest = low, high
    yield len(lengths)


def _group(start: int, lengths: Sequence[int], device: torch.device) -> RowGroup:
    longest = max(lengths)
    places = None
    if min(lengths) < longest:
        parts = [row * longest + np.arange(length) for row, length in enumerate(lengths)]
        places = torch.from_numpy(np.concatenate(parts)).to(device)
    return RowGroup(start, start + sum(lengths), len(lengths), longest, places)
