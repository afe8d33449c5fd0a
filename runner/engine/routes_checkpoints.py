"""Routes about what is saved: checkpoints and the training runs that they belong to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from charrun.engine.checkpoints import KINDS, Checkpoint, CheckpointName
from charrun.engine.desk import Desk, read
from charrun.engine.errors import RequestRefused

PREFIX = "/api/v1"


class PathRequest(BaseModel):
    """The body of weights_info, for which the SDK has no type."""

    tinker_path: str


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts."""

    async def weights_info(request: Request) -> Response:
        checkpoint = desk.store.find((await read(request, PathRequest)).tinker_path)
        lora = checkpoint.lora
        return JSONResponse(
            {
                "base_model": checkpoint.base_model,
                "is_lora": True,
                "lora_rank": lora.rank,
                "train_unembed": lora.train_unembed,
                "train_mlp": lora.train_mlp,
                "train_attn": lora.train_attn,
            }
        )

    async def list_runs(request: Request) -> Response:
        runs = _describe_runs(desk, desk.store.all())
        part, cursor = _page(request, runs)
        return JSONResponse({"training_runs": part, "cursor": cursor})

    async def get_run(request: Request) -> Response:
        run_id = request.path_params["run"]
        found = [run for run in _describe_runs(desk, desk.store.all()) if run["training_run_id"] == run_id]
        if not found:
            raise RequestRefused(f"There is no training run {run_id!r} here.", 404)
        return JSONResponse(found[0])

    async def list_run_checkpoints(request: Request) -> Response:
        run = CheckpointName.checked(request.path_params["run"], "weights", "any").run
        return JSONResponse({"checkpoints": [_describe(each) for each in desk.store.all(run)]})

    async def list_checkpoints(request: Request) -> Response:
        part, cursor = _page(request, [_describe(each) for each in desk.store.all()])
        return JSONResponse({"checkpoints": part, "cursor": cursor})

    async def delete_checkpoint(request: Request) -> Response:
        place = CheckpointName.checked(**request.path_params)
        desk.store.delete(desk.store.find(place.path))
        return Response(status_code=204)

    checkpoints = f"{PREFIX}/training_runs/{{run}}/checkpoints"
    return [
        Route(f"{PREFIX}/weights_info", weights_info, methods=["POST"]),
        Route(f"{PREFIX}/training_runs", list_runs),
        Route(f"{PREFIX}/training_runs/{{run}}", get_run),
        Route(f"{PREFIX}/checkpoints", list_checkpoints),
        Route(checkpoints, list_run_checkpoints),
        Route(f"{checkpoints}/{{kind}}/{{name}}", delete_checkpoint, methods=["DELETE"]),
    ]


def _describe(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint_id": checkpoint.place.id,
        "checkpoint_type": KINDS[checkpoint.place.kind],
        "time": checkpoint.created.isoformat(),
        "tinker_path": checkpoint.place.path,
        "size_bytes": checkpoint.size_bytes,
        "user_metadata": dict(checkpoint.user_metadata) if checkpoint.user_metadata else None,
        "expires_at": checkpoint.expires.isoformat() if checkpoint.expires else None,
    }


def _describe_runs(desk: Desk, checkpoints: Iterable[Checkpoint]) -> list[dict[str, Any]]:
    """Runs that are open or have a checkpoint, the latest used first."""
    runs: dict[str, dict[str, Any]] = {}
    for run in (run for session in desk.sessions.all() for run in session.runs.values()):
        metadata = {key: str(value) for key, value in (run.user_metadata or {}).items()}
        runs[run.id] = _run(run.id, run.model.name, run.lora.rank, run.last_request.isoformat(), metadata)
    for checkpoint in sorted(checkpoints, key=lambda each: each.created):
        time, run_id = checkpoint.created.isoformat(), checkpoint.place.run
        fresh = _run(run_id, checkpoint.base_model, checkpoint.lora.rank, time, {})
        described = runs.setdefault(run_id, fresh)
        described["last_request_time"] = max(described["last_request_time"], time)
        which = "last_checkpoint" if checkpoint.place.kind == "weights" else "last_sampler_checkpoint"
        described[which] = _describe(checkpoint)
    return sorted(runs.values(), key=lambda each: str(each["last_request_time"]), reverse=True)


def _run(run_id: str, base_model: str, rank: int, time: str, metadata: dict[str, str]) -> dict[str, Any]:
    return {
        "training_run_id": run_id,
        "base_model": base_model,
        "model_owner": "local",
        "is_lora": True,
        "lora_rank": rank,
        "last_request_time": time,
        "user_metadata": metadata or None,
    }


def _page(request: Request, items: list[Any]) -> tuple[list[Any], dict[str, int]]:
    """The part of a list that was asked for by limit and offset, and where it lies in the whole."""
    numbers = {}
    for name, default in (("limit", 100), ("offset", 0)):
        text = request.query_params.get(name, str(default))
        if not text.isdecimal():
            raise RequestRefused(f"{name} must be a number from 0, not {text!r}.")
        numbers[name] = int(text)
    limit, offset = numbers["limit"], numbers["offset"]
    return items[offset : offset + limit], {"offset": offset, "limit": limit, "total_count": len(items)}
