"""The simulated service as a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service_sim.meter import read_bill

KEY = "tml-simulated-service"


@dataclass(frozen=True)
class Running:
    """A running service.

    Attributes:
        address: Where it answers.
        storage: Its folder.
    """

    address: str
    storage: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a client of it needs."""
        return {"TINKER_BASE_URL": self.address, "TINKER_API_KEY": KEY, "TINKER_TELEMETRY": "0"}

    def bill(self) -> dict[str, Counter[str]]:
        """Tokens of each kind that it has billed, by model."""
        path = self.storage / "bill.jsonl"
        return read_bill(path) if path.exists() else {}


@contextmanager
def simulated(storage: Path, models: Mapping[str, Path], **service: Any) -> Iterator[Running]:
    """A service while the block runs.

    Args:
        storage: Its folder.
        models: Served name to Hugging Face folder, each folder once.
        **service: Fields of `compute.Service`.
    """
    storage.mkdir(parents=True, exist_ok=True)
    with (storage / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service_sim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
    assert process.stdin is not None and process.stdout is not None
    folders = {name: str(folder) for name, folder in models.items()}
    line = {"models": folders, "storage": str(storage), "api_key": KEY, "service": service}
    process.stdin.write(json.dumps(line).encode() + b"\n")
    process.stdin.flush()
    try:
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError((storage / "service.log").read_text())
        yield Running(f"http://127.0.0.1:{json.loads(answer)['port']}", storage)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
