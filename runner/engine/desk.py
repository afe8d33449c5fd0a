"""What every route needs: the served models, the store, the sessions, the tickets and the compute thread."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.errors import RequestRefused
from charrun.engine.futures import Outcome, Ticket, TicketOffice
from charrun.engine.models import ModelShelf
from charrun.engine.settings import EngineSettings
from charrun.engine.state import RunState, Session, Sessions
from charrun.engine.training import TrainingRun
from charrun.engine.wire import MAX_BODY, decompressed
from charrun.engine.worker import Worker

Message = TypeVar("Message", bound=BaseModel)
Operation = Callable[[], Outcome]


@dataclass(frozen=True)
class Desk:
    """The parts of one server."""

    settings: EngineSettings
    shelf: ModelShelf
    store: CheckpointStore
    worker: Worker
    sessions: Sessions
    office: TicketOffice

    def close_session(self, session: Session) -> None:
        """Ends a session: its runs and memory-only samplers give their memory back when their work is done."""
        session.finished = True
        runs, samplers = list(session.runs.values()), list(session.samplers.values())

        def release() -> None:
            for run in runs:
                run.training = None

        self.worker.run_soon(release)
        for sampler in samplers:
            if sampler.path is None and sampler.weights.adapter is not None:
                self.worker.forget(sampler.weights.key)
        session.runs.clear()
        session.samplers.clear()

    def submit(
        self,
        run: RunState,
        number: int | None,
        build: Callable[[], Callable[[TrainingRun], Outcome]],
        what: str = "",
    ) -> dict[str, Any]:
        """Queues a training request in its turn.

        Args:
            run: The training run.
            number: The request's sequence number; a repeated one gets the first one's answer.
            build: Checks the request and returns what the compute thread shall do.
            what: Given where the request is a part of a gradient: if it is refused, no step may be taken without it.

        Returns:
            The submission's answer.

        Raises:
            RequestRefused: By `build`; the request's turn is then over.
        """
        request_id = f"{run.id}:{number if number is not None else uuid.uuid4().hex}"
        known = self.office.get(request_id)
        if known is not None:
            return known.answer
        if number is not None and run.turnstile.passed(number):
            raise RequestRefused(f"Request {number} of {run.id} was answered before; its result is gone.", 404)
        try:
            operation = build()
        except RequestRefused as error:
            reason = f"{what} was refused: {error.message}"
            run.turnstile.enter(number, partial(self.worker.run_soon, partial(run.spoil, reason if what else None)))
            raise
        ticket = self.office.create(request_id)
        work = partial(settle, ticket, lambda: operation(run.ready()))
        run.turnstile.enter(number, partial(self.worker.run_soon, work))
        return ticket.answer


def settle(ticket: Ticket, operation: Operation) -> None:
    """Runs an operation and hands its outcome or error to the ticket."""
    try:
        ticket.settle(operation())
    except Exception as error:
        ticket.fail(error)


async def read_body(request: Request) -> bytes:
    """The request's body, decompressed.

    Raises:
        RequestRefused: It is too large or not what its encoding says.
    """
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MAX_BODY:
        raise RequestRefused(f"The body has {length} bytes; at most {MAX_BODY} are accepted.", 413)
    return decompressed(await request.body(), request.headers.get("content-encoding", ""))


async def read(request: Request, kind: type[Message]) -> Message:
    """The request's JSON body as a message of the SDK.

    Raises:
        RequestRefused: It is not such a message.
    """
    body = await read_body(request)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the body"
        raise RequestRefused(f"The request is not a valid {kind.__name__}: {place}: {first['msg']}.") from None
