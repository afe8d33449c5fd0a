"""What an engine is: a place that answers the Tinker SDK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from charrun.errors import EnvironmentProblem


@dataclass(frozen=True)
class EngineRequest:
    """What a run needs of an engine.

    Attributes:
        models: Names of all models of the run; a name that is an absolute path is a local model folder.
        options: The engine's own options, already checked against its schema.
        storage: Folder for an engine that keeps checkpoints on this machine.
        log: File for an engine's own log.
        successors: Options of the command line that take the successors of the spec's models which the hosted service
            has retired; empty where there are none, or none that would do.
        trained: Those of the models that are to be trained, as far as that is known.
    """

    models: Sequence[str]
    options: Mapping[str, Any]
    storage: Path
    log: Path
    successors: str = ""
    trained: Sequence[str] = ()


@dataclass(frozen=True)
class Connection:
    """An engine that is ready.

    Attributes:
        base_url: Where the SDK connects; None for the SDK's own default.
        api_key: Key for the SDK; None for the SDK's own search.
        exact: Whether repeated forward passes agree to rounding, so that strict tolerances hold.
        failure: Tells why the engine is gone, or None while it lives.
        close: Stops what `connect` started.
        process_ids: Processes that the engine runs on this machine.
        contexts: Longest prompt plus answer of its models, in tokens, as far as it says so.
    """

    base_url: str | None
    api_key: str | None
    exact: bool
    failure: Callable[[], str | None] = field(default=lambda: None)
    close: Callable[[], None] = field(default=lambda: None)
    process_ids: tuple[int, ...] = ()
    contexts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint that an engine keeps.

    Attributes:
        path: `tinker://<run>/<kind>/<name>`.
        note: What its saver attached to it.
        size: Bytes; None where the engine does not say.
        created: When it was saved, in seconds since 1970.
        expires: When it is gone by itself, in seconds since 1970; None means never.
        folder: Where it lies on this machine; None elsewhere.
    """

    path: str
    note: Mapping[str, str]
    size: int | None
    created: float
    expires: float | None
    folder: Path | None = None


@dataclass(frozen=True)
class Billed:
    """What an engine has billed for an hour of one session.

    Attributes:
        note: What the session carries.
        model: The base model.
        kind: What the tokens were.
        tokens: How many.
        usd: What they cost, in US dollars; None where it does not say.
    """

    note: Mapping[str, str]
    model: str
    kind: Literal["prefill", "cached", "sampled", "training"]
    tokens: int
    usd: float | None


class Engine:
    """A place that answers: the hosted service, any base URL, or this machine.

    Attributes:
        name: What `engine:` names in a spec.
        summary: One sentence for lists of engines.
        hosted: Whether requests leave this machine and may cost money, so that the user is asked once.
        takes_adapters: Whether `take_adapter` works.
        options_schema: Draft-07 schema of the options under `with`.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    hosted: ClassVar[bool] = False
    takes_adapters: ClassVar[bool] = False
    options_schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }

    def namespace(self, model: str) -> str:
        """Identity of a model at this engine, part of every key: the same name elsewhere is another model."""
        return f"{self.name}:{model}"

    def connect(self, request: EngineRequest) -> Connection:
        """Make the engine ready.

        Raises:
            EnvironmentProblem: Credentials are missing, the engine can't be reached or started, or it does not
                serve a model of the request.
        """
        raise NotImplementedError

    def holds(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, bool]:
        """Which checkpoints are still there, by path; asked for a plan, so nothing may be started or paid for.

        A path that it cannot tell about is left out.
        """
        return {}

    def damaged(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, tuple[Path, str]]:
        """What is wrong with checkpoints that lie on this machine, for `charrun verify`: by path a file and the reason.

        Sound ones are left out, and those that it cannot tell about.
        """
        return {}

    def stored(self, request: EngineRequest) -> Sequence[StoredCheckpoint]:
        """Every checkpoint that it keeps, other programs' included, for `charrun gc`; nothing is started or paid for.

        Raises:
            EnvironmentProblem: It cannot be asked now.
        """
        return ()

    def discard(self, paths: Sequence[str], request: EngineRequest) -> None:
        """Delete checkpoints that `stored` told of; one that is gone already is no error.

        Raises:
            EnvironmentProblem: One could not be deleted.
        """
        raise EnvironmentProblem(f"the engine {self.name} cannot delete checkpoints")

    def take_adapter(
        self, folder: Path, model: str, name: str, note: Mapping[str, str], request: EngineRequest
    ) -> tuple[str, str]:
        """Keep a PEFT adapter folder as a checkpoint; the same one under the same name twice is one checkpoint.

        Args:
            folder: adapter_config.json and adapter_model.safetensors.
            model: The base model's name.
            name: What the checkpoint is called.
            note: What is attached to it.
            request: As `connect` was given it.

        Returns:
            The paths to train on from and to sample from.

        Raises:
            EnvironmentProblem: It takes none, or not this one.
        """
        raise EnvironmentProblem(f"the engine {self.name} takes no adapters")

    def billed(self, since: float, until: float, request: EngineRequest) -> Sequence[Billed]:
        """What it has billed between two times in seconds since 1970, for `charrun cost --reconcile`.

        Raises:
            EnvironmentProblem: It has no bill, or the account may not read it.
        """
        raise EnvironmentProblem(f"the engine {self.name} has no bill")
