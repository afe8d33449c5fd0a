"""Routes that save a training run's weights: to train on from, to sample from, to take away."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types

from charrun.engine.age import check_recipients
from charrun.engine.bodies import read
from charrun.engine.checkpoint_records import CheckpointName, SaveRequest, check_ttl
from charrun.engine.desk import Desk
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import Outcome
from charrun.engine.sampling import Weights
from charrun.engine.state import Sampler, check_metadata
from charrun.engine.training import TrainingRun
from charrun.engine.wire import as_text, check_number, check_slot

SaveMessage = types.SaveWeightsRequest | types.SaveWeightsExternalRequest | types.SaveWeightsForSamplerRequest


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts."""
    actions = SavingActions(desk)

    async def save_weights(request: Request) -> Response:
        return JSONResponse(actions.save(await read(request, types.SaveWeightsRequest)))

    async def save_for_sampler(request: Request) -> Response:
        return JSONResponse(actions.save_for_sampler(await read(request, types.SaveWeightsForSamplerRequest)))

    async def save_external(request: Request) -> Response:
        return JSONResponse(actions.save_external(await read(request, types.SaveWeightsExternalRequest)))

    return [
        Route("/api/v1/save_weights", save_weights, methods=["POST"]),
        Route("/api/v1/save_weights_for_sampler", save_for_sampler, methods=["POST"]),
        Route("/api/v1/save_weights_external", save_external, methods=["POST"]),
    ]


class SavingActions:
    """What the routes do; each method takes a message and returns the answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def save(self, message: types.SaveWeightsRequest) -> dict[str, Any]:
        """Adapter and optimizer state, to train on from."""
        return self._save(message, "weights", "save_weights", message.user_metadata, message.overwrite)

    def save_external(self, message: types.SaveWeightsExternalRequest) -> dict[str, Any]:
        """The adapter, to take away."""
        return self._save(message, "external_weights", "save_weights_external")

    def save_for_sampler(self, message: types.SaveWeightsForSamplerRequest) -> dict[str, Any]:
        """The adapter, to sample from: on disk under a name, or in memory for one sampler."""
        if message.path is None:
            return self._in_memory(message)
        return self._save(message, "sampler_weights", "save_weights_for_sampler", message.user_metadata)

    def _save(
        self,
        message: SaveMessage,
        kind: str,
        answer: str,
        user_metadata: Mapping[str, str] | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        run = self._desk.sessions.run(message.model_id)

        def build() -> Callable[[TrainingRun], Outcome]:
            check_ttl(message.ttl_seconds)
            check_metadata(user_metadata)
            recipients: list[str] = []
            if isinstance(message, types.SaveWeightsExternalRequest) and message.age_encryption_recipients:
                recipients = message.age_encryption_recipients
                check_recipients(recipients)
            if message.path is None:
                raise RequestRefused("A checkpoint needs a name.")
            place = CheckpointName.checked(run.id, kind, message.path)

            def operation(training: TrainingRun) -> Outcome:
                request = SaveRequest(
                    place=place,
                    base_model=run.model.name,
                    adapter=training.lora.adapter(),
                    config=training.lora.config,
                    optimizer=training.optimizer_tensors() if kind == "weights" else None,
                    step=training.step,
                    ttl_seconds=message.ttl_seconds,
                    overwrite=overwrite,
                    user_metadata=user_metadata,
                    run_metadata=as_text(run.user_metadata),
                    recipients=recipients,
                )
                saved = self._desk.store.save(request)
                size = {"size_bytes": saved.size_bytes} if kind == "external_weights" else {}
                return {"type": answer, "path": place.path, **size}

            return operation

        return self._desk.submit(run, check_number(message.seq_id), build)

    def _in_memory(self, message: types.SaveWeightsForSamplerRequest) -> dict[str, Any]:
        """A sampler of the adapter as it is now; of kind inflight, the run's earlier ones get it too."""
        run = self._desk.sessions.run(message.model_id)
        session = self._desk.sessions.open(run.id.partition(":train:")[0])

        def build() -> Callable[[TrainingRun], Outcome]:
            if message.sampling_session_seq_id is None:
                raise RequestRefused("save_weights_for_sampler needs a name or a sampling_session_seq_id.")
            sampler_id = f"{session.id}:sample:{check_slot(message.sampling_session_seq_id)}"
            shared_by = run.id if message.kind == "inflight" else None

            def operation(training: TrainingRun) -> Outcome:
                if session.finished:
                    raise RequestRefused("The session of this request is over.", 410)
                adapter = training.lora.adapter()
                earlier = [each for each in session.samplers.values() if each.inflight_of == shared_by is not None]
                for each in [*earlier, Sampler(sampler_id, Weights("", run.model), None, shared_by)]:
                    # A key of its own for each: what one still runs with must not be dropped with another.
                    weights = Weights(f"{each.id}@{uuid.uuid4().hex}", run.model, lambda: adapter)
                    self._desk.snapshots.add(session, replace(each, weights=weights), adapter)
                return {"type": "save_weights_for_sampler", "sampling_session_id": sampler_id}

            return operation

        return self._desk.submit(run, check_number(message.seq_id), build)
