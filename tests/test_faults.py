"""Named instants: the contract of `charrun.faults`, and that every one of them exists."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
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


ASK = """
import sys, tinker
from tinker import types
client = tinker.ServiceClient(base_url=sys.argv[1], api_key=sys.argv[2])
sampler = client.create_sampling_client(base_model=sys.argv[3]).result()
for _ in range(2):
    sampler.sample(types.ModelInput.from_ints([10, 20, 30]), 1, types.SamplingParams(max_tokens=2)).result()
    print("answered", flush=True)
"""


def test_the_variable_reaches_the_local_engine_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "engine.sampled:2")
    with start(tmp_path) as engine:
        monkeypatch.delenv(VARIABLE)
        words = [sys.executable, "-c", ASK, engine.base_url, engine.api_key, NAME]
        client = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert engine._process.wait(120) == -signal.SIGKILL
        client.kill()  # the SDK would ask for minutes
        assert client.communicate()[0] == "answered\n"


def test_every_point_is_somewhere_and_every_one_that_is_reached_is_listed() -> None:
    sources = [path.read_text() for path in (REPOSITORY / "runner").rglob("*.py")]
    assert {point for source in sources for point in re.findall(r'reached\("([^"]+)"\)', source)} == set(POINTS)
