"""Keys and values of the sequences being decoded: one preallocated slot each, so that no step allocates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LENGTH_BLOCK = 64


def round_rows(rows: int) -> int:
    """The next power of two, at least 8."""
    return max(8, 1 << (rows - 1).bit_length())


def round_length(length: int) -> int:
    """The next multiple of the length block."""
    return -(-length // LENGTH_BLOCK) * LENGTH_BLOCK


class SlotCache:
    """Keys and values per layer, [slots, kv heads, positions, head size]; the used slots are always the first ones.

    Buffers start as zeros: a masked position has attention weight 0, and 0 times a stray NaN would be NaN.
    """

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self.capacity = (0, 0)
        """Slots and positions per slot that the buffers have room for."""
        self._rows = torch.empty(0, dtype=torch.int64)
        self._positions = torch.empty(0, dtype=torch.int64)
        self._span = 0

    def reserve(self, rows: int, length: int, used: int) -> None:
        """Makes room for so many rows of such a length; the first `used` slots keep what they hold."""
        if rows <= self.capacity[0] and length <= self.capacity[1]:
            return
        kept = self.capacity[1]
        self.capacity = (max(rows, self.capacity[0]), max(length, self.capacity[1]))
        for buffers in (self._keys, self._values):
            for layer, old in enumerate(buffers):
                new = old.new_zeros(self.capacity[0], old.shape[1], self.capacity[1], old.shape[3])
                new[:used, :, :kept] = old[:used]
                buffers[layer] = new

    def clear(self) -> None:
        """Gives the memory back."""
        self._keys, self._values, self.capacity = [], [], (0, 0)

    def write(self, layer: int, rows: slice, source: Tensor, keys: Tensor, values: Tensor) -> None:
        """Puts a prompt batch's keys and values, [batch, kv heads, positions, head size], into slots.

        Args:
            layer: Layer number; layers arrive in order.
            rows: The slots, as many as `source` has entries.
            source: For each slot, the row of the prompt batch that it copies.
            keys: The batch's keys.
            values: The batch's values.
        """
        for buffers, new in ((self._keys, keys), (self._values, values)):
            if layer == len(buffers):
                buffers.append(new.new_zeros(self.capacity[0], new.shape[1], self.capacity[1], new.shape[3]))
            buffers[layer][rows, :, : new.shape[2]] = new[source]

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copies the first `length` positions of slots to other slots."""
        for buffers in (self._keys, self._values):
            for buffer in buffers:
                buffer[list(targets), :, :length] = buffer[list(sources), :, :length]

    def at(self, positions: Tensor, span: int) -> SlotCache:
        """Sets where the next step's keys and values go: slot i at `positions[i]`, attending to `span` positions."""
        if len(self._rows) != len(positions):
            self._rows = torch.arange(len(positions), device=positions.device)
        self._positions, self._span = positions, span
        return self

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """One decoding step: stores [batch, kv heads, 1, head size], returns all that the rows attend to."""
        count = len(self._rows)
        self._keys[layer][self._rows, :, self._positions] = keys[:, :, 0]
        self._values[layer][self._rows, :, self._positions] = values[:, :, 0]
        return self._keys[layer][:count, :, : self._span], self._values[layer][:count, :, : self._span]

    def get_seq_length(self, layer: int = 0) -> int:
        """Rows have different lengths; positions are always given explicitly."""
        return 0


class PromptWriter:
    """The cache of a prompt batch: attends to the prompt itself and hands each layer on to the slots."""

    def __init__(self, slots: SlotCache, rows: slice, source: Tensor) -> None:
        self._slots, self._rows, self._source = slots, rows, source

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Stores one layer's keys and values and returns them."""
        self._slots.write(layer, self._rows, self._source, keys, values)
        return keys, values

    def get_seq_length(self, layer: int = 0) -> int:
        """A prompt starts at position 0."""
        return 0
