"""What the SDK can ask for and a single machine has no answer to: each request gets a 4xx and the reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from charrun.engine.bodies import read_body
from charrun.engine.desk import Desk
from charrun.engine.errors import RequestRefused

PREFIX = "/api/v1"
NO_ACCOUNTS = "This engine has no accounts: "
REFUSALS = (
    ("POST", "create_custom_loss", "Custom losses run in the client here: the SDK needs no upload for them."),
    ("POST", "retrieve_futures", "Results are fetched one by one here, with retrieve_future."),
    ("POST", "auth/token", f"{NO_ACCOUNTS}send its key in X-API-Key."),
    ("PUT", "sessions/{session}/project", f"{NO_ACCOUNTS}no projects to move a session to."),
    ("POST", "sessions/search", "Sessions are not searched here; list_sessions names all of them."),
    ("GET", "sessions/{session}/trace_export", "This engine keeps no trace of a session."),
    ("GET", "audit", f"{NO_ACCOUNTS}no audit log."),
    ("GET", "billing/usage/events", f"{NO_ACCOUNTS}nothing is billed."),
    ("GET", "billing/usage/checkpoints/current", f"{NO_ACCOUNTS}nothing is billed; list_user_checkpoints has sizes."),
)
"""Method, path under /api/v1 and reason of each."""


def routes(_: Desk) -> list[Route]:
    """The routes."""
    return [Route(f"{PREFIX}/{path}", _refusal(reason), methods=[method]) for method, path, reason in REFUSALS]


def _refusal(reason: str) -> Callable[[Request], Awaitable[Response]]:
    async def refuse(request: Request) -> Response:
        await read_body(request)
        raise RequestRefused(reason)

    return refuse
