"""A store folder's records while a run uses them: opened once, locked against other processes, asked in turns."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from charrun.store.files import make_folder
from charrun.store.items import ItemStore

Writing = Callable[[Path], AbstractAsyncContextManager[None]]


class Turns:
    """One at a time for each key: of two that ask for the same, the second finds what the first has stored."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Wait for the key's turn."""
        self._users[key] += 1
        try:
            async with self._locks[key]:
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._locks[key]


class Answers:
    """Records with turns."""

    def __init__(self, items: ItemStore) -> None:
        self.items = items
        self.turns = Turns()


class SharedAnswers:
    """Records that every stage, cell and run under one store may find: what base models say, and scores.

    A folder of them is open, and locked, as long as a stage of this run uses it.

    Args:
        store: The store's folder.
        writing: Holds a folder's lock.
    """

    def __init__(self, store: Path, writing: Writing) -> None:
        self._store = store
        self._writing = writing
        self._open: dict[str, Answers] = {}
        self._users: Counter[str] = Counter()
        self._locks: dict[str, AbstractAsyncContextManager[None]] = {}
        self._opening = asyncio.Lock()

    async def open(self, name: str) -> Answers:
        """The answers of a folder; every call needs one of `close`.

        Raises:
            Locked: Another process writes the folder.
            EnvironmentProblem: It can't be written.
        """
        async with self._opening:
            if name not in self._open:
                folder = make_folder(self._store / name)
                lock = self._writing(folder)
                await lock.__aenter__()
                try:
                    self._open[name] = Answers(ItemStore(folder))
                except BaseException:
                    await lock.__aexit__(None, None, None)
                    raise
                self._locks[name] = lock
            self._users[name] += 1
            return self._open[name]

    async def close(self, name: str) -> None:
        """One user less."""
        async with self._opening:
            self._users[name] -= 1
            if not self._users[name]:
                self._open.pop(name).items.close()
                await self._locks.pop(name).__aexit__(None, None, None)
