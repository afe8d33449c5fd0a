"""The server as an ASGI application: its parts, its routes, its key, and how errors are answered."""

from __future__ import annotations

import hmac
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from charrun.engine import routes_checkpoints, routes_downloads, routes_sampling, routes_service, routes_training
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.desk import Desk
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import TicketOffice
from charrun.engine.models import ModelShelf, choose_device
from charrun.engine.settings import EngineSettings
from charrun.engine.state import Sessions
from charrun.engine.worker import Worker

logger = logging.getLogger(__name__)


class KeyCheck:
    """Lets a request through only with the server's key, compared in constant time; a signed address has its own."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].startswith(f"{routes_downloads.FILES}/"):
            sent = dict(scope["headers"]).get(b"x-api-key", b"")
            if not hmac.compare_digest(sent, self._key):
                answer = JSONResponse({"error": "The X-API-Key header does not hold this engine's key."}, 401)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def open_desk(settings: EngineSettings) -> Desk:
    """The parts of a server.

    Raises:
        ValueError: A folder that is not a model's, or a device that is not there.
        OSError: A storage folder that cannot be made.
    """
    return Desk(
        settings=settings,
        shelf=ModelShelf(settings.models, *choose_device(settings.device)),
        store=CheckpointStore(settings.storage),
        worker=Worker(settings),
        sessions=Sessions(),
        office=TicketOffice(),
    )


def build_app(desk: Desk, ready: Callable[[], None]) -> Starlette:
    """The application; `ready` is called once it can answer."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        desk.worker.start()
        ready()
        yield
        desk.worker.stop(patience=2.0)

    parts = (routes_service, routes_training, routes_sampling, routes_checkpoints, routes_downloads)
    return Starlette(
        routes=[route for part in parts for route in part.routes(desk)],
        middleware=[Middleware(KeyCheck, key=desk.settings.api_key)],
        exception_handlers={RequestRefused: _refused, HTTPException: _unknown, Exception: _fault},
        lifespan=lifespan,
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    return JSONResponse({"error": error.message}, error.status)


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": f"{request.method} {request.url.path} is not offered by this engine."}, error.status_code
    )


async def _fault(request: Request, error: Exception) -> Response:
    # A 5xx would make the SDK repeat the request for five minutes, and it would fail each time.
    logger.error("a request failed: %s", request.url.path, exc_info=error)
    return JSONResponse({"error": f"The engine failed on this request: {type(error).__name__}: {error}"}, 422)
