"""Routes of training runs: create, forward and backward, optimizer steps, saving and loading."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types

from charrun.engine.checkpoints import Checkpoint, CheckpointName, SaveRequest, check_ttl
from charrun.engine.desk import Desk, read, read_body, settle
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import Outcome
from charrun.engine.lora import LoraSpec
from charrun.engine.sampling import Weights
from charrun.engine.state import RunState, Sampler, Session
from charrun.engine.training import TrainingRun
from charrun.engine.wire import adam_step, pass_request, pass_response, training_data


def routes(desk: Desk) -> list[Route]:
    """The routes, bound to a server's parts."""
    actions = TrainingActions(desk)

    async def create_model(request: Request) -> Response:
        return JSONResponse(actions.create(await read(request, types.CreateModelRequest)))

    async def load_weights(request: Request) -> Response:
        return JSONResponse(actions.load(await read(request, types.LoadWeightsRequest)))

    async def get_info(request: Request) -> Response:
        return JSONResponse(actions.info(await read(request, types.GetInfoRequest)))

    async def forward_backward(request: Request) -> Response:
        return JSONResponse(actions.forward_backward(await read_body(request)))

    async def optim_step(request: Request) -> Response:
        return JSONResponse(actions.optim_step(await read(request, types.OptimStepRequest)))

    async def save_weights(request: Request) -> Response:
        return JSONResponse(actions.save(await read(request, types.SaveWeightsRequest)))

    async def save_for_sampler(request: Request) -> Response:
        return JSONResponse(actions.save_for_sampler(await read(request, types.SaveWeightsForSamplerRequest)))

    async def save_external(request: Request) -> Response:
        return JSONResponse(actions.save_external(await read(request, types.SaveWeightsExternalRequest)))

    handlers = {
        "create_model": create_model,
        "load_weights": load_weights,
        "get_info": get_info,
        "forward_backward": forward_backward,
        "optim_step": optim_step,
        "save_weights": save_weights,
        "save_weights_for_sampler": save_for_sampler,
        "save_weights_external": save_external,
    }
    return [Route(f"/api/v1/{name}", handler, methods=["POST"]) for name, handler in handlers.items()]


class TrainingActions:
    """What the routes do; each method takes a message and returns the answer."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def create(self, message: types.CreateModelRequest) -> dict[str, Any]:
        """A new training run with a fresh adapter."""
        session = self._desk.sessions.open(message.session_id)
        _check_optimizer(message.optimizer_config)
        asked = message.lora_config
        if asked is None:
            raise RequestRefused("This engine trains LoRA adapters only; send a lora_config.")
        lora = LoraSpec.create(asked.rank, asked.train_mlp, asked.train_attn, asked.train_unembed, asked.seed)
        run_id = _run_id(session, message.model_seq_id)
        run = RunState(run_id, self._desk.shelf.get(message.base_model), lora, message.user_metadata)
        return self._open(session, message.model_seq_id, run, "create_model", None, False)

    def load(self, message: types.LoadWeightsRequest) -> dict[str, Any]:
        """A new training run that starts from a checkpoint, or a checkpoint loaded into a run."""
        checkpoint = self._desk.store.find(message.path)
        if message.optimizer and not checkpoint.has_optimizer:
            raise RequestRefused(f"{message.path} holds no optimizer state.")
        if message.model_id is not None:
            run = self._desk.sessions.run(message.model_id)
            return self._desk.submit(
                run, message.seq_id, lambda: partial(self._restore, run, checkpoint, message.optimizer)
            )
        if message.session_id is None or message.model_seq_id is None:
            raise RequestRefused("load_weights needs session_id and model_seq_id, or model_id.")
        if message.optimizer_config is not None:
            _check_optimizer(message.optimizer_config)
        session = self._desk.sessions.open(message.session_id)
        model = self._desk.shelf.get(message.base_model or checkpoint.base_model)
        run = RunState(_run_id(session, message.model_seq_id), model, checkpoint.lora, message.user_metadata)
        return self._open(session, message.model_seq_id, run, "load_weights", checkpoint, message.optimizer)

    def _open(
        self,
        session: Session,
        number: int,
        run: RunState,
        kind: str,
        checkpoint: Checkpoint | None,
        optimizer: bool,
    ) -> dict[str, Any]:
        known = self._desk.office.get(f"{run.id}:open")
        if known is not None:
            return known.answer
        session.runs[number] = run
        ticket = self._desk.office.create(f"{run.id}:open")

        def operation() -> Outcome:
            weights = run.model.weights()
            run.training = TrainingRun(weights, run.lora, run.model.folder, self._desk.settings.training_bytes)
            if checkpoint is not None:
                try:
                    self._restore(run, checkpoint, optimizer, run.training)
                except Exception:
                    run.training = None
                    raise
            path = {"path": checkpoint.place.path} if checkpoint is not None else {}
            return {"type": kind, "model_id": run.id, **path}

        self._desk.worker.run_soon(partial(settle, ticket, operation))
        return ticket.answer

    def _restore(self, run: RunState, checkpoint: Checkpoint, optimizer: bool, training: TrainingRun) -> Outcome:
        training.lora.load(self._desk.store.adapter(checkpoint))
        if optimizer:
            training.load_optimizer(self._desk.store.optimizer(checkpoint))
            training.step = checkpoint.step
        return {"type": "load_weights", "path": checkpoint.place.path, "model_id": run.id}

    def info(self, message: types.GetInfoRequest) -> dict[str, Any]:
        """What a client learns about its run; the tokenizer is named by its folder, so it loads without a hub."""
        run = self._desk.sessions.run(message.model_id)
        return {
            "type": "get_info",
            "model_id": run.id,
            "model_data": {"model_name": run.model.name, "tokenizer_id": str(run.model.folder)},
            "is_lora": True,
            "lora_rank": run.lora.rank,
            "model_name": run.model.name,
        }

    def forward_backward(self, body: bytes) -> dict[str, Any]:
        """A forward pass, and a backward pass unless the message says otherwise."""
        message = pass_request(body)
        run = self._desk.sessions.run(message.model_id)

        def build() -> Callable[[TrainingRun], Outcome]:
            data, loss = training_data(message, run.model)
            backward = not message.forward_only
            return lambda training: pass_response(training.run(data, loss, backward))

        what = "" if message.forward_only else "an earlier forward_backward"
        return self._desk.submit(run, message.seq_id, build, what)

    def optim_step(self, message: types.OptimStepRequest) -> dict[str, Any]:
        """An Adam step."""
        run = self._desk.sessions.run(message.model_id)

        def build() -> Callable[[TrainingRun], Outcome]:
            if not isinstance(message.optim_params, types.AdamParams):
                raise RequestRefused("This engine has the Adam optimizer only; send AdamParams.")
            adam = adam_step(message.optim_params)
            return lambda training: {"metrics": training.optim_step(adam)}

        return self._desk.submit(run, message.seq_id, build)

    def save(self, message: types.SaveWeightsRequest) -> dict[str, Any]:
        """Adapter and optimizer state, to train on from."""
        return self._save(
            "weights",
            "save_weights",
            message.model_id,
            message.seq_id,
            message.path,
            message.ttl_seconds,
            message.overwrite,
            message.user_metadata,
        )

    def save_external(self, message: types.SaveWeightsExternalRequest) -> dict[str, Any]:
        """The adapter, to take away."""
        if message.age_encryption_recipients:
            raise RequestRefused("This engine does not encrypt exported weights; leave age_encryption_recipients out.")
        return self._save(
            "external_weights",
            "save_weights_external",
            message.model_id,
            message.seq_id,
            message.path,
            message.ttl_seconds,
            False,
            None,
        )

    def _save(
        self,
        kind: str,
        answer: str,
        model_id: str,
        number: int | None,
        name: str | None,
        ttl_seconds: int | None,
        overwrite: bool,
        user_metadata: dict[str, str] | None,
    ) -> dict[str, Any]:
        run = self._desk.sessions.run(model_id)

        def build() -> Callable[[TrainingRun], Outcome]:
            check_ttl(ttl_seconds)
            if name is None:
                raise RequestRefused("A checkpoint needs a name.")
            place = CheckpointName.checked(run.id, kind, name)

            def operation(training: TrainingRun) -> Outcome:
                request = SaveRequest(
                    place,
                    run.model.name,
                    training.lora.adapter(),
                    training.lora.config,
                    training.optimizer_tensors() if kind == "weights" else None,
                    training.step,
                    ttl_seconds,
                    overwrite,
                    user_metadata,
                )
                saved = self._desk.store.save(request)
                size = {"size_bytes": saved.size_bytes} if kind == "external_weights" else {}
                return {"type": answer, "path": place.path, **size}

            return operation

        return self._desk.submit(run, number, build)

    def save_for_sampler(self, message: types.SaveWeightsForSamplerRequest) -> dict[str, Any]:
        """The adapter, to sample from: on disk under a name, or in memory for one sampler."""
        if message.path is not None:
            return self._save(
                "sampler_weights",
                "save_weights_for_sampler",
                message.model_id,
                message.seq_id,
                message.path,
                message.ttl_seconds,
                False,
                message.user_metadata,
            )
        run = self._desk.sessions.run(message.model_id)
        session = self._desk.sessions.open(run.id.partition(":train:")[0])
        if message.sampling_session_seq_id is None:
            raise RequestRefused("save_weights_for_sampler needs a name or a sampling_session_seq_id.")
        sampler_id = f"{session.id}:sample:{message.sampling_session_seq_id}"

        def operation(training: TrainingRun) -> Outcome:
            adapter = training.lora.adapter()
            weights = Weights(sampler_id, run.model, lambda: adapter)
            session.samplers[sampler_id] = Sampler(sampler_id, weights, None)
            return {"type": "save_weights_for_sampler", "sampling_session_id": sampler_id}

        return self._desk.submit(run, message.seq_id, lambda: operation)


def _run_id(session: Session, number: int) -> str:
    return f"{session.id}:train:{number}"


def _check_optimizer(config: types.OptimizerConfig) -> None:
    if not isinstance(config, types.AdamOptimizerConfig):
        raise RequestRefused("This engine has the Adam optimizer only; leave the optimizer config out.")
