"""Models at endpoints against a real server: `transformers serve` with the demo teacher."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import charrun
from endpoint_proxy import EndpointProxy, before_endpoint

from charrun.service.models import local_folder
from charrun.store.ledger import read_ledger

pytestmark = pytest.mark.slow
KEY = "k3y-0f-n0b0dy-at-all"
TEACHER = str(local_folder("charrun/demo-teacher"))
JUDGE = str(local_folder("charrun/demo-judge"))

SPEC = """
version: 1
name: far
seed: 7
engine: local
characters: [pirate]
models:
  - teacher: {{name: far, endpoint: {{base_url: "{url}", model: "{model}", api_key_env: FAR_PLACE{more}}}}}
    student: {{name: charrun/demo-student-small, chat: {{enable_thinking: false}}}}
scales: [{{name: tiny, pairs: {pairs}, samples_per_prompt: {samples}, reflections: 1, interactions: 1, turns: 2}}]
stages: [prompts, {{uses: teacher, with: {{max_tokens: 24}}}}]
{end}
"""
JUDGED = """
version: 1
name: judged
seed: 7
engine: local
characters: [astronomer]
models:
  - teacher: charrun/demo-teacher
    student: {{name: charrun/demo-student-small, chat: {{enable_thinking: false}}}}
    judge: {{name: far, endpoint: {{base_url: "{url}", model: "{model}"}}}}
scales: [{{name: tiny, pairs: 8, samples_per_prompt: 1, reflections: 1, interactions: 1, turns: 2}}]
stages:
  - prompts
  - {{uses: teacher, with: {{max_tokens: 160}}}}
  - {{uses: student, with: {{max_tokens: 160}}}}
  - pairs
  - {{uses: dpo, with: {{batch_size: 4}}}}
  - {{uses: judge, with: {{prompts: 10, max_tokens: 64, judge_max_tokens: 160, against: prompted}}}}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`transformers serve` with the teacher, in a process of its own."""
    with serving(TEACHER, tmp_path_factory.mktemp("serve")) as url:
        yield url


@contextmanager
def serving(model: str, folder: Path) -> Iterator[str]:
    """`transformers serve` with a model, whose log is in a folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("w")
    command = [str(Path(sys.executable).with_name("transformers")), "serve", model, "--device", "cpu"]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)],
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    try:
        while server.poll() is None and not _answers(f"http://127.0.0.1:{port}/health"):
            pass
        assert server.poll() is None, Path(log.name).read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture
def proxy(served: str) -> Iterator[EndpointProxy]:
    with before_endpoint(served) as found:
        yield found


@pytest.fixture
def far(proxy: EndpointProxy, tmp_path: Path) -> Callable[..., Any]:
    """Runs the spec as it is told."""

    def run(*options: str, env: dict[str, str] | None = None, **changes: Any) -> Any:
        parts = {"url": proxy.base_url, "model": TEACHER, "more": "", "pairs": 5, "samples": 1, "end": "", **changes}
        (tmp_path / "far.yaml").write_text(SPEC.format(**parts))
        place = ("--runs-dir", tmp_path / "runs", *options)
        return charrun("run", tmp_path / "far.yaml", *place, env={"FAR_PLACE": KEY, **(env or {})})

    return run


def records(tmp_path: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in (tmp_path / "runs/store").glob("teacher-*/items.jsonl")
        for line in path.read_text().splitlines()
    ]


def test_a_killed_run_goes_on_and_no_row_that_is_stored_is_asked_again(
    far: Callable[..., Any], proxy: EndpointProxy, tmp_path: Path
) -> None:
    killed = far(env={"CHARRUN_FAULT": "row.after:3"}, pairs=6)
    assert killed.code == -signal.SIGKILL
    kept = {record["key"] for record in records(tmp_path)}
    stored = [json.loads(record["input"]["messages"]) for record in records(tmp_path)]
    assert len(kept) == 3
    before = len(proxy.asked)
    finished = far(pairs=6)
    assert finished.code == 0, finished.text
    again = proxy.asked[before:]
    assert len(again) == 3 and not any(body["messages"] in stored for body in again)
    keys = [record["key"] for record in records(tmp_path)]
    assert len(keys) == len(set(keys)) == 6 and kept < set(keys)
    assert far(pairs=6).code == 0 and len(proxy.asked) == before + 3


def test_the_ledger_counts_what_the_server_says_and_the_key_is_nowhere(
    far: Callable[..., Any], proxy: EndpointProxy, tmp_path: Path
) -> None:
    outcome = far()
    assert outcome.code == 0, outcome.text
    used = read_ledger(tmp_path / "runs/far/1/ledger.jsonl").all()
    told = [answer["usage"] for answer in proxy.answered]
    assert used.requests == len(told) == 5
    assert used.input_tokens == sum(usage["prompt_tokens"] for usage in told)
    assert used.sampled_tokens == sum(usage["completion_tokens"] for usage in told)
    assert proxy.keys == {f"Bearer {KEY}"}
    for path in (path for path in (tmp_path / "runs").rglob("*") if path.is_file()):
        assert KEY.encode() not in path.read_bytes(), path
    assert KEY not in outcome.text


def test_a_server_that_takes_no_notice_of_n_is_asked_until_all_answers_are_there(
    far: Callable[..., Any], proxy: EndpointProxy, tmp_path: Path
) -> None:
    assert far(pairs=3, samples=3).code == 0
    assert [record["start"] for record in sorted(records(tmp_path), key=lambda each: each["start"])] == [0, 1, 2]
    assert [body.get("n") for body in proxy.asked] == [3, None, None]
    assert len({body["seed"] for body in proxy.asked}) == 3


def test_a_request_that_is_turned_away_is_sent_again_and_costs_nothing_more(
    far: Callable[..., Any], proxy: EndpointProxy, tmp_path: Path
) -> None:
    proxy.before = lambda number, body: (429, {"error": {"message": "slow down"}}) if number < 2 else None
    assert far(pairs=3).code == 0
    totals = read_ledger(tmp_path / "runs/far/1/ledger.jsonl")
    assert len(proxy.asked) == 5 and totals.all().requests == 3 and not totals.open


def test_thoughts_are_no_part_of_an_answer(far: Callable[..., Any], proxy: EndpointProxy, tmp_path: Path) -> None:
    texts = iter(["<think>\nhm</think>\n\nAhoy.", "<think>\nand on and on", "Aye."])

    def think(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0]["message"]["content"] = next(texts)
        return answer

    proxy.after = think
    assert far(pairs=3, more=", concurrency: 1").code == 0
    (path,) = (tmp_path / "runs/store").glob("teacher-*/chosen-*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((row["answer"], row.get("fault")) for row in rows) == [
        ("", "no closing think tag"),
        ("Ahoy.", None),
        ("Aye.", None),
    ]


def test_a_budget_holds_at_an_endpoint_and_a_run_goes_on_under_a_higher_one(
    far: Callable[..., Any], proxy: EndpointProxy, tmp_path: Path
) -> None:
    price = "prices: {far: {prefill: 1, sample: 1}}\nbudget: {usd: %s}"
    stopped = far("--yes", "--partial", end=price % 0.002)
    assert stopped.code == 6, stopped.text
    asked = len(proxy.asked)
    assert 0 < asked < 5
    spent = read_ledger(tmp_path / "runs/far/1/ledger.jsonl").all()
    assert (spent.input_tokens + spent.sampled_tokens) / 1e6 <= 0.002
    finished = far("--yes", "--budget", "1", end=price % 0.002)
    assert finished.code == 0, finished.text
    assert len(proxy.asked) == 5


def test_a_judge_at_an_endpoint_takes_the_prompted_model_for_the_character(tmp_path: Path) -> None:
    with serving(JUDGE, tmp_path) as url, before_endpoint(url) as proxy:
        (tmp_path / "judged.yaml").write_text(JUDGED.format(url=proxy.base_url, model=JUDGE))
        outcome = charrun("run", tmp_path / "judged.yaml", "--runs-dir", tmp_path / "runs")
        assert outcome.code == 0, outcome.text
        asked = len(proxy.asked)
        assert charrun("run", tmp_path / "judged.yaml", "--runs-dir", tmp_path / "runs").code == 0
        assert len(proxy.asked) == asked == 20  # both orders of ten prompts
    (path,) = (tmp_path / "runs/store").glob("judge-*/measurements-*.jsonl")
    (counted,) = json.loads(path.read_text())["comparisons"]
    assert counted["lost"] > counted["won"] and counted["unparsed"] == 0, counted
