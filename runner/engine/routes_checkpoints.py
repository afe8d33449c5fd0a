"""Routes about what is saved: checkpoints and the training runs that they belong to."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types

from charrun.engine.bodies import read, read_body
from charrun.engine.checkpoint_records import Checkpoint, CheckpointName, check_ttl
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.desk import Desk
from charrun.engine.errors import RequestRefused
from charrun.engine.pages import page
from charrun.engine.state import RunState
from charrun.engine.storage import KINDS
from charrun.engine.wire import as_text

Found = TypeVar("Found")

REMEMBERED_COPIES = 1000
"""Copies of which the client's key is known, in case it repeats its request."""
PREFIX = "/api/v1"


class PathRequest(BaseModel):
    """The body of weights_info, for which the SDK has no type."""

    tinker_path: str


class LifetimeRequest(BaseModel):
    """The body of a checkpoint's ttl, for which the SDK has no type."""

    ttl_seconds: int | None


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts. What looks through the disk does so in a thread."""
    store = desk.store
    copies = Copies(store)

    async def weights_info(request: Request) -> Response:
        path = (await read(request, PathRequest)).tinker_path
        return JSONResponse(_weights_info(await run_in_threadpool(store.find_sound, path)))

    async def list_runs(request: Request) -> Response:
        _check_scope(request)
        return JSONResponse(page(request, "training_runs", _describe_runs(desk, await run_in_threadpool(store.all))))

    async def get_run(request: Request) -> Response:
        _check_scope(request)
        run = _run_id(request)
        found = _describe_runs(desk, await run_in_threadpool(store.all, run))
        return JSONResponse(_known(run, [each for each in found if each["training_run_id"] == run])[0])

    async def list_run_checkpoints(request: Request) -> Response:
        run = _run_id(request)
        found = await run_in_threadpool(store.all, run)
        _known(run, [*found, *(each for each in _open_runs(desk) if each.id == run)])
        return JSONResponse({"checkpoints": [_describe(each) for each in found]})

    async def list_checkpoints(request: Request) -> Response:
        found = await run_in_threadpool(store.all)
        return JSONResponse(page(request, "checkpoints", [_describe(each) for each in found]))

    async def delete_checkpoint(request: Request) -> Response:
        await run_in_threadpool(store.delete, _addressed(store, request))
        return Response(status_code=204)

    async def set_ttl(request: Request) -> Response:
        seconds = (await read(request, LifetimeRequest)).ttl_seconds
        check_ttl(seconds)
        await run_in_threadpool(store.set_lifetime, _addressed(store, request), seconds)
        return Response(status_code=204)

    async def publish(request: Request) -> Response:
        await read_body(request)
        await run_in_threadpool(store.set_public, _addressed(store, request), request.method == "POST")
        return Response(status_code=204)

    async def copy_weights(request: Request) -> Response:
        message = await read(request, types.CopyWeightsRequest)
        copy = await run_in_threadpool(copies.make, message, request.headers.get("x-idempotency-key"))
        return JSONResponse({"tinker_path": copy.path})

    checkpoints = f"{PREFIX}/training_runs/{{run}}/checkpoints"
    one = f"{checkpoints}/{{kind}}/{{name}}"
    return [
        Route(f"{PREFIX}/weights_info", weights_info, methods=["POST"]),
        Route(f"{PREFIX}/training_runs", list_runs),
        Route(f"{PREFIX}/training_runs/{{run}}", get_run),
        Route(f"{PREFIX}/checkpoints", list_checkpoints),
        Route(f"{PREFIX}/copy_weights", copy_weights, methods=["POST"]),
        Route(checkpoints, list_run_checkpoints),
        Route(one, delete_checkpoint, methods=["DELETE"]),
        Route(f"{one}/ttl", set_ttl, methods=["PUT"]),
        Route(f"{one}/publish", publish, methods=["POST", "DELETE"]),
    ]


class Copies:
    """Copies of checkpoints: each belongs to a run of its own, which cannot be trained on."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store
        self._made: OrderedDict[str, CheckpointName] = OrderedDict()
        self._lock = threading.Lock()

    def make(self, message: types.CopyWeightsRequest, key: str | None) -> CheckpointName:
        """Copies a checkpoint; a key that was sent before gets the copy that was made for it.

        Raises:
            RequestRefused: There is no such checkpoint, or its lifetime is out of range.
        """
        check_ttl(message.ttl_seconds)
        with self._lock:  # so that a repeated request waits for the first one's copy
            if key is not None and key in self._made:
                return self._made[key]
            source = self._store.find(message.source_path)
            place = CheckpointName.checked(f"{uuid.uuid4()}:train:0", source.place.kind, source.place.name)
            self._store.copy(source, place, message.ttl_seconds)
            if key is not None:
                self._made[key] = place
                while len(self._made) > REMEMBERED_COPIES:
                    self._made.popitem(last=False)
            return place


def _addressed(store: CheckpointStore, request: Request) -> Checkpoint:
    """The checkpoint that a request's address names."""
    return store.find(CheckpointName.checked(**request.path_params).path)


def _run_id(request: Request) -> str:
    """The training run that a request's address names."""
    return CheckpointName.checked(request.path_params["run"], "weights", "any").run


def _known(run: str, found: list[Found]) -> list[Found]:
    if not found:
        raise RequestRefused(f"There is no training run {run} here.", 404)
    return found


def _check_scope(request: Request) -> None:
    """Raises RequestRefused where a request asks for a part of what a server without users has not divided."""
    scope = request.query_params.get("access_scope", "owned")
    if scope not in ("owned", "accessible"):
        raise RequestRefused("access_scope must be owned or accessible.")
    if "project_id" in request.query_params:
        raise RequestRefused("This engine has no projects; leave project_id out.")


def _weights_info(checkpoint: Checkpoint) -> dict[str, Any]:
    lora = checkpoint.lora
    return {
        "base_model": checkpoint.base_model,
        "is_lora": True,
        "lora_rank": lora.rank,
        "train_unembed": lora.train_unembed,
        "train_mlp": lora.train_mlp,
        "train_attn": lora.train_attn,
    }


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint_id": checkpoint.place.id,
        "checkpoint_type": KINDS[checkpoint.place.kind],
        "time": checkpoint.created.isoformat(),
        "tinker_path": checkpoint.place.path,
        "size_bytes": checkpoint.size_bytes,
        "public": checkpoint.public,
        "user_metadata": dict(checkpoint.user_metadata) if checkpoint.user_metadata else None,
        "expires_at": checkpoint.expires.isoformat() if checkpoint.expires else None,
    }


def _open_runs(desk: Desk) -> list[RunState]:
    return [run for session in desk.sessions.all() for run in list(session.runs.values())]


def _describe_runs(desk: Desk, checkpoints: Sequence[Checkpoint]) -> list[dict[str, Any]]:
    """Runs that are open or have a checkpoint, the latest used first."""
    runs: dict[str, dict[str, Any]] = {}
    for run in _open_runs(desk):
        metadata = as_text(run.user_metadata)
        runs[run.id] = _run(run.id, run.model.name, run.lora.rank, run.last_request.isoformat(), metadata)
    for checkpoint in reversed(checkpoints):
        time, run_id = checkpoint.created.isoformat(), checkpoint.place.run
        fresh = _run(run_id, checkpoint.base_model, checkpoint.lora.rank, time, checkpoint.run_metadata or {})
        described = runs.setdefault(run_id, fresh)
        described["last_request_time"] = max(described["last_request_time"], time)
        which = {"weights": "last_checkpoint", "sampler_weights": "last_sampler_checkpoint"}.get(checkpoint.place.kind)
        if which is not None:
            described[which] = _describe(checkpoint)
    return sorted(runs.values(), key=lambda each: str(each["last_request_time"]), reverse=True)


def _run(run_id: str, base_model: str, rank: int, time: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    return {
        "training_run_id": run_id,
        "base_model": base_model,
        "model_owner": "local",
        "is_lora": True,
        "lora_rank": rank,
        "last_request_time": time,
        "user_metadata": dict(metadata) or None,
    }
