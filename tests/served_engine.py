"""A served engine for tests: `charrun engine serve` in a process, the embedded one, and raw requests to either."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import tinker
from tinker import types

from charrun.demo import MODELS
from charrun.engine.process import EngineProcess

NAME = "charrun/demo-student-small"
FOLDER = MODELS[NAME]
TOKENS = types.ModelInput.from_ints([10, 20, 30, 40, 50])
STEP = types.AdamParams(learning_rate=1e-3)
RAW_SAMPLE = {"num_samples": 1, "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5, 6, 7]}]}}


class Served:
    """A running `charrun engine serve` and what it printed."""

    def __init__(self, process: subprocess.Popen[str], out: str, log: Path) -> None:
        self.process = process
        self.out = out
        self.log = log
        self.variables = dict(re.findall(r"^export (\w+)=(.*)$", out, re.MULTILINE))

    @property
    def base_url(self) -> str:
        return self.variables["TINKER_BASE_URL"]

    @property
    def api_key(self) -> str:
        return self.variables["TINKER_API_KEY"]

    def connect(self) -> tinker.ServiceClient:
        return tinker.ServiceClient(base_url=self.base_url, api_key=self.api_key)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serve(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> Iterator[Served]:
    """`charrun engine serve` in a process of its own, once it has printed its variables."""
    log = folder / "log"
    common = ["--port", 0, "--storage", folder / "storage", "--threads", 1]
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "charrun", "engine", "serve", *map(str, [*common, *args])],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(env or {})},
        )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert all(lines), log.read_text()
        yield Served(process, "".join(lines), log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def start(folder: Path, **options: Any) -> EngineProcess:
    """An embedded engine, for what has no option on the command line."""
    return EngineProcess.start(
        {NAME: FOLDER}, folder / "storage", log=folder / "log", device="cpu", threads=1, **options
    )


def post(engine: EngineProcess | Served, route: str, body: Any = None, **options: Any) -> httpx.Response:
    headers = {"X-API-Key": engine.api_key, **options.pop("headers", {})}
    return httpx.post(f"{engine.base_url}/api/v1/{route}", json=body, headers=headers, **{"timeout": 60, **options})


def open_session(engine: EngineProcess | Served, **fields: Any) -> str:
    body = {"tags": [], "user_metadata": {}, "sdk_version": "0.38.0", **fields}
    return str(post(engine, "create_session", body).json()["session_id"])


def ask_for_much(engine: EngineProcess | Served) -> str:
    """A sampling request that takes long; returns its id."""
    params = {"max_tokens": 4000, "stop": []}
    body = {**RAW_SAMPLE, "base_model": NAME, "num_samples": 64, "sampling_params": params}
    return str(post(engine, "asample", body).json()["request_id"])


def datum(length: int = 32) -> types.Datum:
    tokens = list(range(20, 20 + length + 1))
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs={"target_tokens": tokens[1:]}
    )
