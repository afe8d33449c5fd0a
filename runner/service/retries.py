"""The SDK's own retries of a sampling request, each of which is asked for first: the service may bill every attempt.

The SDK sends a request anew, under another number, where its answer is lost at the service (410). One that is turned
away (429) it holds back with all others and sends again under its number: that costs nothing, but takes time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from tinker.lib.retry_handler import RetryHandler

from charrun.service.session import before_retry, when_sent

if TYPE_CHECKING:
    import tinker


class _Retries(RetryHandler[Any]):
    async def execute(self, func: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        ask, first = before_retry.get(), True

        async def attempt(*args: Any, **kwargs: Any) -> Any:
            nonlocal first
            if not first and ask is not None:
                await asyncio.wrap_future(ask())
            first = False
            return await func(*args, **kwargs)

        return await super().execute(attempt, *args, **kwargs)


def ask_before_retries(client: tinker.SamplingClient) -> None:
    """Let a client heed `before_retry`."""
    known = client.retry_handler
    client.retry_handler = _Retries(known.config, known.name, known.get_telemetry())


def tell_when_sent(client: tinker.SamplingClient) -> None:
    """Let a client heed `when_sent`; that of an SDK that sends in another way tells nothing."""
    send = getattr(client, "_send_asample_request", None)
    if send is None:
        return

    def sending(*args: Any) -> Any:
        if (tell := when_sent.get()) is not None:
            tell()
        return send(*args)

    vars(client)["_send_asample_request"] = sending
