"""`engine: tinker` drives the same code as a paid run: a key, an address, a question, looser tolerances."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RunningEngine, charrun

SPEC = """
version: 1
name: hosted
seed: 7
engine: auto
characters: [pirate]
models: [{{teacher: charrun/demo-teacher, student: {{name: charrun/demo-student, chat: {{enable_thinking: false}}}}}}]
scales: [{{name: tiny, pairs: 4, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}}]
budget: {{usd: 5.70}}
prices:
  charrun/demo-teacher: {{prefill: 0.68, sample: 1.7}}
  charrun/demo-student: {{prefill: 0.12, sample: 0.3, train: 0.36}}
stages: {stages}
"""


def environment(engine: RunningEngine) -> dict[str, str]:
    return {"TINKER_API_KEY": engine.api_key, "TINKER_BASE_URL": engine.base_url}


def test_a_run_on_a_service_shows_what_it_will_do_and_trains_there(tmp_path: Path, demo_engine: RunningEngine) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(stages="[prompts, teacher, student, pairs, dpo, reflection, interaction, sft, export]"))
    outcome = charrun(spec, "--runs-dir", tmp_path / "runs", "--yes", env=environment(demo_engine))
    assert outcome.code == 0, outcome.text
    for expected in ("Engine: tinker", "charrun/demo-teacher", "Its budget is $5.70, which it never exceeds"):
        assert expected in outcome.out
    assert "No Tinker credentials" not in outcome.out
    events = [json.loads(x) for x in (tmp_path / "runs/hosted/1/journal.jsonl").read_text().splitlines()]
    checks = {e["name"]: e["limit"] for e in events if e["event"] == "check"}
    assert checks["DPO loss at step 0 minus ln 2"] == 0.01
    assert checks["mean sampler-trainer log-prob gap"] == 0.2
    assert "sampler and trainer differ by" in outcome.out
    assert list((tmp_path / "runs/store").glob("export-*/adapter/adapter_model.safetensors"))


def test_an_address_may_hold_user_and_password(tmp_path: Path, demo_engine: RunningEngine) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(stages="[prompts, teacher]"))
    address = demo_engine.base_url.replace("://", "://somebody:pa55w0rd-of-theirs@")
    env = {**environment(demo_engine), "TINKER_BASE_URL": address}
    outcome = charrun(spec, "--runs-dir", tmp_path / "runs", "--yes", env=env)
    assert outcome.code == 0 and "pa55w0rd" not in outcome.text, outcome.text
    assert list((tmp_path / "runs/store").glob("teacher-*/chosen-*.jsonl"))
    dead = charrun(spec, "--runs-dir", tmp_path / "dead", "--yes", env={**env, "TINKER_BASE_URL": "http://a:b@[::1"})
    assert dead.code == 5 and "nothing answers at" in dead.err, dead.text


@pytest.mark.slow
def test_rows_of_stand_ins_and_of_a_service_never_mix(tmp_path: Path, demo_engine: RunningEngine) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(stages="[prompts, teacher]"))
    for env in (environment(demo_engine), {}):
        outcome = charrun(spec, "--runs-dir", tmp_path / "runs", "--yes", env=env)
        assert outcome.code == 0, outcome.text
    assert len(list((tmp_path / "runs/store").glob("teacher-*"))) == 2


def test_at_a_terminal_a_no_ends_the_run_before_anything_is_paid(tmp_path: Path, demo_engine: RunningEngine) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(stages="[prompts, teacher]"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "charrun", str(spec), "--runs-dir", str(tmp_path / "runs")],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment(demo_engine)},
    )
    os.write(ours, b"n\n")
    out, _ = process.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == 130
    assert "Run it?" in out and "Traceback" not in out
    assert not (tmp_path / "runs" / "store").exists()
