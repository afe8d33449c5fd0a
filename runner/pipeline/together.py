"""Awaiting many together, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from charrun.errors import Interrupted

MOST = 1024
"""Pieces of work that are begun and not ended: more wait unbegun, so that memory does not grow with their number."""

_T = TypeVar("_T")


async def gather(work: Iterable[Awaitable[_T]], most: int = MOST) -> list[_T]:
    """Await many together, begun in their order; an error cancels the rest and is raised as it is.

    Where the run is being stopped (`Interrupted`), nothing further is begun, and what is in flight is awaited.
    """
    items = enumerate(work)
    results: dict[int, _T] = {}
    stopped: list[Interrupted] = []

    async def worker(first: tuple[int, Awaitable[_T]]) -> None:
        for index, one in chain([first], items):
            try:
                if stopped:
                    _forget(one)
                    continue
                results[index] = await one
            except Interrupted as error:
                stopped.append(error)

    begun = list(islice(items, most))
    tasks = [asyncio.ensure_future(worker(first)) for first in begun]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _forget_all(one for _, one in chain(begun, items))  # a task may have ended before it awaited its first
        raise
    if stopped:
        raise stopped[0]
    return [results[index] for index in range(len(results))]


def _forget_all(work: Iterator[Awaitable[object]]) -> None:
    for one in work:
        _forget(one)


def _forget(one: Awaitable[object]) -> None:
    """What is never awaited says so on stderr, unless it is closed."""
    if isinstance(one, Coroutine):
        one.close()
