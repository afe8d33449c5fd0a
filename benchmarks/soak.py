"""Mixed load on a local engine for a long time: is every answer right, and does its memory stay flat?

    python benchmarks/soak.py [--minutes 30] [--clients 8] [--seed 0]

Starts `charrun engine serve` and client processes that use the real SDK (benchmarks/soak_client.py): each samples with
seeds, scores prompts, trains, saves, resumes and deletes, and compares every answer with the first one that anybody
got to the same question. Two of them are killed with SIGKILL at random instants and started again. Prints answers by
kind, the latency of a trivial request, and the server's memory (Pss) over time; the exit code is 1 where an answer was
wrong or lost, or memory grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SERVE = ["engine", "serve", "--port", "0", "--cache-mib", "128", "--adapter-mib", "16", "--session-seconds", "45"]
"""The server, with caches that half a minute fills and clients that count as gone soon after they were killed: memory
that fills a cache up to its limit, or waits for a client to come back, is no growth."""
SMALL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
"""oneDNN keeps about 0.65 MB for each shape of matrix product that it met, 1,024 of them unless told otherwise; that
takes many minutes to fill, and looks like a leak until then."""
KILLED = 2
"""Clients that are killed now and then."""
GROWTH = 1.10
"""Most that the last quarter's median memory may be of the second quarter's."""
SLACK = 32 * 1024 * 1024
"""Bytes that it may have grown anyway: one more client's requests at the same time."""
PATIENCE = 300.0
"""Seconds that clients get to start, and to finish their last task."""


@dataclass
class Watch:
    """What the supervisor saw.

    Attributes:
        memory: The server's Pss in bytes, one per sample.
        latency: Seconds that a trivial request took.
        kills: Clients that were killed.
    """

    memory: list[int] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    kills: int = 0


def main() -> None:
    """Serve, load, watch, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the instants at which clients are killed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        problems = soak(Path(name), options.minutes * 60, options.clients, random.Random(options.seed))
    for problem in problems:
        print(f"FAILED: {problem}")
    sys.exit(1 if problems else 0)


def soak(folder: Path, seconds: float, count: int, rng: random.Random) -> list[str]:
    """The whole test; returns what was wrong."""
    (folder / "expected").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TINKER_")}
    environment |= {"HOME": str(folder), "TINKER_TELEMETRY": "0", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "charrun", *SERVE, "--storage", str(folder / "storage")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment | SMALL_CACHES,
        )
    assert server.stdout is not None
    clients: list[subprocess.Popen[bytes]] = []
    try:
        lines = server.stdout.readline() + server.stdout.readline()
        environment |= dict(re.findall(r"^export (\w+)=(\S+)$", lines, re.MULTILINE))
        clients += [client(folder, number, environment) for number in range(count)]
        watch = supervise(folder, server, clients, seconds, rng, environment)
        (folder / "stop").touch()
        problems = [f"client {number} did not finish: answers were lost" for number in unfinished(clients)]
        server.terminate()
        code = server.wait(PATIENCE)
        problems += [f"the server ended with {code}"] if code else []
        problems += [f"{path} was left behind" for path in (folder / "storage").glob("*/*/.*")]
        return problems + report(folder, watch, count)
    finally:
        for process in (*clients, server):
            process.kill()
            process.wait()


def client(folder: Path, number: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a client."""
    script = Path(__file__).with_name("soak_client.py")
    return subprocess.Popen([sys.executable, str(script), str(folder), str(number)], env=environment)


def supervise(
    folder: Path,
    server: subprocess.Popen[str],
    clients: list[subprocess.Popen[bytes]],
    seconds: float,
    rng: random.Random,
    environment: dict[str, str],
) -> Watch:
    """Watches the server and kills clients until the time is over, counted from when all clients work."""
    watch = Watch()
    limit = time.monotonic() + PATIENCE
    while sum(path.stat().st_size > 0 for path in folder.glob("*.jsonl")) < len(clients):
        assert time.monotonic() < limit, "the clients did not start"
        time.sleep(0.1)
    end = time.monotonic() + seconds
    every = max(10.0, seconds / 40)
    next_kill = time.monotonic() + rng.uniform(0, every)
    while time.monotonic() < end and server.poll() is None:
        watch.memory.append(pss(server.pid))
        watch.latency.append(trivial(environment))
        if time.monotonic() > next_kill:
            number = rng.randrange(min(KILLED, len(clients)))
            clients[number].send_signal(signal.SIGKILL)
            clients[number].wait()
            clients[number] = client(folder, number, environment)
            watch.kills += 1
            next_kill += rng.uniform(0.5, 1.5) * every
        time.sleep(0.25)
    return watch


def unfinished(clients: list[subprocess.Popen[bytes]]) -> list[int]:
    """Clients that do not end in time, or not well."""
    limit, wrong = time.monotonic() + PATIENCE, []
    for number, process in enumerate(clients):
        try:
            if process.wait(max(0.0, limit - time.monotonic())):
                wrong.append(number)
        except subprocess.TimeoutExpired:
            wrong.append(number)
    return wrong


def pss(pid: int) -> int:
    """Proportional set size of a process, bytes."""
    found = re.search(r"^Pss: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def trivial(environment: dict[str, str]) -> float:
    """Seconds that the simplest request takes."""
    request = urllib.request.Request(
        f"{environment['TINKER_BASE_URL']}/api/v1/healthz", headers={"X-API-Key": environment["TINKER_API_KEY"]}
    )
    began = time.monotonic()
    urllib.request.urlopen(request, timeout=60).close()
    return time.monotonic() - began


def report(folder: Path, watch: Watch, count: int) -> list[str]:
    """Prints the tables; returns what was wrong."""
    tasks: list[dict[str, Any]] = []
    for path in folder.glob("*.jsonl"):
        lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        tasks += [json.loads(line) for line in lines]
    done = [task for task in tasks if task["kind"] != "ready"]
    print(f"{'kind':<8}{'tasks':>8}{'checked':>10}{'wrong':>8}{'p50 s':>9}{'p99 s':>9}")
    for kind in sorted({task["kind"] for task in done}):
        of = [task for task in done if task["kind"] == kind]
        times = [task["seconds"] for task in of]
        wrong = sum(task["wrong"] is not None for task in of)
        checked = sum(task["checked"] for task in of)
        print(f"{kind:<8}{len(of):>8}{checked:>10}{wrong:>8}{at(times, 50):>9.2f}{at(times, 99):>9.2f}")
    quarter = max(1, len(watch.memory) // 4)
    early, late = (statistics.median(part) for part in (watch.memory[quarter : 2 * quarter], watch.memory[-quarter:]))
    flat = late <= max(GROWTH * early, early + SLACK)
    print(f"clients: {count}; killed and restarted: {watch.kills}")
    print(f"a trivial request: p50 {at(watch.latency, 50) * 1e3:.0f} ms, p99 {at(watch.latency, 99) * 1e3:.0f} ms")
    shown = "  ".join(f"{watch.memory[len(watch.memory) * part // 10] / 2**20:.0f}" for part in range(10))
    print(f"server memory, MiB, over time: {shown}  {watch.memory[-1] / 2**20:.0f}")
    print(f"second quarter {early / 2**20:.0f} MiB, last {late / 2**20:.0f} MiB: {'flat' if flat else 'NOT flat'}")
    problems = sorted({str(task["wrong"])[:300] for task in done if task["wrong"]})
    problems += [] if done else ["nothing was done"]
    return problems + ([] if flat else [f"memory grew from {early / 2**20:.0f} to {late / 2**20:.0f} MiB"])


def at(values: list[float], percentile: int) -> float:
    """A percentile."""
    return sorted(values)[min(len(values) - 1, len(values) * percentile // 100)] if values else float("nan")


if __name__ == "__main__":
    main()
