"""Named instants: the contract of `charrun.faults`, and that every one of them exists."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY, RunningEngine
from served_engine import NAME, start

from charrun.faults import POINTS, VARIABLE

SCRIPT = "from charrun.faults import reached\nfor n in range(5):\n    print(n, flush=True)\n    reached('row.after')"


def run(value: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env={**os.environ, VARIABLE: value}
    )
    return done.returncode, done.stdout


def test_without_the_variable_nothing_happens() -> None:
    for value in ("", "row.before:1", "nonsense"):
        assert run(value) == (0, "0\n1\n2\n3\n4\n")


def test_where_it_names_an_instant_the_process_is_killed_there_the_n_th_time() -> None:
    assert run("row.after:3") == (-signal.SIGKILL, "0\n1\n2\n")
    assert run("row.after") == (-signal.SIGKILL, "0\n")


def test_the_variable_reaches_the_local_engine_too(tmp_path: Path, demo_engine: RunningEngine) -> None:
    import tinker
    from tinker import types

    os.environ[VARIABLE] = "engine.sampled:2"
    try:
        engine = start(tmp_path)
    finally:
        del os.environ[VARIABLE]
    with engine:
        client = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
        sampler = client.create_sampling_client(base_model=NAME).result()
        prompt = types.ModelInput.from_ints([10, 20, 30])
        params = types.SamplingParams(max_tokens=2)
        assert len(sampler.sample(prompt, 1, params).result().sequences) == 1
        sampler.sample(prompt, 1, params)
        assert engine._process.wait(60) == -signal.SIGKILL


def test_every_point_is_somewhere_and_every_one_that_is_reached_is_listed() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "runner").rglob("*.py")]
    assert {point for source in sources for point in re.findall(r'reached\("([^"]+)"\)', source)} == set(POINTS)
