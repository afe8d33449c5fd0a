"""Routes of the service itself: configuration, models, sessions, and results to come back for."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types

from charrun.engine.bodies import read, read_body
from charrun.engine.desk import Desk
from charrun.engine.futures import Failure
from charrun.engine.pages import part_of
from charrun.engine.wire import as_text

LONG_POLL = 20.0
"""Seconds that a client waits at most for a result before it asks again; the SDK gives up a request after 45."""


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts."""

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def config(_: Request) -> Response:
        return JSONResponse(
            {
                "use_pyqwest_transport": True,
                "sample_enable_stuck_detection": False,
                "sample_join_sampling_session": True,
            }
        )

    async def dynamic_config(_: Request) -> Response:
        return JSONResponse({"sample_cancel_enabled": True})

    async def capabilities(_: Request) -> Response:
        models = [
            {
                "model_name": model.name,
                "max_context_length": model.context,
                "trainable": True,
                "sampleable": True,
            }
            for model in desk.shelf.models.values()
        ]
        return JSONResponse({"supported_models": models})

    async def telemetry(request: Request) -> Response:
        await read_body(request)
        return JSONResponse({"status": "accepted"})

    async def create_session(request: Request) -> Response:
        message = await read(request, types.CreateSessionRequest)
        if desk.sessions.is_full:
            desk.close_silent_sessions(pressed=True)
        session = desk.sessions.create(message.user_metadata or {}, message.display_name)
        return JSONResponse({"type": "create_session", "session_id": session.id})

    async def heartbeat(request: Request) -> Response:
        message = await read(request, types.SessionHeartbeatRequest)
        desk.sessions.open(message.session_id)
        return JSONResponse({"type": "session_heartbeat"})

    async def finish(request: Request) -> Response:
        await read_body(request)
        session = desk.sessions.get(request.path_params["session"])
        if not session.finished:
            desk.close_session(session)
        return JSONResponse({})

    async def list_sessions(request: Request) -> Response:
        sessions = sorted(desk.sessions.all(), key=lambda each: each.last_seen, reverse=True)
        part, _ = part_of(request, [session.id for session in sessions], 20)
        return JSONResponse({"sessions": part})

    async def get_session(request: Request) -> Response:
        session = desk.sessions.get(request.path_params["session"])
        return JSONResponse(
            {
                "training_run_ids": [run.id for run in session.runs.values()],
                "sampler_ids": list(session.samplers),
                "user_metadata": as_text(session.user_metadata),
                "display_name": session.display_name,
            }
        )

    async def retrieve(request: Request) -> Response:
        message = await read(request, types.FutureRetrieveRequest)
        outcome = await desk.office.fetch(message.request_id, LONG_POLL)
        if outcome is None:
            # 408 makes the SDK ask again at once, and quietly.
            body = {"type": "try_again", "request_id": message.request_id, "queue_state": "active"}
            return JSONResponse(body, status_code=408)
        if isinstance(outcome, Failure):
            return JSONResponse({"error": outcome.message, "category": "user" if outcome.user else "server"})
        if isinstance(outcome, bytes):
            return Response(outcome, media_type="application/x-protobuf")
        return JSONResponse(dict(outcome))

    prefix = "/api/v1"
    return [
        Route(f"{prefix}/healthz", health),
        Route(f"{prefix}/client/config", config, methods=["POST"]),
        Route(f"{prefix}/client/dynamic_config", dynamic_config, methods=["POST"]),
        Route(f"{prefix}/get_server_capabilities", capabilities),
        Route(f"{prefix}/telemetry", telemetry, methods=["POST"]),
        Route(f"{prefix}/create_session", create_session, methods=["POST"]),
        Route(f"{prefix}/session_heartbeat", heartbeat, methods=["POST"]),
        Route(f"{prefix}/sessions", list_sessions),
        Route(f"{prefix}/sessions/{{session}}", get_session),
        Route(f"{prefix}/sessions/{{session}}/finish", finish, methods=["POST"]),
        Route(f"{prefix}/retrieve_future", retrieve, methods=["POST"]),
    ]
