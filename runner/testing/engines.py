"""A local engine that outlives a run, so that many tests share one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

import pytest

from charrun.service.engine import Connection, Engine, EngineRequest

DEMO_MODELS: Final[Mapping[str, str]] = {"teacher": "charrun/demo-teacher", "student": "charrun/demo-student"}
"""Models by role that need no download: they show that a stage works, not what a real model would answer."""


@dataclass(frozen=True)
class RunningEngine:
    """A local engine that is running.

    Attributes:
        base_url: Where it answers.
        api_key: The key that it wants.
        failure: Tells why it is gone, or None while it lives.
    """

    base_url: str
    api_key: str
    failure: Callable[[], str | None] = field(default=lambda: None, compare=False)

    @property
    def address(self) -> dict[str, str]:
        """Arguments of the SDK's clients, as in `tinker.ServiceClient(**engine.address)`."""
        return {"base_url": self.base_url, "api_key": self.api_key}


class AttachedEngine(Engine):
    """The engine `local` as far as keys and names go, but one that runs already and goes on after the run."""

    name: ClassVar[str] = "local"
    summary: ClassVar[str] = "a local engine that runs already"

    def __init__(self, engine: RunningEngine) -> None:
        self._engine = engine

    def connect(self, request: EngineRequest) -> Connection:
        """Attach to it; what it does not serve, it refuses itself."""
        engine = self._engine
        return Connection(engine.base_url, engine.api_key, exact=True, failure=engine.failure)


@pytest.fixture(scope="session")
def charrun_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    """One local engine with the demo models, on the CPU, for all tests of the session."""
    from charrun.demo import MODELS
    from charrun.engine.process import EngineProcess

    folder = tmp_path_factory.mktemp("charrun-engine")
    log = folder / "engine.log"
    with EngineProcess.start(MODELS, folder / "storage", log=log, device="cpu") as process:

        def failure() -> str | None:
            return None if process.alive() else f"its process {process.pid} ended; its log is {log}"

        yield RunningEngine(process.base_url, process.api_key, failure)
