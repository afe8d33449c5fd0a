"""How the engine stands load: memory with many requests at once, and how long a trivial one waits during training."""

from __future__ import annotations

import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import tinker
from tinker import types

from charrun.engine.process import EngineProcess

FEW, MANY = 100, 1500
NEW_TOKENS = 64


def memory_bytes(pid: int) -> int:
    """Memory of a process, its part of shared pages counted in part (Pss)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss in smaps_rollup")


class Peak:
    """The largest memory of a process while it is watched."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            self.bytes = max(self.bytes, memory_bytes(self._pid))

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def peak_memory(process: EngineProcess, client: tinker.SamplingClient, requests: int, vocabulary: int) -> int:
    """Largest memory of the server while so many requests are made at once."""
    rng = np.random.default_rng(requests)
    with Peak(process.pid) as peak:
        futures = [
            client.sample(
                types.ModelInput.from_ints(rng.integers(10, vocabulary - 10, 100).tolist()),
                1,
                types.SamplingParams(max_tokens=NEW_TOKENS, seed=number, stop=[]),
            )
            for number in range(requests)
        ]
        for future in futures:
            future.result()
    return peak.bytes


def waits_during_training(
    process: EngineProcess, service: tinker.ServiceClient, name: str, vocabulary: int, seconds: float = 20.0
) -> list[float]:
    """Seconds that each of many trivial requests took while a client trained without a pause."""
    client = service.create_lora_training_client(name, rank=64, train_unembed=False, seed=1).result()
    rng = np.random.default_rng(0)
    rows = [rng.integers(10, vocabulary - 10, 513) for _ in range(32)]
    data = [
        types.Datum(
            model_input=types.ModelInput.from_ints(row[:-1].tolist()),
            loss_fn_inputs={"target_tokens": row[1:], "weights": np.full(512, 1e-4, np.float32)},
        )
        for row in rows
    ]
    done = threading.Event()

    def train() -> None:
        while not done.is_set():
            steps = client.forward_backward(data, "cross_entropy"), client.optim_step(types.AdamParams())
            for step in steps:
                step.result()

    thread = threading.Thread(target=train)
    thread.start()
    waits = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        address = f"{process.base_url}/api/v1/get_server_capabilities"
        request = urllib.request.Request(address, headers={"X-API-Key": process.api_key})
        urllib.request.urlopen(request, timeout=60).read()
        waits.append(time.perf_counter() - began)
        time.sleep(0.02)
    done.set()
    thread.join()
    return waits


def report(process: EngineProcess, service: tinker.ServiceClient, name: str, vocabulary: int) -> None:
    """Measures and prints."""
    client = service.create_sampling_client(base_model=name).result()
    few = peak_memory(process, client, FEW, vocabulary)
    many = peak_memory(process, client, MANY, vocabulary)
    print(f"\nmemory of the server: {few / 2**20:,.0f} MiB at most with {FEW} requests at once, ", end="")
    print(f"{many / 2**20:,.0f} MiB with {MANY}: {many / few:.2f} x")
    waits = np.array(waits_during_training(process, service, name, vocabulary)) * 1000
    p50, p99 = np.percentile(waits, [50, 99])
    print(f"a trivial request during training: p50 {p50:,.0f} ms, p99 {p99:,.0f} ms, worst {waits.max():,.0f} ms")
