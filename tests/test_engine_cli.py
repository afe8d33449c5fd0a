"""Tinker's own command line against a local engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tinker
from conftest import Outcome, RunningEngine
from peft import PeftModel
from tinker import types
from transformers import AutoModelForCausalLM

from charrun.demo import MODELS

MODEL = "charrun/demo-student-small"
Command = Callable[..., Outcome]


# Importing what the commands need takes seconds, so one process runs them one after the other.
DRIVER = """
import contextlib, io, json, sys
from tinker.cli.__main__ import main

for line in sys.stdin:
    call = json.loads(line)
    out, err, code = io.StringIO(), io.StringIO(), 0
    keep, sys.stdin, sys.argv = sys.stdin, io.StringIO(call["answer"]), ["tinker", *call["args"]]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    sys.stdin = keep
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def tinker_command(demo_engine: RunningEngine) -> Iterator[Command]:
    """Runs `tinker` with its environment alone to lead it to the engine."""
    env = {**os.environ, "TINKER_BASE_URL": demo_engine.base_url, "TINKER_API_KEY": demo_engine.api_key}
    command = [sys.executable, "-c", DRIVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None and stdout is not None

        def run(*args: str, answer: str = "") -> Outcome:
            stdin.write(json.dumps({"args": args, "answer": answer}) + "\n")
            stdin.flush()
            return Outcome(*json.loads(stdout.readline()))

        yield run
        stdin.close()


@pytest.fixture(scope="module")
def client(demo_engine: RunningEngine) -> Iterator[tinker.TrainingClient]:
    with tinker.ServiceClient(**demo_engine.address) as service:
        made = service.create_lora_training_client(MODEL, rank=4, user_metadata={"stage": "cli"}).result()
        inputs = {"target_tokens": [6, 7, 8], "weights": [1.0] * 3}
        made.forward_backward(
            [types.Datum(model_input=types.ModelInput.from_ints([5, 6, 7]), loss_fn_inputs=inputs)], "cross_entropy"
        )
        made.optim_step(types.AdamParams(learning_rate=1e-2)).result()
        yield made


def told(outcome: Outcome) -> Any:
    assert outcome.code == 0, outcome.text
    return json.loads(outcome.out)


def test_models_are_listed(tinker_command: Command) -> None:
    models = told(tinker_command("--format", "json", "model", "list"))["models"]
    assert {each["model_name"] for each in models} == set(MODELS)
    assert all(each["trainable"] and each["sampleable"] and each["max_context_length"] > 1000 for each in models)


def test_runs_are_listed_and_shown(tinker_command: Command, client: tinker.TrainingClient) -> None:
    runs = told(tinker_command("--format", "json", "run", "list", "--limit", "0"))["runs"]
    (found,) = [each for each in runs if each["training_run_id"] == client.model_id]
    shown = told(tinker_command("--format", "json", "run", "info", client.model_id))
    assert shown["user_metadata"] == found["user_metadata"] == {"stage": "cli"}
    assert (shown["base_model"], shown["lora_rank"]) == (MODEL, 4)
    table = tinker_command("run", "info", client.model_id)
    assert table.code == 0 and client.model_id in table.out.replace("\n", "")
    unknown = tinker_command("run", "info", "no-such-run")
    assert unknown.code != 0 and "is not the id of a training run" in unknown.text


def test_a_checkpoints_life(tinker_command: Command, client: tinker.TrainingClient) -> None:
    path = client.save_weights_for_sampler("life").result().path

    def shown() -> Any:
        return told(tinker_command("--format", "json", "checkpoint", "info", path))

    assert (shown()["checkpoint_id"], shown()["lora_rank"]) == ("sampler_weights/life", 4)
    listed = told(tinker_command("--format", "json", "checkpoint", "list", "--run-id", client.model_id))["checkpoints"]
    assert path in [each["tinker_path"] for each in listed]
    everything = told(tinker_command("--format", "json", "checkpoint", "list", "--limit", "0"))["checkpoints"]
    assert path in [each["tinker_path"] for each in everything]
    assert tinker_command("checkpoint", "list").code == 0
    assert tinker_command("checkpoint", "publish", path).code == 0 and shown()["public"]
    assert tinker_command("checkpoint", "unpublish", path).code == 0 and not shown()["public"]
    assert tinker_command("checkpoint", "set-ttl", path, "--ttl", "7200").code == 0 and shown()["expires_at"]
    assert tinker_command("checkpoint", "set-ttl", path, "--remove").code == 0 and not shown()["expires_at"]
    wrong = tinker_command("checkpoint", "set-ttl", path, "--ttl", "5")
    assert wrong.code != 0 and "ttl_seconds must lie between" in wrong.text
    assert tinker_command("checkpoint", "delete", path, answer="y\n").code == 0
    gone = tinker_command("checkpoint", "info", path)
    assert gone.code != 0 and "not found" in gone.text


@pytest.mark.parametrize("kind", ["weights", "external_weights"])
def test_a_checkpoint_is_downloaded_and_loads(
    tinker_command: Command, client: tinker.TrainingClient, tmp_path: Path, kind: str
) -> None:
    save = client.save_state if kind == "weights" else client.save_weights_external
    path = save("taken").result().path
    outcome = tinker_command("checkpoint", "download", path, "--output", str(tmp_path))
    assert outcome.code == 0, outcome.text
    (config,) = tmp_path.rglob("adapter_config.json")
    base = AutoModelForCausalLM.from_pretrained(MODELS[MODEL])
    PeftModel.from_pretrained(base, config.parent)
    listed = told(tinker_command("--format", "json", "checkpoint", "list", "--limit", "0"))["checkpoints"]
    assert not [each for each in listed if each["checkpoint_id"] == "external_weights/download"]


@pytest.mark.parametrize("right", [True, False])
def test_the_command_itself_wants_the_engines_key(demo_engine: RunningEngine, right: bool) -> None:
    key = demo_engine.api_key if right else "tml-wrong"
    env = {**os.environ, "TINKER_BASE_URL": demo_engine.base_url, "TINKER_API_KEY": key}
    command = [sys.executable, "-m", "tinker.cli", "model", "list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    if right:
        assert done.returncode == 0 and MODEL in done.stdout, done.stderr
    else:
        assert done.returncode != 0 and "does not hold this engine's key" in done.stderr
