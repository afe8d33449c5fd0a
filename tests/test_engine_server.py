"""The engine as a server of its own: how it is started and stopped, and what survives its death."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import psutil
import pytest
import tinker
from conftest import charrun
from safetensors import safe_open
from served_engine import (
    FOLDER,
    NAME,
    STEP,
    TOKENS,
    ask_for_much,
    datum,
    post,
    serve,
    start,
)
from tinker import types

from charrun.demo import MODELS
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.drafts import Drafts

# Starting


def test_two_variables_are_all_that_another_program_needs(tmp_path: Path) -> None:
    with serve(tmp_path, "--model", NAME, "--model", f"mine={MODELS['charrun/demo-student']}") as served:
        program = (
            "import tinker; from tinker import types; service = tinker.ServiceClient()\n"
            f"for name in ({NAME!r}, 'mine', {str(FOLDER)!r}):\n"
            "    client = service.create_sampling_client(base_model=name).result()\n"
            "    prompt = types.ModelInput.from_ints([5, 6, 7])\n"
            "    print(len(client.sample(prompt, 1, types.SamplingParams(max_tokens=4, stop=[])).result()"
            ".sequences[0].tokens))\n"
            "service.close('success').result()\n"
        )
        script = f'{served.out}\nexec {sys.executable} -c "$PROGRAM"'
        done = subprocess.run(
            ["sh", "-c", script], capture_output=True, text=True, env={**os.environ, "PROGRAM": program}
        )
        assert done.stdout.split() == ["4", "4", "4"], done.stderr
        assert served.end(signal.SIGINT) == 0
    told = served.log.read_text()
    assert NAME in told and str(FOLDER) in told and "853,056 parameters" in told
    assert served.api_key.startswith("tml-") and served.api_key not in told
    assert re.search(r"session \S+ opened", told) and re.search(r"session \S+ closed", told)


def test_the_models_that_can_be_served_by_name_are_listed() -> None:
    done = charrun("engine", "models")
    assert done.code == 0
    for name, folder in MODELS.items():
        assert re.search(rf"^{name} +[\d,]+ +[\d,]+ +{folder.resolve()}$", done.out, re.MULTILINE)


def test_asking_for_help_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'tinker', 'peft'} & set(sys.modules)"
    program = (
        f"import sys; from charrun.cli import cli; cli(['engine', 'serve', '--help'], standalone_mode=False)\n{heavy}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program + f"\nprint('heavy:', {heavy})"], capture_output=True, text=True
    )
    assert "heavy: set()" in done.stdout, done.stderr


def test_every_wrong_folder_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"max_position_embeddings": 9}')
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text('{"vocab_size": 5, "max_position_embeddings": 9}')
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    words = [word for name in ("empty", "odd", "pickled") for word in ("--model", tmp_path / name)]
    done = charrun("engine", "serve", "--port", "0", "--model", "Qwen/Qwen3-8B", *words, cwd=tmp_path)
    assert done.code == 5 and done.out == "" and "Traceback" not in done.err
    for part in ("hf download Qwen/Qwen3-8B", "it has no config.json", "lacks 'vocab_size'", "no *.safetensors"):
        assert part in done.err


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_told_before_anything_is_served(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (broken / name).write_bytes((FOLDER / name).read_bytes())
    (broken / "model.safetensors").write_bytes(b"no weights")
    done = charrun("engine", "serve", "--port", "0", "--model", broken, "--storage", tmp_path / "storage")
    assert done.code == 5 and "cannot be loaded" in done.err and "Traceback" not in done.err and done.out == ""


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = charrun("engine", "serve", "--port", str(taken.getsockname()[1]), "--storage", tmp_path)
    assert done.code == 5 and "cannot listen" in done.err and "--port 0" in done.err


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--host", "0.0.0.0"], 2, "--allow-remote"),
        (["--host", "no.such.host.invalid"], 5, "is not an address"),
        (["--no-key"], 2, "--insecure"),
        (["--model", f"a={FOLDER}", "--model", f"a={MODELS['charrun/demo-teacher']}"], 2, "two folders"),
        (["--model", f"../a={FOLDER}"], 2, "cannot name a model"),
        (["--device", "cuda"], 5, "torch sees no GPU"),
    ],
)
def test_what_is_not_meant_is_refused(args: list[str], code: int, words: str, tmp_path: Path) -> None:
    if words == "torch sees no GPU" and os.path.exists("/dev/nvidia0"):
        pytest.skip("there is a GPU here")
    done = charrun("engine", "serve", "--port", "0", "--storage", tmp_path / "storage", *args)
    assert done.code == code and words in done.err and "Traceback" not in done.err and done.out == ""


@pytest.mark.slow
def test_a_key_file_is_made_once_and_never_printed(tmp_path: Path) -> None:
    file = tmp_path / "key"
    with serve(tmp_path, "--model", NAME, "--key-file", file) as served:
        key = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert served.api_key == f'"$(cat {file.resolve()})"' and key not in served.out + served.log.read_text()
        health = f"{served.base_url}/api/v1/healthz"
        assert httpx.get(health, headers={"X-API-Key": key}).status_code == 200
        assert httpx.get(health, headers={"X-API-Key": key[:-1]}).status_code == 401
        assert httpx.get(health).status_code == 401
    file.write_text("a secret without the prefix\n")
    done = charrun("engine", "serve", "--port", "0", "--storage", tmp_path, "--key-file", file)
    assert done.code == 5 and "does not hold a key" in done.err
    env = {"CHARRUN_ENGINE_KEY": "tml-of-the-environment"}
    with serve(tmp_path, "--model", NAME, env=env) as served:
        assert served.api_key == '"$CHARRUN_ENGINE_KEY"'
        headers = {"X-API-Key": "tml-of-the-environment"}
        assert httpx.get(f"{served.base_url}/api/v1/healthz", headers=headers).status_code == 200


@pytest.mark.slow
def test_without_a_key_everyone_is_let_in_if_that_is_meant(tmp_path: Path) -> None:
    with serve(tmp_path, "--model", NAME, "--no-key", "--insecure") as served, served.connect() as service:
        assert httpx.get(f"{served.base_url}/api/v1/healthz").status_code == 200
        client = service.create_sampling_client(base_model=NAME).result()
        assert len(client.compute_logprobs(TOKENS).result()) == 5


@pytest.mark.slow
def test_a_precision_can_be_chosen(tmp_path: Path) -> None:
    with serve(tmp_path, "--model", NAME, "--dtype", "bfloat16") as served, served.connect() as service:
        rough = service.create_sampling_client(base_model=NAME).result().compute_logprobs(TOKENS).result()
    with serve(tmp_path, "--model", NAME, "--dtype", "float32") as served, served.connect() as service:
        exact = service.create_sampling_client(base_model=NAME).result().compute_logprobs(TOKENS).result()
    assert rough != exact and rough[1:] == pytest.approx(exact[1:], abs=0.3)


# Stopping


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path) -> None:
    with serve(tmp_path, "--model", NAME, "--drain", "100") as served:
        service = served.connect()
        sampler = service.create_sampling_client(base_model=NAME).result()
        trainer = service.create_lora_training_client(NAME, rank=4).result()
        params = types.SamplingParams(max_tokens=400, stop=[])
        crowd = [sampler.sample(types.ModelInput.from_ints([7, n]), 4, params) for n in range(30)]
        step = [trainer.forward_backward([datum()] * 8, "cross_entropy"), trainer.optim_step(STEP)]
        saved = trainer.save_state("last")
        step[1].result()
        served.process.send_signal(signal.SIGTERM)
        path = saved.result().path
        with pytest.raises(tinker.APIStatusError, match="takes no new work"):
            sampler.sample(TOKENS, 1, params).result()
        assert all(len(each.tokens) == 400 for future in crowd for each in future.result().sequences)
        assert served.process.wait(60) == 0
        assert "everything that was in flight is done" in served.log.read_text()
    assert CheckpointStore(tmp_path / "storage").find(path).step == 1


@pytest.mark.slow
def test_what_is_not_done_in_time_is_cut_off_and_told(tmp_path: Path) -> None:
    with serve(tmp_path, "--model", NAME, "--drain", "0.2") as served:
        tickets = [ask_for_much(served) for _ in range(3)]
        assert served.end(signal.SIGTERM) == 130
        assert f"requests that were cut off: {len(tickets)}" in served.log.read_text()


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with serve(tmp_path, "--model", NAME, "--drain", "600") as served:
        ask_for_much(served)
        served.process.send_signal(signal.SIGINT)
        while "a second signal" not in served.log.read_text():
            assert served.process.poll() is None
        assert served.end(signal.SIGINT) == 130


# Surviving


@pytest.mark.slow
def test_every_checkpoint_that_was_saved_survives_kill_9_and_no_half_one_shows(tmp_path: Path) -> None:
    rng, saved = random.Random(5), list[str]()
    for attempt in range(4):
        engine = start(tmp_path)
        service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
        trainer = service.create_lora_training_client(NAME, rank=32).result()
        killer = threading.Timer(rng.uniform(0.05, 0.6), os.kill, (engine.pid, signal.SIGKILL))
        body = {"model_id": trainer.model_id}
        killer.start()
        try:  # without the SDK: it would wait for minutes for the dead one
            for number in range(1, 10_000):
                names = {"path": f"a{number}"} if number % 2 else {"path": "same", "overwrite": True}
                ticket = post(engine, "save_weights", {**body, **names, "seq_id": number}).json()
                answer = post(engine, "retrieve_future", {"request_id": ticket["request_id"]}).json()
                saved.append(answer["path"])
        except httpx.TransportError:
            pass
        killer.join()
        psutil.wait_procs([psutil.Process(engine.pid)] if engine.alive() else [], 10)
        engine.stop()
        assert attempt == 3 or saved
    found = {each.place.path: each for each in CheckpointStore(tmp_path / "storage").all()}
    assert set(saved) <= set(found)
    for checkpoint in found.values():
        folder = CheckpointStore(tmp_path / "storage").folder(checkpoint.place)
        for name in ("adapter_model.safetensors", "optimizer.safetensors"):
            with safe_open(folder / name, framework="numpy") as tensors:
                assert len(list(tensors.keys())) > 0 or "optimizer" in name
        total = sum(each.stat().st_size for each in folder.iterdir() if each.name != "meta.json")
        assert total == checkpoint.size_bytes
    assert not list((tmp_path / "storage").glob("*/*/.*"))


def test_a_second_engine_leaves_the_drafts_of_a_living_one_alone(tmp_path: Path) -> None:
    place = tmp_path / "run" / "weights"
    place.mkdir(parents=True)
    program = (
        "import sys, time; from pathlib import Path; from charrun.engine.drafts import Drafts\n"
        f"root = Path({str(tmp_path)!r}); drafts = Drafts(root); drafts.new(root / 'run' / 'weights')\n"
        "(root / 'run' / 'weights' / 'kept').mkdir(); drafts.aside(root / 'run' / 'weights' / 'kept')\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
    Drafts(tmp_path)
    assert sorted(each.name[:5] for each in place.iterdir()) == [".new-", ".old-"]
    owner.kill()
    owner.wait()
    owner.stdout.close()
    Drafts(tmp_path)
    assert [each.name for each in place.iterdir()] == ["kept"]
