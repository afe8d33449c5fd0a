"""Waiting for one thing at a time, for a command that talks with a person in between."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from charrun.errors import EnvironmentProblem, Interrupted
from charrun.service.pulse import pulse

_WATCH_SECONDS = 0.5
_PATIENCE_SECONDS = 2.0
_T = TypeVar("_T")


class GivenUp(Interrupted):
    """Ctrl-C: the person no longer waits for this one thing."""


class Waiting:
    """An event loop that runs while something is awaited; use as a context manager."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    def wait(self, work: Coroutine[Any, Any, _T], failure: Callable[[], str | None] = lambda: None) -> _T:
        """The result of the work.

        Args:
            work: What is awaited.
            failure: Tells why the engine is gone, or None while it lives: the SDK would retry a dead one for minutes.

        Raises:
            GivenUp: Ctrl-C; the work is cancelled.
            Interrupted: Ctrl-C again, before the work was given up.
            EnvironmentProblem: The engine is gone, answers nothing, or wants to be paid.
        """
        return self._runner.run(_watched(work, failure))


async def _watched(work: Coroutine[Any, Any, _T], failure: Callable[[], str | None]) -> _T:
    task, again = asyncio.ensure_future(work), asyncio.Event()
    pressed = asyncio.ensure_future(again.wait())
    loop = asyncio.get_running_loop()

    def press() -> None:
        if task.cancelling():
            again.set()
        task.cancel()

    with contextlib.suppress(NotImplementedError, ValueError):  # not in a thread, not on Windows
        loop.add_signal_handler(signal.SIGINT, press)
    try:
        while not task.done():
            await asyncio.wait({task, pressed}, timeout=_WATCH_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if again.is_set():
                raise Interrupted("interrupted")
            if not task.done() and (reason := failure()):
                raise EnvironmentProblem(f"the engine is gone: {reason}", "run the same command again")
            if not task.done() and (trouble := pulse.trouble()) is not None:
                raise trouble
        return task.result()
    except asyncio.CancelledError:
        raise GivenUp("interrupted") from None
    finally:
        with contextlib.suppress(NotImplementedError, ValueError):
            loop.remove_signal_handler(signal.SIGINT)
        task.cancel()
        pressed.cancel()
        await asyncio.wait({task, pressed}, timeout=_PATIENCE_SECONDS)
