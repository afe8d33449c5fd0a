"""The local engine: a Tinker-protocol server on loopback that lives as long as the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from charrun import Connection, Engine, EngineRequest, EnvironmentProblem, StoredCheckpoint, hookimpl


class LocalEngine(Engine):
    """Serves local model folders and the demo models from a process of its own."""

    name: ClassVar[str] = "local"
    summary: ClassVar[str] = "models on this machine, served over loopback while the run lasts"
    takes_adapters: ClassVar[bool] = True
    options_schema: ClassVar[dict[str, Any]] = {
        "type": "object",
        "properties": {
            "device": {
                "enum": ["auto", "cpu", "cuda"],
                "default": "auto",
                "description": "Where the models compute; auto takes CUDA where there is one.",
            }
        },
        "additionalProperties": False,
    }

    def connect(self, request: EngineRequest) -> Connection:
        """Start the server for the models of the request."""
        from charrun import EngineProcess, local_folder

        folders = {model: local_folder(model) for model in request.models}
        unknown = sorted(model for model, folder in folders.items() if folder is None or not folder.is_dir())
        if unknown:
            raise EnvironmentProblem(
                f"the local engine does not serve {', '.join(unknown)}",
                "it serves the demo models charrun/demo-teacher, charrun/demo-student, charrun/demo-student-small and "
                "charrun/demo-judge, and local folders such as ./models/my-model; hosted models need engine: tinker",
            )
        device = str(request.options.get("device", "auto"))
        process = EngineProcess.start(
            {model: folder for model, folder in folders.items() if folder is not None},
            request.storage,
            log=request.log,
            device=device,
        )

        def failure() -> str | None:
            return None if process.alive() else f"its process {process.pid} ended; its log is {request.log}"

        return Connection(
            base_url=process.base_url,
            api_key=process.api_key,
            exact=True,
            failure=failure,
            close=process.stop,
            process_ids=(process.pid,),
        )

    def holds(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, bool]:
        """Look into the storage folder."""
        from charrun import EngineProcess

        return {path: EngineProcess.holds(request.storage, path) for path in paths}

    def damaged(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, tuple[Path, str]]:
        """Read every byte of them."""
        from charrun import EngineProcess

        found = {path: EngineProcess.damage(request.storage, path) for path in paths}
        return {path: wrong for path, wrong in found.items() if wrong}

    def stored(self, request: EngineRequest) -> Sequence[StoredCheckpoint]:
        """Look into the storage folder."""
        from charrun import EngineProcess

        return [StoredCheckpoint(**vars(found)) for found in EngineProcess.stored(request.storage)]

    def discard(self, paths: Sequence[str], request: EngineRequest) -> None:
        """Take them out of the storage folder."""
        from charrun import EngineProcess

        for path in paths:
            try:
                EngineProcess.remove(request.storage, path)
            except OSError as error:
                raise EnvironmentProblem(f"cannot delete {path}: {error.strerror or error}") from error

    def take_adapter(
        self, folder: Path, model: str, name: str, note: Mapping[str, str], request: EngineRequest
    ) -> tuple[str, str]:
        """Put it into the storage folder."""
        from charrun import EngineProcess, local_folder

        base = local_folder(model)
        if base is None:
            raise EnvironmentProblem(f"the local engine does not serve {model}")
        return EngineProcess.take(request.storage, folder, model, base, name, note)


@hookimpl
def charrun_register_engines() -> list[type[Engine]]:
    """The local engine."""
    return [LocalEngine]
