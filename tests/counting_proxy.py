"""A server before an engine that passes everything on and counts what was asked, by path."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_HOP = {"host", "content-length", "transfer-encoding", "connection"}


@contextmanager
def counting(base_url: str) -> Iterator[tuple[str, Counter[str]]]:
    """The proxy's address, and the number of requests by path so far."""
    asked: Counter[str] = Counter()
    client = httpx.AsyncClient(base_url=base_url, timeout=120, limits=httpx.Limits(max_connections=400))

    async def forward(request: Request) -> Response:
        path = request.url.path
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        asked[path] += 1
        answer = await client.request(request.method, path, content=await request.body(), headers=headers)
        kept = {n: v for n, v in answer.headers.items() if n.lower() not in (_HOP | {"content-encoding"})}
        return Response(answer.content, answer.status_code, kept)

    app = Starlette(routes=[Route("/{path:path}", forward, methods=["GET", "POST", "PUT", "DELETE", "PATCH"])])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", asked
    finally:
        server.should_exit = True
        thread.join(10)
