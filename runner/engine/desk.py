"""What every route needs: the served models, the store, the sessions, the tickets and the compute thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.routing import Route

from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.errors import Busy, RequestRefused
from charrun.engine.futures import Outcome, Ticket, TicketOffice
from charrun.engine.models import ModelShelf
from charrun.engine.requests import SampleJob
from charrun.engine.settings import EngineSettings
from charrun.engine.snapshots import Snapshots
from charrun.engine.state import RunState, Session, Sessions
from charrun.engine.training import TrainingRun
from charrun.engine.worker import Worker

Operation = Callable[[], Outcome]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Desk:
    """The parts of one server.

    Attributes:
        settings: What it was started with.
        shelf: The base models.
        store: The checkpoints.
        worker: The compute thread.
        sessions: Its clients.
        snapshots: Their samplers without a checkpoint.
        office: Their requests.
        training: What computes a training run.
        routes: Further ones.
        jobs: Sampling jobs that are not done, by request id.
        closing: Set when the server finishes what it has and takes no new work.
    """

    settings: EngineSettings
    shelf: ModelShelf
    store: CheckpointStore
    worker: Worker
    sessions: Sessions
    snapshots: Snapshots
    office: TicketOffice
    training: type[TrainingRun] = TrainingRun
    routes: tuple[Route, ...] = ()
    jobs: dict[str, SampleJob] = field(default_factory=dict)
    closing: threading.Event = field(default_factory=threading.Event)

    def check_room(self) -> None:
        """Raises Busy where so much waits that new sampling requests should come back later."""
        if self.worker.crowded or self.office.crowded:
            raise Busy("Too many requests are waiting; send this again later.")

    def close_session(self, session: Session) -> None:
        """Ends a session: no more is sampled for it, its training requests are done, then its memory is given back."""
        session.finished = True
        logger.info("session %s closed, training runs: %d", session.id, len(session.runs))
        for request_id, job in list(self.jobs.items()):
            if request_id.startswith(f"{session.id}:"):
                job.cancelled = True
                job.fail(RequestRefused("The session of this request is over."))
        self.snapshots.close(session)
        runs, loop = list(session.runs.values()), asyncio.get_running_loop()

        def release() -> None:
            for run in runs:
                run.training = None
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server stopped
                loop.call_soon_threadsafe(self.office.end, session.id)

        self.worker.run_soon(release)
        session.runs.clear()
        session.samplers.clear()
        session.dropped.clear()

    def close_silent_sessions(self, *, pressed: bool = False) -> None:
        """Ends the sessions whose clients are gone, sooner where another client needs their room."""
        seconds = self.settings.pressed_seconds if pressed else self.settings.session_seconds
        for session in self.sessions.silent(seconds):
            logger.info("session %s gave no sign of life", session.id)
            self.close_session(session)

    def submit(
        self,
        run: RunState,
        number: int | None,
        build: Callable[[], Callable[[TrainingRun], Outcome]],
        what: str = "",
        size: int = 0,
    ) -> dict[str, Any]:
        """Queues a training request in its turn.

        Args:
            run: The training run.
            number: The request's sequence number; a repeated one gets the first one's answer.
            build: Checks the request and returns what the compute thread shall do.
            what: Given where the request is a part of a gradient: if it is refused, no step may be taken without it.
            size: Bytes that it holds while it waits.

        Returns:
            The submission's answer.

        Raises:
            RequestRefused: By `build`; the request's turn is then over.
            Busy: Too much waits; the request keeps its turn.
        """
        request_id = f"{run.id}:{number if number is not None else uuid.uuid4().hex}"
        known = self.office.get(request_id)
        if known is not None:
            return known.answer
        if number is not None and run.turnstile.passed(number):
            raise RequestRefused(f"Request {number} of {run.id} was answered before; its result is gone.", 404)
        if self.office.crowded and not run.turnstile.awaited(number):
            raise Busy("Too many requests are waiting; send this again later.")
        try:
            operation = build()
        except RequestRefused as error:
            reason = f"{what} was refused: {error.message}"
            run.turnstile.enter(number, partial(self.worker.run_soon, partial(run.spoil, reason if what else None)))
            raise
        ticket = self.office.create(request_id, size=size)
        work = partial(settle, ticket, lambda: operation(run.ready()))
        run.turnstile.enter(number, partial(self.worker.run_soon, work))
        return ticket.answer


def settle(ticket: Ticket, operation: Operation) -> None:
    """Runs an operation and hands its outcome or error to the ticket."""
    try:
        ticket.settle(operation())
    except Exception as error:
        ticket.fail(error)
