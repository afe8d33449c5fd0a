"""Routes of training runs: create, load, forward and backward, optimizer steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from charrun.engine.bodies import aside, read, read_body
from charrun.engine.checkpoint_records import Checkpoint
from charrun.engine.desk import Desk, settle
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import Outcome
from charrun.engine.lora import LoraSpec
from charrun.engine.models import HostedModel
from charrun.engine.passes import PassData, run_pass
from charrun.engine.state import RunState, Session
from charrun.engine.training import TrainingRun
from charrun.engine.wire import check_number, check_slot
from charrun.engine.wire_training import adam_step, pass_request, pass_response, training_data
from charrun.faults import reached


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
        body = await read_body(request)
        message = await aside(len(body), partial(pass_request, body))
        run = desk.sessions.run(message.model_id)
        data = await aside(len(body), partial(_checked, message, run.model))
        return JSONResponse(actions.forward_backward(message, run, data, len(body)))

    async def optim_step(request: Request) -> Response:
        return JSONResponse(actions.optim_step(await read(request, types.OptimStepRequest)))

    handlers = {
        "create_model": create_model,
        "load_weights": load_weights,
        "get_info": get_info,
        "forward_backward": forward_backward,
        "optim_step": optim_step,
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
        if message.model_id is not None:
            return self._load_into(message.model_id, message)
        checkpoint = self._found(message)
        if message.session_id is None or message.model_seq_id is None:
            raise RequestRefused("load_weights needs session_id and model_seq_id, or model_id.")
        if message.optimizer_config is not None:
            _check_optimizer(message.optimizer_config)
        session = self._desk.sessions.open(message.session_id)
        model = self._desk.shelf.get(message.base_model or checkpoint.base_model)
        run = RunState(_run_id(session, message.model_seq_id), model, checkpoint.lora, message.user_metadata)
        return self._open(session, message.model_seq_id, run, "load_weights", checkpoint, message.optimizer)

    def _found(self, message: types.LoadWeightsRequest) -> Checkpoint:
        checkpoint = self._desk.store.find(message.path)
        if message.optimizer and not checkpoint.has_optimizer:
            raise RequestRefused(f"{message.path} holds no optimizer state.")
        return checkpoint

    def _load_into(self, model_id: str, message: types.LoadWeightsRequest) -> dict[str, Any]:
        """Loads a checkpoint into a run that has not taken a step yet."""
        run = self._desk.sessions.run(model_id)

        def build() -> Callable[[TrainingRun], Outcome]:
            checkpoint = self._found(message)

            def operation(training: TrainingRun) -> Outcome:
                if training.step:
                    raise RequestRefused(
                        "Only a run that has not taken a step can load a state; create a new training client from it."
                    )
                return self._restore(run, checkpoint, message.optimizer, training)

            return operation

        return self._desk.submit(run, check_number(message.seq_id), build)

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
        if self._desk.sessions.runs_are_full:
            self._desk.close_silent_sessions(pressed=True)
        self._desk.sessions.add_run(session, number, run)
        ticket = self._desk.office.create(f"{run.id}:open")

        def operation() -> Outcome:
            settings = self._desk.settings
            training = self._desk.training(run.model.weights(), run.lora, run.model.folder, settings.training_bytes)
            if checkpoint is not None:
                self._restore(run, checkpoint, optimizer, training)
            run.training = training
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

    def forward_backward(
        self, message: pb.ForwardBackwardRequest, run: RunState, data: PassData | RequestRefused, size: int
    ) -> dict[str, Any]:
        """A forward pass, and a backward pass unless the message says otherwise."""
        backward = not message.forward_only

        def build() -> Callable[[TrainingRun], Outcome]:
            if isinstance(data, RequestRefused):
                raise data
            return lambda training: pass_response(run_pass(training, data, backward))

        what = "an earlier forward_backward" if backward else ""
        return self._desk.submit(run, check_number(message.seq_id), build, what, size)

    def optim_step(self, message: types.OptimStepRequest) -> dict[str, Any]:
        """An Adam step."""
        run = self._desk.sessions.run(message.model_id)

        def build() -> Callable[[TrainingRun], Outcome]:
            if not isinstance(message.optim_params, types.AdamParams):
                raise RequestRefused("This engine has the Adam optimizer only; send AdamParams.")
            adam = adam_step(message.optim_params)

            def step(training: TrainingRun) -> Outcome:
                metrics = training.optim_step(adam)
                reached("engine.stepped")
                return {"metrics": metrics}

            return step

        return self._desk.submit(run, check_number(message.seq_id), build)


def _checked(message: pb.ForwardBackwardRequest, model: HostedModel) -> PassData | RequestRefused:
    """A request's data, or what is wrong with it: told when its turn has come."""
    try:
        return training_data(message, model)
    except RequestRefused as refusal:
        return refusal


def _run_id(session: Session, number: int) -> str:
    return f"{session.id}:train:{check_slot(number)}"


def _check_optimizer(config: types.OptimizerConfig) -> None:
    if not isinstance(config, types.AdamOptimizerConfig):
        raise RequestRefused("This engine has the Adam optimizer only; leave the optimizer config out.")
