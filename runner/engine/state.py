"""What a server remembers between requests: sessions, their training runs and their samplers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from charrun.engine.errors import RequestRefused
from charrun.engine.lora import LoraSpec
from charrun.engine.models import HostedModel
from charrun.engine.sampling import Weights
from charrun.engine.training import TrainingRun


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
    """A sampling client's weights: a base model or a checkpoint, or a snapshot that lives in memory only."""

    id: str
    weights: Weights
    path: str | None


@dataclass
class Session:
    """One client session."""

    id: str
    user_metadata: Mapping[str, Any]
    display_name: str | None
    runs: dict[int, RunState] = field(default_factory=dict)
    samplers: dict[str, Sampler] = field(default_factory=dict)
    last_seen: datetime = field(default_factory=now)
    finished: bool = False


class Sessions:
    """All sessions of a server."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}

    def create(self, user_metadata: Mapping[str, Any], display_name: str | None) -> Session:
        session = Session(str(uuid.uuid4()), user_metadata, display_name)
        self._sessions[session.id] = session
        return session

    def all(self) -> list[Session]:
        return list(self._sessions.values())

    def get(self, session_id: str) -> Session:
        """Raises RequestRefused where there is no such session."""
        session = self._sessions.get(session_id)
        if session is None:
            raise RequestRefused(f"There is no session {session_id!r}.", 404)
        return session

    def open(self, session_id: str) -> Session:
        """A session that goes on; marks it as seen.

        Raises:
            RequestRefused: There is none, or it was finished.
        """
        session = self.get(session_id)
        if session.finished:
            raise RequestRefused(f"The session {session_id} was finished; open a new ServiceClient.")
        session.last_seen = now()
        return session

    def run(self, model_id: str) -> RunState:
        """A training run of an open session.

        Raises:
            RequestRefused: There is none.
        """
        session_id, _, number = model_id.partition(":train:")
        if session_id in self._sessions and number.isdecimal():
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
            sampler = self.open(session_id).samplers.get(sampler_id)
            if sampler is not None:
                return sampler
        raise RequestRefused(f"There is no sampling session {sampler_id!r} on this server.", 404)
