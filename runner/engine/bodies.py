"""Reading what clients send: bounded while it arrives, and large bodies parsed off the event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from charrun.engine.errors import Busy, RequestRefused
from charrun.engine.wire import MAX_BODY, decompressed

Message = TypeVar("Message", bound=BaseModel)
Parsed = TypeVar("Parsed")

INLINE = 64 * 1024
"""Bytes up to which parsing at once costs less than asking a thread."""
MAX_ARRIVING = 2 * MAX_BODY
"""Bytes of bodies that may be arriving at the same time, over all connections."""


@dataclass
class _Arriving:
    """Bytes of bodies that are being read, over all connections."""

    total: int = 0


_arriving = _Arriving()


async def read_body(request: Request) -> bytes:
    """The request's body, decompressed.

    Raises:
        RequestRefused: It is too large, cut short or not what its encoding says.
        Busy: Too much is arriving at once.
    """
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        async for part in request.stream():
            size += len(part)
            _arriving.total += len(part)
            if size > MAX_BODY:
                raise _too_large()
            if _arriving.total > MAX_ARRIVING:
                raise Busy("Too many large requests are arriving at once; send this again later.")
            parts.append(part)
    except ClientDisconnect:
        raise RequestRefused("The body was cut short.") from None
    finally:
        _arriving.total -= size
    encoding = request.headers.get("content-encoding", "")
    if not encoding:
        return b"".join(parts)
    return await aside(size if encoding != "zstd" else 16 * size, lambda: decompressed(b"".join(parts), encoding))


async def read(request: Request, kind: type[Message]) -> Message:
    """The request's JSON body as a message of the SDK.

    Raises:
        RequestRefused: It is not such a message.
        Busy: Too much is arriving at once.
    """
    body = await read_body(request)
    return await aside(len(body), lambda: _parsed(body, kind))


async def aside(size: int, work: Callable[[], Parsed]) -> Parsed:
    """Does work on so many bytes: in a thread where they are many, so that others are answered meanwhile."""
    return work() if size <= INLINE else await anyio.to_thread.run_sync(work)


def _parsed(body: bytes, kind: type[Message]) -> Message:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise RequestRefused(f"The request is not a valid {kind.__name__}: {place}: {first['msg']}.") from None


def _too_large() -> RequestRefused:
    return RequestRefused(f"The body is too large; at most {MAX_BODY} bytes are accepted.", 413)
