"""The engine as a child process: started, watched and stopped by whoever uses it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from charrun.engine import storage as storage_of
from charrun.engine.settings import EngineSettings
from charrun.engine.storage import Stored
from charrun.errors import EnvironmentProblem
from charrun.secrets import hide, is_credential, learn

START_TIMEOUT = 120.0
STOP_TIMEOUT = 5.0
LOG_TAIL = 12


class EngineProcess:
    """A running engine.

    It ends with this process, however this process ends: it watches a pipe that only this process holds open.

    Attributes:
        base_url: Where it answers.
        api_key: The key that it wants.
        pid: Its process id.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, api_key: str) -> None:
        self._process = process
        self.base_url = f"http://127.0.0.1:{port}"
        self.api_key = api_key
        self.pid = process.pid

    @classmethod
    def start(
        cls, models: Mapping[str, Path], storage: Path, *, log: Path, device: str = "auto", **options: Any
    ) -> EngineProcess:
        """Starts an engine and waits until it answers.

        Args:
            models: Served name to Hugging Face folder.
            storage: Folder of the checkpoints.
            log: File that its output is appended to.
            device: `auto`, `cpu` or `cuda`.
            **options: Further fields of `EngineSettings`.

        Raises:
            EnvironmentProblem: It did not start; the message holds the log's last lines.
        """
        settings = EngineSettings(
            models=models, storage=storage, api_key=f"tml-{secrets.token_hex(24)}", device=device, **options
        )
        learn(settings.api_key)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "charrun.engine"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=_environment(),
                    start_new_session=True,
                )
        except OSError as error:
            raise EnvironmentProblem(f"The local engine could not be started: {error}.") from error
        port = _first_words(process, settings)
        if port is None:
            _kill(process)
            raise EnvironmentProblem(f"The local engine did not start.\n{_tail(log)}", f"The whole log is in {log}.")
        return cls(process, port, settings.api_key)

    @staticmethod
    def holds(storage: Path, path: str) -> bool:
        """Whether a storage folder holds a checkpoint that is sound and whose time is not over; no engine needs to run.

        Args:
            storage: Folder of the checkpoints.
            path: `tinker://<run>/<kind>/<name>`.
        """
        return storage_of.holds(storage, path)

    @staticmethod
    def stored(storage: Path) -> Iterator[Stored]:
        """Every checkpoint of a storage folder, other programs' included; no engine needs to run."""
        return storage_of.stored(storage)

    @staticmethod
    def damage(storage: Path, path: str) -> tuple[Path, str] | None:
        """What is wrong with a checkpoint, every byte of it read: the file and the reason; None where it is sound."""
        return storage_of.damage(storage, path)

    @staticmethod
    def remove(storage: Path, path: str) -> int:
        """Take a checkpoint out of a storage folder for good; returns the bytes of its files.

        Raises:
            OSError: It can't be renamed.
        """
        return storage_of.remove(storage, path)

    @staticmethod
    def take(
        storage: Path, folder: Path, base_model: str, model_folder: Path, name: str, note: Mapping[str, str]
    ) -> tuple[str, str]:
        """Keep a PEFT adapter folder as checkpoints to train on from and to sample from; no engine needs to run.

        Returns:
            Their paths.

        Raises:
            EnvironmentProblem: It is no plain LoRA of this model, or beyond what the engine computes.
        """
        from charrun.engine.errors import RequestRefused
        from charrun.engine.taking import take_adapter

        try:
            return take_adapter(storage, folder, base_model, model_folder, name, note)
        except RequestRefused as error:
            raise EnvironmentProblem(str(error)) from error

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ends it: politely, and after a few seconds by force. Ending it twice is fine."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        _kill(self._process)

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _environment() -> dict[str, str]:
    """The child's environment: no hub, and nothing that could lead to a hosted service.

    Threads that wait at a barrier sleep: spinning ones take the cores from the client process, and a batch that
    shares its cores with another program then runs four times slower.
    """
    kept = {n: value for n, value in os.environ.items() if not (n.startswith("TINKER_") or is_credential(n))}
    kept.setdefault("OMP_WAIT_POLICY", "passive")
    return {**kept, "HF_HUB_OFFLINE": "1", "TINKER_TELEMETRY": "0", "TOKENIZERS_PARALLELISM": "false"}


def _first_words(process: subprocess.Popen[bytes], settings: EngineSettings) -> int | None:
    """Sends the settings and waits for the port; None where the child died or kept silent."""
    assert process.stdin is not None and process.stdout is not None
    silence = threading.Timer(START_TIMEOUT, process.kill)
    silence.start()
    try:
        process.stdin.write(settings.to_json().encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
        return int(json.loads(line)["port"])
    except (OSError, ValueError, KeyError):
        return None
    finally:
        silence.cancel()


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    pipes: list[IO[bytes] | None] = [process.stdin, process.stdout]
    for pipe in pipes:
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL:]
    return hide("\n".join(f"  {line}" for line in lines))
