"""A proxy before an engine that passes everything on, writes down what was asked, and injects faults by plan.

Raw sockets, so that it decides about every byte: an answer can end in a reset, or come a byte at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from faults import plan
from faults.http1 import LIMIT, Cut, Message, answer, read
from faults.ledger import Ledger, body_of
from faults.plan import Fault, Plan

_FRESH_SECONDS = 2.0
"""How long an idle connection to the engine is used again: the engine closes them after five."""
_TRY_AGAIN = '{"type": "try_again", "queue_state": "active", "request_id": %s}'

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """A running proxy; `ledger` and `plan` may be replaced while it runs.

    Attributes:
        base_url: Where clients connect.
        ledger: What went through.
        plan: The faults.
        upstream: Host and port of the engine; nothing needs to listen there.
    """

    def __init__(self, engine_url: str) -> None:
        parts = urlsplit(engine_url)
        self.upstream = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.ledger = Ledger()
        self.plan = Plan()
        self.base_url = ""
        self._idle: list[tuple[float, Connection]] = []
        self._never: set[str] = set()
        self._held: list[asyncio.Future[None]] = []
        self._clients: set[asyncio.Task[None]] = set()
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="fault proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def begin(self, faults: Sequence[Fault] = ()) -> Ledger:
        """Forget what was asked, and inject these faults from now on."""
        self._never = set()
        self.plan = Plan(faults)
        self.ledger = Ledger()
        return self.ledger

    # -- serving --------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._client, "127.0.0.1", 0, limit=LIMIT))
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listening.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read(reader)) is not None:
                if not await self._answer(request, writer) or not request.keeps_alive:
                    break
        except (Cut, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                writer.close()

    async def _answer(self, request: Message, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection is still good."""
        ledger, faults = self.ledger, self.plan
        ledger.asked(request)
        fault = faults.meet(request.path, request.header("x-tinker-request-type"), request.body)
        early = await self._without_engine(request, fault, writer)
        if early is not None:
            return early
        try:
            reply = await self._forward(request)
            ledger.accepted(request, reply)
            if fault is not None and fault.kind == "duplicate":
                reply = await self._forward(request)
        except (Cut, OSError):
            return _reset(writer)  # nobody is there, or it died: the client sees no more than that
        if fault is not None and not await self._spoil(fault, reply, writer):
            return False
        if fault is None or fault.kind not in ("slow", "status"):
            writer.write(reply.encode())
        await writer.drain()
        if fault is None or fault.kind != "status":
            ledger.delivered(request, reply)
        return True

    async def _without_engine(self, request: Message, fault: Fault | None, writer: asyncio.StreamWriter) -> bool | None:
        """What is answered without asking the engine; None where it has to be asked."""
        kind = fault.kind if fault is not None else ""
        future = str(json.loads(body_of(request))["request_id"]) if request.path == plan.RETRIEVE else ""
        if fault is not None and kind == "never":
            self._never.add(future)
        if future and future in self._never:
            await asyncio.sleep(fault.seconds if fault is not None else 1.0)
            writer.write(answer(408, (_TRY_AGAIN % json.dumps(future)).encode()).encode())
            return True
        if fault is not None and kind == "status" and not fault.seen:
            writer.write(answer(fault.status, fault.body.encode(), dict(fault.headers)).encode())
            return True
        if kind == "drop":
            return _reset(writer)
        if kind == "silence":
            await asyncio.sleep(3600)
        return None

    async def _spoil(self, fault: Fault, reply: Message, writer: asyncio.StreamWriter) -> bool:
        """Do to the engine's answer what the fault says; whether the connection is still good."""
        if fault.kind == "reset":
            return _reset(writer)
        if fault.kind == "reset-mid-body":
            writer.write(reply.head() + reply.body[: len(reply.body) // 2])
            await writer.drain()
            await asyncio.sleep(0.05)  # what was written arrives before the reset discards it
            return _reset(writer)
        if fault.kind == "status":
            writer.write(answer(fault.status, fault.body.encode(), dict(fault.headers)).encode())
        elif fault.kind == "slow":
            whole = reply.encode()
            for index in range(len(whole)):
                if writer.is_closing():
                    raise Cut("by the client, which did not wait")
                writer.write(whole[index : index + 1])
                await asyncio.sleep(fault.seconds / len(whole))
        elif fault.kind == "reorder" and reply.status == 200:
            await self._hold(fault)
        return True

    async def _hold(self, fault: Fault) -> None:
        """Wait until enough answers are held or none came for a while; then the last one goes first."""
        mine = self._loop.create_future()
        self._held.append(mine)
        if len(self._held) >= fault.times:
            self._release()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(mine), fault.seconds)
        self._release()
        await mine

    def _release(self) -> None:
        held, self._held = self._held, []
        for place, each in enumerate(reversed(held)):
            self._loop.call_later(0.02 * place, _let_go, each)

    # -- the engine -----------------------------------------------------------------------------------------------

    async def _forward(self, request: Message) -> Message:
        connection = self._take()
        if connection is None:
            connection = await asyncio.open_connection(*self.upstream, limit=LIMIT)
        reader, writer = connection
        whole = False
        try:
            writer.write(request.encode())
            await writer.drain()
            reply = await read(reader)
            if reply is None:
                raise Cut("instead of an answer")
            whole = reply.keeps_alive
            return reply
        finally:
            if whole:
                self._idle.append((time.monotonic(), connection))
            else:
                writer.close()

    def _take(self) -> Connection | None:
        while self._idle:
            since, connection = self._idle.pop()
            if time.monotonic() - since < _FRESH_SECONDS and not connection[0].at_eof():
                return connection
            connection[1].close()
        return None


def _let_go(held: asyncio.Future[None]) -> None:
    if not held.done():
        held.set_result(None)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Close with RST instead of FIN: the other side gets "connection reset by peer"."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


@contextmanager
def proxied(engine_url: str, faults: Sequence[Fault] = ()) -> Iterator[Proxy]:
    """A proxy before an engine."""
    with Proxy(engine_url) as proxy:
        proxy.begin(faults)
        yield proxy
