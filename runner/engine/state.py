"""What a server remembers between requests: sessions, their training runs and their samplers."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from charrun.engine.errors import RequestRefused
from charrun.engine.lora import LoraSpec
from charrun.engine.models import HostedModel
from charrun.engine.sampling import Weights
from charrun.engine.settings import EngineSettings
from charrun.engine.training import TrainingRun

logger = logging.getLogger(__name__)

METADATA_BYTES = 64 * 1024
"""Most that a client may attach to a session or a run."""
REMEMBERED = 1000
"""Sessions that are over and still known by their id."""


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class Turnstile:
    """Lets a model's requests through in the order of their sequence numbers, whatever order they arrive in."""

    def __init__(self, first: int = 1) -> None:
        self._next = first
        self._held: dict[int, Callable[[], None]] = {}

    def passed(self, number: int) -> bool:
        """Whether that number's turn is over."""
        return number < self._next

    def awaited(self, number: int | None) -> bool:
        """Whether others that arrived wait for this number: turned away, it would hold them up."""
        return number == self._next and bool(self._held)

    def enter(self, number: int | None, action: Callable[[], None]) -> None:
        """Runs the action when all lower numbers have had their turn; at once without a number."""
        if number is None:
            action()
            return
        self._held[number] = action
        while self._next in self._held:
            self._held.pop(self._next)()
            self._next += 1


@dataclass
class RunState:
    """A training client's model.

    Attributes:
        id: `<session>:train:<number>`.
        model: Its base model.
        lora: Its adapter's shape; of a run that starts from a checkpoint, the checkpoint's.
        user_metadata: What the client attached.
        training: The weights; None until the compute thread has made them, and after the session's end.
    """

    id: str
    model: HostedModel
    lora: LoraSpec
    user_metadata: Mapping[str, Any] | None
    training: TrainingRun | None = None
    turnstile: Turnstile = field(default_factory=Turnstile)
    last_request: datetime = field(default_factory=now)

    def spoil(self, reason: str | None) -> None:
        """Makes the next optimizer step fail for this reason, if there is one."""
        if self.training is not None and reason is not None:
            self.training.mark_incomplete(reason)

    def ready(self) -> TrainingRun:
        """The weights.

        Raises:
            RequestRefused: They were never made, or the session is over.
        """
        if self.training is None:
            raise RequestRefused(f"The training run {self.id} could not be created or has ended.")
        return self.training


@dataclass(frozen=True)
class Sampler:
    """A sampling client's weights: a base model or a checkpoint, or a snapshot that lives in memory only.

    Attributes:
        id: `<session>:sample:<number>`.
        weights: What is sampled from.
        path: The checkpoint's tinker path; None of a base model and of a snapshot.
        inflight_of: The training run whose later publications it follows, or None.
    """

    id: str
    weights: Weights
    path: str | None
    inflight_of: str | None = None


@dataclass
class Session:
    """One client session.

    Attributes:
        id: Its id; those of its runs and samplers begin with it.
        user_metadata: What the client attached.
        display_name: How the client calls it.
        runs: Its training runs by number.
        samplers: Its samplers by id.
        dropped: Ids of samplers whose memory was needed for newer ones.
        last_seen: When it last gave a sign of life.
        heard: The same on a clock that is never set.
        finished: Whether it is over.
    """

    id: str
    user_metadata: Mapping[str, Any]
    display_name: str | None
    runs: dict[int, RunState] = field(default_factory=dict)
    samplers: dict[str, Sampler] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    last_seen: datetime = field(default_factory=now)
    heard: float = field(default_factory=time.monotonic)
    finished: bool = False


class Sessions:
    """All sessions of a server, as many as its settings allow."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._sessions: dict[str, Session] = {}

    def create(self, user_metadata: Mapping[str, Any], display_name: str | None) -> Session:
        """A new session.

        Raises:
            RequestRefused: There are too many, or too much is attached.
        """
        check_metadata({"name": display_name, **user_metadata})
        over = [session for session in self._sessions.values() if session.finished]
        if self.is_full:
            raise RequestRefused(
                f"This engine holds {self._settings.max_sessions} open sessions, as many as it may; close a "
                "ServiceClient that is done."
            )
        for session in over[: max(0, len(over) - REMEMBERED)]:
            del self._sessions[session.id]
        session = Session(str(uuid.uuid4()), user_metadata, display_name)
        self._sessions[session.id] = session
        logger.info("session %s opened%s", session.id, f": {display_name}" if display_name else "")
        return session

    @property
    def runs_are_full(self) -> bool:
        """Whether there are as many training runs as there may be."""
        return sum(len(each.runs) for each in self._sessions.values()) >= self._settings.max_runs

    @property
    def is_full(self) -> bool:
        """Whether there are as many open sessions as there may be."""
        return sum(not each.finished for each in self._sessions.values()) >= self._settings.max_sessions

    def add_run(self, session: Session, number: int, run: RunState) -> None:
        """Makes a training run part of its session.

        Raises:
            RequestRefused: There are too many, or too much is attached.
        """
        check_metadata(run.user_metadata)
        if self.runs_are_full:
            raise RequestRefused(
                f"This engine holds {self._settings.max_runs} training runs, as many as it may; close a ServiceClient "
                "whose runs are done, which ends them."
            )
        session.runs[number] = run

    def add_sampler(self, session: Session, sampler: Sampler) -> None:
        """Makes a sampler part of its session.

        Raises:
            RequestRefused: There are too many.
        """
        if len(session.samplers) >= self._settings.max_samplers:
            raise RequestRefused(
                f"The session {session.id} has {self._settings.max_samplers} samplers, as many as it may; close its "
                "ServiceClient and open a new one."
            )
        session.samplers[sampler.id] = sampler

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    def silent(self, seconds: float) -> list[Session]:
        """Open sessions that gave no sign of life for so long."""
        since = time.monotonic() - seconds
        return [session for session in self._sessions.values() if not session.finished and session.heard < since]

    def get(self, session_id: str) -> Session:
        """Raises RequestRefused where there is no such session."""
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestRefused(f"There is no session {session_id!r}.", 404)
        return session

    def open(self, session_id: str) -> Session:
        """A session that goes on; marks it as seen.

        Raises:
            RequestRefused: There is none, or it is over; 410 then, upon which the SDK's heartbeat ends.
        """
        session = self.get(session_id)
        if session.finished:
            raise RequestRefused(f"The session {session_id} was finished; open a new ServiceClient.", 410)
        session.last_seen, session.heard = now(), time.monotonic()
        return session

    def run(self, model_id: str) -> RunState:
        """A training run of an open session.

        Raises:
            RequestRefused: There is none.
        """
        session_id, _, number = model_id.partition(":train:")
        if session_id in self._sessions and number.isdecimal() and len(number) < 10:
            run = self.open(session_id).runs.get(int(number))
            if run is not None:
                run.last_request = now()
                return run
        raise RequestRefused(f"There is no training run {model_id!r} on this server.", 404)

    def sampler(self, sampler_id: str) -> Sampler:
        """A sampler of an open session.

        Raises:
            RequestRefused: There is none.
        """
        session_id = sampler_id.partition(":sample:")[0]
        if session_id in self._sessions:
            session = self.open(session_id)
            sampler = session.samplers.get(sampler_id)
            if sampler is not None:
                return sampler
            if sampler_id in session.dropped:
                raise RequestRefused(
                    "This sampler's weights were in memory only, and newer ones needed it; save_weights_for_sampler "
                    "with a name keeps them.",
                    410,
                )
        raise RequestRefused(f"There is no sampling session {sampler_id!r} on this server.", 404)


def check_metadata(attached: Mapping[str, Any] | None) -> None:
    """Raises RequestRefused where a client attached more than the server would keep."""
    if attached and len(json.dumps(dict(attached), default=str)) > METADATA_BYTES:
        raise RequestRefused(f"user_metadata holds more than {METADATA_BYTES} bytes.")
