"""Which blocks of positions hold whose keys and values, and which of them can be used again.

Keys and values lie in blocks of `BLOCK` positions. A sequence owns a list of them, and sequences with the same
beginning share its full blocks. A block that nobody uses any more keeps its contents until the room is needed: a
later request whose prompt begins with the same tokens finds them. What a block holds is named exactly, by its tokens
and the block before it, and never by a hash alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BLOCK = 64
"""Positions per block."""

Parent = str | int
"""What precedes a block: the weights' key, or the number that the previous block got when it was remembered."""


def blocks_for(positions: int) -> int:
    """Blocks that so many positions need."""
    return -(-positions // BLOCK)


class BlockPool:
    """A fixed number of blocks, lent and taken back. Only one thread may touch it."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._names: dict[int, tuple[Parent, bytes]] = {}
        self._numbers: dict[int, int] = {}
        self._found: dict[tuple[Parent, bytes], int] = {}
        self._unused: OrderedDict[int, None] = OrderedDict()
        self._next = 0

    @property
    def available(self) -> int:
        """Blocks that can be lent now."""
        return len(self._free) + len(self._unused)

    def find(self, weights: str, tokens: NDArray[np.int64], most: int) -> tuple[list[int], tuple[Parent, bytes] | None]:
        """The remembered blocks that a sequence begins with.

        Args:
            weights: Key of the weights.
            tokens: The sequence.
            most: So many blocks at most.

        Returns:
            The blocks, and the name of the first full block that is not remembered (None where there is none).
        """
        parent: Parent = weights
        blocks: list[int] = []
        for start in range(0, min(most, len(tokens) // BLOCK) * BLOCK, BLOCK):
            name = (parent, tokens[start : start + BLOCK].tobytes())
            block = self._found.get(name)
            if block is None:
                return blocks, name
            blocks.append(block)
            parent = self._numbers[block]
        return blocks, None

    def share(self, blocks: Sequence[int]) -> None:
        """Counts one more user of blocks that `find` gave or that are lent already."""
        for block in blocks:
            self._users[block] += 1
            self._unused.pop(block, None)

    def lend(self, count: int) -> list[int]:
        """Blocks for one new user; those unused for longest lose what they hold. `available` must suffice."""
        lent = []
        for _ in range(count):
            if self._free:
                block = self._free.pop()
            else:
                block, _nothing = self._unused.popitem(last=False)
                self._forget(block)
            self._users[block] = 1
            lent.append(block)
        return lent

    def give_back(self, blocks: Sequence[int]) -> None:
        """Counts a user out; blocks at a sequence's end are given to others before those at its beginning."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._names:
                self._unused[block] = None
            else:
                self._free.append(block)

    def remember(self, weights: str, tokens: NDArray[np.int64], blocks: Sequence[int]) -> None:
        """Makes a sequence's full blocks findable; `tokens` are those whose keys and values are computed."""
        parent: Parent = weights
        for number in range(len(tokens) // BLOCK):
            name = (parent, tokens[number * BLOCK : (number + 1) * BLOCK].tobytes())
            known = self._found.get(name)
            if known is None:
                known = blocks[number]
                if known in self._names:  # it is remembered under another beginning; cannot happen to private blocks
                    return
                self._found[name], self._names[known], self._numbers[known] = known, name, self._next
                self._next += 1
            parent = self._numbers[known]

    def _forget(self, block: int) -> None:
        del self._found[self._names.pop(block)]
        del self._numbers[block]
