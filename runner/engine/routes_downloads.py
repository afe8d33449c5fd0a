"""Routes by which external checkpoints are fetched: addresses signed with the server's key, and the files behind them.

A signed address needs no key header, so that any HTTP client can fetch it; it names one file and expires.
"""

from __future__ import annotations

import hmac
import secrets
import time
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from charrun.engine.age import SUFFIX
from charrun.engine.checkpoint_records import CheckpointName
from charrun.engine.desk import Desk
from charrun.engine.errors import RequestRefused

FILES = "/files"
_SECONDS = 3600
_PLAIN = ("adapter_config.json", "adapter_model.safetensors")
_SERVED = (*_PLAIN, *(f"{name}{SUFFIX}" for name in _PLAIN))


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts."""
    key = (desk.settings.api_key or secrets.token_hex(32)).encode()

    async def urls(request: Request) -> Response:
        place = CheckpointName.checked(request.path_params["run"], "external_weights", request.path_params["name"])
        folder = desk.store.folder(desk.store.find(place.path).place)
        expires = int(time.time()) + _SECONDS
        addresses = {}
        for name in _SERVED:
            if (folder / name).exists():
                path = f"{FILES}/{quote(place.run, safe='')}/{place.name}/{name}"
                query = urlencode({"expires": expires, "signature": _sign(key, place, name, str(expires))})
                addresses[name] = f"{str(request.base_url).rstrip('/')}{path}?{query}"
        return JSONResponse({"urls": addresses, "expires": datetime.fromtimestamp(expires, UTC).isoformat()})

    async def file(request: Request) -> Response:
        place = CheckpointName.checked(request.path_params["run"], "external_weights", request.path_params["name"])
        name, expires = request.path_params["file"], request.query_params.get("expires", "")
        signature = request.query_params.get("signature", "").encode(errors="replace")
        if not hmac.compare_digest(signature, _sign(key, place, name, expires).encode()):
            raise RequestRefused("The address is not signed by this engine.", 403)
        if int(expires) < time.time():
            raise RequestRefused("The address has expired; ask for a new one.", 403)
        path = desk.store.folder(desk.store.find(place.path).place) / name
        if not path.is_file():
            raise RequestRefused(f"The checkpoint {place.path} has no file {name}.", 404)
        return FileResponse(path)

    return [
        Route("/api/v1/training_runs/{run}/checkpoints/external_weights/{name}/external_weights_urls", urls),
        Route(f"{FILES}/{{run}}/{{name}}/{{file}}", file),
    ]


def _sign(key: bytes, place: CheckpointName, name: str, expires: str) -> str:
    return hmac.new(key, f"{place.path}/{name}?{expires}".encode(errors="replace"), "sha256").hexdigest()
