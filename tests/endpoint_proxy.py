"""Before a server of chat completions, or in its place: passes on, keeps what was asked, and misbehaves as told."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any] | bytes]
"""Status, and JSON or what is no JSON."""


class EndpointProxy:
    """Attributes: `asked`, the bodies of all requests for answers; `before` and `after` may replace an answer.

    `listed` takes the place of the list of models.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.asked: list[dict[str, Any]] = []
        self.answered: list[dict[str, Any]] = []
        self.before: Callable[[int, dict[str, Any]], Answer | None] = lambda number, body: None
        self.listed: Answer | None = None
        self.after: Callable[[dict[str, Any]], dict[str, Any]] = lambda answer: answer
        self.keys: set[str] = set()
        self.base_url = ""

    def pass_on(self, path: str, body: dict[str, Any] | None) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.upstream + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, {"error": {"message": error.read().decode()}}


@contextmanager
def before_endpoint(upstream: str) -> Iterator[EndpointProxy]:
    """A proxy on loopback before an upstream such as `http://127.0.0.1:8000`."""
    proxy, lock = EndpointProxy(upstream), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(*(proxy.listed or proxy.pass_on(self.path, None)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                proxy.keys.add(self.headers.get("Authorization", ""))
                number = len(proxy.asked)
                proxy.asked.append(body)
            instead = proxy.before(number, body)
            status, answer = instead or proxy.pass_on(self.path, body)
            if instead is None and status == 200 and isinstance(answer, dict):
                answer = proxy.after(answer)
                with lock:
                    proxy.answered.append(answer)
            self._send(status, answer)

        def _send(self, status: int, answer: dict[str, Any] | bytes) -> None:
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if data.startswith(b"<") else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # who asked was killed

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    proxy.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
