"""The server as an ASGI application: its parts, its routes, its key, and how errors are answered."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from charrun.engine import (
    routes_checkpoints,
    routes_downloads,
    routes_refused,
    routes_sampling,
    routes_saving,
    routes_service,
    routes_training,
)
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.desk import Desk
from charrun.engine.errors import Busy, RequestRefused
from charrun.engine.futures import TicketOffice
from charrun.engine.models import ModelShelf, choose_device
from charrun.engine.settings import EngineSettings
from charrun.engine.snapshots import Snapshots
from charrun.engine.state import Sessions
from charrun.engine.training import TrainingRun
from charrun.engine.worker import Worker

RETRY_AFTER = 2
"""Seconds after which a client that was told to come back later should."""

logger = logging.getLogger(__name__)


class KeyCheck:
    """Lets a request through only with the server's key, compared in constant time; a signed address has its own.

    An empty key lets every request through.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._key = key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._key and scope["type"] == "http" and not scope["path"].startswith(f"{routes_downloads.FILES}/"):
            sent = dict(scope["headers"]).get(b"x-api-key", b"")
            if not hmac.compare_digest(sent, self._key):
                answer = JSONResponse({"error": "The X-API-Key header does not hold this engine's key."}, 401)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Closing:
    """Turns new work away while the server finishes what it has; results can still be fetched."""

    WORK = ("create_", "asample", "forward", "optim_step", "save_", "load_")

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app = app
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        route = scope["path"].rpartition("/")[2] if scope["type"] == "http" else ""
        if self._desk.closing.is_set() and route.startswith(self.WORK):
            app = JSONResponse({"error": "The engine is stopping and takes no new work."}, 410)
        await app(scope, receive, send)


def open_desk(
    settings: EngineSettings,
    worker: Worker | None = None,
    training: type[TrainingRun] = TrainingRun,
    routes: tuple[Route, ...] = (),
) -> Desk:
    """The parts of a server.

    Args:
        settings: What to serve.
        worker: What computes; by default this machine.
        training: What computes a training run.
        routes: Further ones.

    Raises:
        ValueError: A folder that is not a model's, or a device that is not there.
        OSError: A storage folder that cannot be made.
    """
    sessions = Sessions(settings)
    return Desk(
        settings=settings,
        shelf=ModelShelf(settings.models, *choose_device(settings.device, settings.dtype)),
        store=CheckpointStore(settings.storage),
        worker=worker or Worker(settings),
        sessions=sessions,
        snapshots=Snapshots(sessions, settings.snapshot_bytes),
        office=TicketOffice(settings.waiting_bytes, settings.result_bytes),
        training=training,
        routes=routes,
    )


def build_app(desk: Desk, ready: Callable[[], None]) -> Starlette:
    """The application; `ready` is called once it can answer."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        desk.worker.start()
        reaper = asyncio.create_task(_close_silent_sessions(desk))
        ready()
        yield
        reaper.cancel()
        desk.worker.stop(patience=max(2.0, desk.settings.drain_seconds))

    parts = (
        routes_service,
        routes_training,
        routes_saving,
        routes_sampling,
        routes_checkpoints,
        routes_downloads,
        routes_refused,
    )
    return Starlette(
        routes=[*desk.routes, *(route for part in parts for route in part.routes(desk))],
        middleware=[Middleware(KeyCheck, key=desk.settings.api_key), Middleware(Closing, desk=desk)],
        exception_handlers={RequestRefused: _refused, Busy: _busy, HTTPException: _unknown, Exception: _fault},
        lifespan=lifespan,
    )


async def _close_silent_sessions(desk: Desk) -> None:
    while True:
        await asyncio.sleep(min(10.0, desk.settings.session_seconds / 4))
        desk.close_silent_sessions()


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestRefused)
    logger.info("refused %s: %s", request.url.path.rpartition("/")[2], error.message)
    # A body that is too large was not read to its end: the connection cannot be used again.
    headers = {"Connection": "close"} if error.status == 413 else None
    return JSONResponse({"error": error.message}, error.status, headers)


async def _busy(_: Request, error: Exception) -> Response:
    assert isinstance(error, Busy)
    return JSONResponse({"error": error.message}, 429, headers={"Retry-After": str(RETRY_AFTER)})


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse(
        {"error": f"{request.method} {request.url.path} is not offered by this engine."}, error.status_code
    )


async def _fault(request: Request, error: Exception) -> Response:
    # A 5xx would make the SDK repeat the request for five minutes, and it would fail each time.
    logger.error("a request failed: %s", request.url.path, exc_info=error)
    return JSONResponse({"error": f"The engine failed on this request: {type(error).__name__}: {error}"}, 422)
