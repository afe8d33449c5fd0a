"""Forward passes kept for the backward pass that may follow.

`forward_backward_custom` sends the same rows twice: forward for their log-probs, then forward and backward with the
gradient as weights. As long as the adapter did not change in between, the second forward pass is the first one, so its
activations are kept and used up by the backward pass: exactly the same tensors.

Whether a backward pass will follow cannot be seen from a request. It is expected when one followed last time, and no
longer when forward passes fill the memory without one; their signatures are remembered beyond that, so that the
first backward pass that could have used one renews the expectation.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

REMEMBERED = 4096
"""Signatures of forward passes since the adapter changed."""


@dataclass(frozen=True)
class Pass:
    """A forward pass: hidden states [tokens, width], what the decoder's backward pass needs, and its size."""

    hidden: Tensor
    kept: Any
    bytes: int


class KeptPasses:
    """The kept forward passes of one training run; only the run that used it last keeps any."""

    _owner: ClassVar[weakref.ref[KeptPasses] | None] = None

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._version = -1
        self._passes: dict[bytes, Pass] = {}
        self._seen: dict[bytes, None] = {}
        self.expected = True

    def use(self, version: int) -> None:
        """To be called first: drops what an earlier version of the adapter made, and what other runs keep."""
        owner = KeptPasses._owner() if KeptPasses._owner is not None else None
        if owner is not self:
            if owner is not None:
                owner._passes.clear()
            KeptPasses._owner = weakref.ref(self)
        if version != self._version:
            self._version = version
            self._passes.clear()
            self._seen.clear()

    def add(self, rows: Sequence[NDArray[np.int64]], made: Pass | None, size: int) -> None:
        """Notes a forward pass of these rows and keeps it, if it was made to be kept and there is room."""
        key = signature(rows)
        if len(self._seen) < REMEMBERED:
            self._seen[key] = None
        if sum(each.bytes for each in self._passes.values()) + size > self._limit:
            self.expected = False
        elif made is not None:
            self._passes[key] = made

    def room(self, size: int) -> bool:
        """Whether a pass of so many bytes should be made to be kept."""
        return self.expected and sum(each.bytes for each in self._passes.values()) + size <= self._limit

    def take(self, rows: Sequence[NDArray[np.int64]]) -> Pass | None:
        """The forward pass of exactly these rows, which a backward pass is about to use up."""
        key = signature(rows)
        if key in self._seen:
            self.expected = True
        return self._passes.pop(key, None)

    def clear(self) -> None:
        """Drops everything."""
        self._passes.clear()


def signature(rows: Sequence[NDArray[np.int64]]) -> bytes:
    """Bytes that are equal where the rows are."""
    lengths = np.array([len(rows), *map(len, rows)], np.int64)
    return np.concatenate([lengths, *rows]).tobytes()
