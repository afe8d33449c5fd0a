"""Routes of sampling: samplers, requests, and their cancellation."""

from __future__ import annotations

import uuid
from typing import Any

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types

from charrun.engine.bodies import read
from charrun.engine.desk import Desk
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import Ticket
from charrun.engine.requests import SampleJob, SampleResult, SampleSpec
from charrun.engine.sampling import Weights
from charrun.engine.state import Sampler
from charrun.engine.wire import check_slot
from charrun.engine.wire_sampling import sample_response, sample_spec
from charrun.engine.wire_scores import NamedTokens
from charrun.faults import reached


class CancelRequest(BaseModel):
    """The body of cancel_future, for which the SDK has no type."""

    request_id: str


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts."""
    actions = SamplingActions(desk)

    async def create_sampling_session(request: Request) -> Response:
        return JSONResponse(actions.create(await read(request, types.CreateSamplingSessionRequest)))

    async def join_sampling_session(request: Request) -> Response:
        return JSONResponse(actions.join(await read(request, types.JoinSamplingSessionRequest)))

    async def get_sampler(request: Request) -> Response:
        return JSONResponse(actions.describe(request.path_params["sampler"]))

    async def asample(request: Request) -> Response:
        message = await read(request, types.SampleRequest)
        desk.check_room()
        return JSONResponse(actions.sample(message))

    async def cancel(request: Request) -> Response:
        actions.cancel((await read(request, CancelRequest)).request_id)
        return JSONResponse({})

    prefix = "/api/v1"
    return [
        Route(f"{prefix}/create_sampling_session", create_sampling_session, methods=["POST"]),
        Route(f"{prefix}/join_sampling_session", join_sampling_session, methods=["POST"]),
        Route(f"{prefix}/samplers/{{sampler}}", get_sampler),
        Route(f"{prefix}/asample", asample, methods=["POST"]),
        Route(f"{prefix}/cancel_future", cancel, methods=["POST"]),
    ]


class SamplingActions:
    """What the routes do; each method takes a message and returns the answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._clones: dict[str, int] = {}

    def create(self, message: types.CreateSamplingSessionRequest) -> dict[str, Any]:
        """A sampler of a base model or a checkpoint."""
        session = self._desk.sessions.open(message.session_id)
        sampler_id = f"{session.id}:sample:{check_slot(message.sampling_session_seq_id)}"
        if sampler_id not in session.samplers:
            weights = self._weights(message.base_model, message.model_path)
            self._desk.sessions.add_sampler(session, Sampler(sampler_id, weights, message.model_path))
        return {"type": "create_sampling_session", "sampling_session_id": sampler_id}

    def join(self, message: types.JoinSamplingSessionRequest) -> dict[str, Any]:
        """A number for one more client of a sampler."""
        sampler = self._desk.sessions.sampler(message.sampling_session_id)
        self._clones[sampler.id] = self._clones.get(sampler.id, 0) + 1
        return {"type": "join_sampling_session", "client_counter": self._clones[sampler.id]}

    def describe(self, sampler_id: str) -> dict[str, Any]:
        """Base model and checkpoint of a sampler."""
        sampler = self._desk.sessions.sampler(sampler_id)
        return {
            "sampler_id": sampler.id,
            "base_model": sampler.weights.model.name,
            "model_path": sampler.path,
        }

    def _weights(self, base_model: str | None, path: str | None) -> Weights:
        if path is not None:
            checkpoint = self._desk.store.find(path)
            model = self._desk.shelf.get(base_model or checkpoint.base_model)
            key = f"{model.name}|{path}|{checkpoint.token}"
            return Weights(key, model, lambda: self._desk.store.adapter(checkpoint))
        if base_model is None:
            raise RequestRefused("A sampler needs a base_model or a model_path.")
        model = self._desk.shelf.get(base_model)
        return Weights(model.name, model)

    def sample(self, message: types.SampleRequest) -> dict[str, Any]:
        """Queues a sampling request; a repeated sequence number gets the first one's answer."""
        if message.sampling_session_id is not None:
            weights = self._desk.snapshots.use(self._desk.sessions.sampler(message.sampling_session_id))
            number = message.seq_id if message.seq_id is not None else uuid.uuid4().hex
            request_id = f"{message.sampling_session_id}:{number}"
        else:
            weights = self._weights(message.base_model, message.model_path)
            request_id = uuid.uuid4().hex
        known = self._desk.office.get(request_id)
        if known is not None:
            return known.answer
        spec, named = sample_spec(message, weights.model)
        names = [f"{request_id}:{index}" for index in range(spec.samples)]
        ticket = self._desk.office.create(request_id, {"sample_sequence_ids": names}, spec.prompt.nbytes)
        self._desk.worker.sample(weights, self._job(spec, named, ticket))
        return ticket.answer

    def _job(self, spec: SampleSpec, named: NamedTokens | None, ticket: Ticket) -> SampleJob:
        def close() -> None:
            if self._desk.jobs.pop(ticket.request_id, None) is not None:
                self._desk.worker.closed(job)

        def finish(result: SampleResult) -> None:
            close()
            reached("engine.sampled")
            ticket.settle(sample_response(result, named))

        def fail(error: Exception) -> None:
            close()
            ticket.fail(error)

        job = SampleJob(spec, finish, fail, ticket.request_id)
        self._desk.jobs[ticket.request_id] = job
        return job

    def cancel(self, request_id: str) -> None:
        """Stops work on a request that its client gave up; unknown and finished ones are left alone."""
        job = self._desk.jobs.get(request_id)
        if job is not None:
            job.cancelled = True
            job.fail(RequestRefused("The request was cancelled by its client."))
