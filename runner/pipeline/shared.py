"""What the cells of one run share: spec, store, engine, prompts, and those who watch."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import EnvironmentProblem
from charrun.pipeline.choice import Choice
from charrun.pipeline.prompts import Prompts
from charrun.pipeline.reporter import Reporter
from charrun.plugin_manager import Registry
from charrun.service.engine import Connection, EngineRequest
from charrun.service.models import local_folder
from charrun.service.service import Service
from charrun.spec import Character, load_character, specs_folder
from charrun.store.canonical import folder_digest
from charrun.store.run import RunFolder

if TYPE_CHECKING:
    from charrun.pipeline.cell import StageRun

IN_FLIGHT = 256
"""Requests that wait at the engine at once; the SDK throttles itself below the service's own limit."""


class Shared:
    """One run's surroundings. The engine is started and the SDK imported when a stage first needs them."""

    def __init__(
        self, choice: Choice, registry: Registry, runs_dir: Path, folder: RunFolder, reporter: Reporter
    ) -> None:
        self.spec = choice.spec
        self.stand_ins = choice.stand_ins
        self.registry = registry
        self.engine = choice.engine
        self.runs_dir = runs_dir
        self.store = runs_dir / "store"
        self.folder = folder
        self.reporter = reporter
        self.prompts = Prompts({**registry.templates, **self.spec.templates})
        self.slots = asyncio.Semaphore(IN_FLIGHT)
        self.exact = not self.engine.hosted
        self._connection: Connection | None = None
        self._service: Service | None = None
        self._opening = asyncio.Lock()
        self.namespace = cache(self._namespace)

    async def service(self) -> Service:
        """The SDK session, opened on first use.

        Raises:
            EnvironmentProblem: The engine can't be reached or does not serve what the spec names.
        """
        async with self._opening:
            if self._service is None:
                self._connection = await asyncio.to_thread(self.engine.connect, self._request())
                self.exact = self._connection.exact
                service = Service(self._connection, {"run": f"{self.spec.name}/{self.folder.folder.name}"})
                await service.open()
                self._service = service
            return self._service

    def failure(self) -> str | None:
        """Why the engine is gone, or None while it lives or was never needed."""
        return self._connection.failure() if self._connection else None

    async def close(self, status: str) -> None:
        """End the session and stop what the engine started."""
        if self._service and not self.failure():
            await self._service.close(status)
        if self._connection:
            await asyncio.to_thread(self._connection.close)

    def find_character(self, id: str) -> Character:
        """A character of the spec, or a shipped one, or one by path relative to the spec."""
        known = {character.id: character for character in self.spec.characters}
        if id in known:
            return known[id]
        shipped = specs_folder() / "characters" / f"{id}.yaml"
        return load_character(shipped if shipped.exists() else self.spec.path.parent / id, id)

    def record(self, event: str, stage: StageRun | None = None, **fields: Any) -> None:
        """Append an event to the run's journal."""
        place = {"cell": stage.cell.name, "stage": stage.item.id} if stage else {}
        try:
            self.folder.record(event, **place, **fields)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {self.folder.folder}: {error.strerror or error}",
                "what is recorded stays; make room and run the same command again",
            ) from error

    def message(self, stage: StageRun | None, text: str) -> None:
        """One line for the person who watches, and for the journal."""
        self.record("message", stage, text=text)
        self.reporter.message(f"{stage.item.id}: {text}" if stage else text)

    def _namespace(self, model: str) -> str:
        folder = local_folder(model)
        identity = self.engine.namespace(model)
        return f"{identity}@{folder_digest(folder)}" if folder else identity

    def _request(self) -> EngineRequest:
        models = sorted({ref.name for entry in self.spec.models for ref in entry.roles.values()})
        return EngineRequest(
            models, self.spec.engine.options, self.runs_dir / "engine", self.folder.folder / "engine.log"
        )
