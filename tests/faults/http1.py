"""HTTP/1.1 messages as bytes: read whole, written as they came, so that a proxy controls every byte of an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

_MOST_HEAD = 256 * 1024
_REASONS = {200: "OK", 402: "Payment Required", 404: "Not Found", 408: "Request Timeout", 410: "Gone"}


class Cut(ConnectionError):
    """The other side closed within a message."""


@dataclass(frozen=True)
class Message:
    """A request or an answer.

    Attributes:
        first: The first line, without its line break.
        headers: As they came, in order.
        body: Decoded from chunks, otherwise as it came.
    """

    first: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str:
        """A header's value, or an empty text."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), "")

    @property
    def path(self) -> str:
        """Path of a request, without its query."""
        return self.first.split(b" ")[1].split(b"?")[0].decode("latin-1")

    @property
    def status(self) -> int:
        """Status of an answer."""
        return int(self.first.split(b" ")[1])

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection serves another message afterwards."""
        return self.header("connection").lower() != "close" and not self.first.endswith(b"HTTP/1.0")

    def head(self) -> bytes:
        """First line and headers with the body's length, ready to be sent."""
        kept = [(k, v) for k, v in self.headers if k.lower() not in (b"content-length", b"transfer-encoding")]
        lines = [self.first, *(key + b": " + value for key, value in kept), b"content-length: %d" % len(self.body)]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def encode(self) -> bytes:
        """All of it."""
        return self.head() + self.body


def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Message:
    """An answer of our own."""
    fields = {"content-type": "application/json", **(headers or {})}
    first = f"HTTP/1.1 {status} {_REASONS.get(status, 'Fault')}".encode()
    return Message(first, tuple((k.encode(), v.encode()) for k, v in fields.items()), body)


async def read(reader: asyncio.StreamReader) -> Message | None:
    """The next message; None where the connection ended between messages.

    Raises:
        Cut: It ended within one.
    """
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Cut("within the head") from None
        return None
    except ConnectionError:
        return None
    lines = raw[:-4].split(b"\r\n")
    parts = (line.split(b":", 1) for line in lines[1:])
    head = Message(lines[0], tuple((name.strip(), value.strip()) for name, value in parts), b"")
    try:
        if head.header("transfer-encoding").lower() == "chunked":
            body = await _chunks(reader)
        else:
            body = await reader.readexactly(int(head.header("content-length") or 0))
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Cut("within the body") from error
    return Message(head.first, head.headers, body)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while True:
        size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
        parts.append((await reader.readexactly(size + 2))[:-2])
        if not size:
            return b"".join(parts)


LIMIT = _MOST_HEAD
"""Longest head that is read."""
