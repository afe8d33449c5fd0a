"""The engine as a server process: its life and death, what it keeps, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import tinker
import zstandard
from tinker import types
from tinker.proto import tinker_public_pb2 as pb

from charrun.demo import MODELS
from charrun.engine.process import EngineProcess
from charrun.engine.storage import meta_text
from charrun.errors import EnvironmentProblem

NAME = "charrun/demo-student-small"
PROMPT = types.ModelInput.from_ints([10, 20, 30, 40, 50])
PARENT = """
import json, sys, time
from pathlib import Path
from charrun.engine.process import EngineProcess
engine = EngineProcess.start({}, Path(sys.argv[1]), log=Path(sys.argv[1]) / "log", device="cpu", threads=1)
print(engine.pid, flush=True)
time.sleep(600)
"""


def start(storage: Path, **options: Any) -> EngineProcess:
    log = storage.parent / "engine.log"
    return EngineProcess.start({NAME: MODELS[NAME]}, storage, log=log, device="cpu", threads=1, **options)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    with start(tmp_path_factory.mktemp("run") / "storage") as process:
        yield process


@pytest.fixture(scope="module")
def service(engine: EngineProcess) -> Iterator[tinker.ServiceClient]:
    with tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def trainer(service: tinker.ServiceClient) -> tinker.TrainingClient:
    return service.create_lora_training_client(NAME, rank=4, seed=1, train_unembed=False).result()


@pytest.fixture(scope="module")
def sampler(service: tinker.ServiceClient) -> tinker.SamplingClient:
    return service.create_sampling_client(base_model=NAME).result()


def post(engine: EngineProcess, route: str, body: Any = None, key: str | None = None, **options: Any) -> httpx.Response:
    headers = {"X-API-Key": key or engine.api_key, **options.pop("headers", {})}
    return httpx.post(f"{engine.base_url}/api/v1/{route}", json=body, headers=headers, timeout=30, **options)


def refused(call: Callable[[], Any], words: str, status: int = 400) -> None:
    """The call fails at once with this status and these words."""
    started = time.monotonic()
    with pytest.raises(tinker.APIStatusError, match=words) as caught:
        call().result()
    assert caught.value.status_code == status
    assert time.monotonic() - started < 10


def datum(tokens: list[int], **inputs: list[float]) -> types.Datum:
    return types.Datum(model_input=types.ModelInput.from_ints(tokens), loss_fn_inputs=inputs)


def ended(pid: int, seconds: float = 10) -> bool:
    try:
        psutil.Process(pid).wait(seconds)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


# Life and death


def test_importing_the_process_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'tinker', 'peft'} & set(__import__('sys').modules)"
    done = subprocess.run(
        [sys.executable, "-c", f"import charrun.engine.process; print({heavy})"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "set()"


def test_the_engine_is_gone_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.killpg(os.getpgid(pid), signal.SIGINT)  # Ctrl-C is not the engine's to handle
    assert not ended(pid, 0.3)
    parent.kill()
    parent.wait()
    assert ended(pid)


def test_neither_the_key_nor_the_settings_show_outside(engine: EngineProcess) -> None:
    process = psutil.Process(engine.pid)
    assert process.cmdline()[1:] == ["-P", "-m", "charrun.engine"]
    shown = json.dumps([process.cmdline(), process.environ()])
    assert engine.api_key.startswith("tml-") and engine.api_key not in shown
    assert {each.laddr.ip for each in process.net_connections() if each.status == "LISTEN"} == {"127.0.0.1"}


def test_a_folder_without_a_model_is_an_environment_problem(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="is not the folder of a causal language model"):
        EngineProcess.start({"x/y": tmp_path}, tmp_path / "storage", log=tmp_path / "log", device="cpu")


@pytest.mark.slow
def test_checkpoints_outlive_the_server(tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    tokens = types.ModelInput.from_ints(list(range(20, 60)))
    with start(storage) as first:
        with tinker.ServiceClient(base_url=first.base_url, api_key=first.api_key) as service:
            client = service.create_lora_training_client(NAME, rank=4, seed=1).result()
            client.forward_backward([datum([1, 2, 3], target_tokens=[2, 3, 4])], "cross_entropy")
            client.optim_step(types.AdamParams(learning_rate=0.01)).result()
            state = client.save_state("done").result().path
            sampler = client.save_weights_for_sampler("done").result().path
            before = service.create_sampling_client(model_path=sampler).result().compute_logprobs(tokens).result()
            kept = client.save_state("kept", ttl_seconds=3600).result().path
        os.kill(first.pid, signal.SIGKILL)
        assert ended(first.pid) and not first.alive()
    final = storage / kept.removeprefix("tinker://").replace(":", "_")
    final.rename(final.parent / ".old-kept")  # as if the process had died while it replaced this one
    (final.parent / ".new-0").mkdir()
    meta = storage / state.removeprefix("tinker://").replace(":", "_") / "meta.json"
    with start(storage) as second, tinker.ServiceClient(base_url=second.base_url, api_key=second.api_key) as service:
        again = service.create_sampling_client(model_path=sampler).result().compute_logprobs(tokens).result()
        assert again == before
        assert service.create_training_client_from_state_with_optimizer(kept).result().get_info().lora_rank == 4
        rest = tinker.RestClient(base_url=second.base_url, api_key=second.api_key)
        found = {each.tinker_path for each in rest.list_user_checkpoints().result().checkpoints}
        assert found == {state, sampler, kept}
        assert rest.get_weights_info_by_tinker_path(state).result().base_model == NAME
        meta.write_text(meta_text({**json.loads(meta.read_text()), "expires": "2020-01-01T00:00:00+00:00"}))
        refused(lambda: service.create_training_client_from_state(state), "expired", 404)
        rest.delete_checkpoint_from_tinker_path(kept).result()
        refused(lambda: service.create_training_client_from_state(kept), "There is no checkpoint", 404)


# The protocol's edges


def test_a_wrong_key_is_refused(engine: EngineProcess) -> None:
    assert post(engine, "healthz", key="tml-wrong").status_code == 401
    assert post(engine, "no_such_route").status_code == 404


def test_a_repeated_request_runs_once(engine: EngineProcess, sampler: tinker.SamplingClient) -> None:
    body = {
        "sampling_session_id": sampler._sampling_session_id,
        "seq_id": 10**6,
        "num_samples": 2,
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5, 6, 7]}]},
        "sampling_params": {"max_tokens": 8},
    }
    answers = [post(engine, "asample", body).json() for _ in range(2)]
    assert answers[0] == answers[1] and len(answers[0]["sample_sequence_ids"]) == 2
    results = [post(engine, "retrieve_future", {"request_id": answers[0]["request_id"]}).content for _ in range(2)]
    assert results[0] == results[1]


def test_training_requests_run_in_the_order_of_their_numbers(
    engine: EngineProcess, service: tinker.ServiceClient
) -> None:
    client = service.create_lora_training_client(NAME, rank=4, seed=1).result()
    message = pb.ForwardBackwardRequest(model_id=client.model_id, seq_id=1, loss_fn="cross_entropy")
    row = message.data.add()
    row.model_input.add().encoded_text.tokens = np.array([1, 2, 3], np.int32).tobytes()
    row.loss_fn_inputs["target_tokens"].dense = np.array([2, 3, 4]).tobytes()
    row.loss_fn_inputs["target_tokens"].dtype = pb.DTYPE_INT64
    step = {"model_id": client.model_id, "seq_id": 2, "adam_params": {"learning_rate": 0.01}}
    late = post(engine, "optim_step", step).json()
    body = zstandard.ZstdCompressor().compress(message.SerializeToString())
    headers = {"Content-Encoding": "zstd", "Content-Type": "application/x-protobuf"}
    for _ in range(2):  # the second is a repetition: a gradient of twice the size would show
        assert post(engine, "forward_backward", content=body, headers=headers).status_code == 200
    norm = post(engine, "retrieve_future", {"request_id": late["request_id"]}).json()["metrics"]["grad_norm:mean"]
    other = service.create_lora_training_client(NAME, rank=4, seed=1).result()
    other.forward_backward([datum([1, 2, 3], target_tokens=[2, 3, 4])], "cross_entropy")
    metrics = other.optim_step(types.AdamParams(learning_rate=0.01)).result().metrics
    assert metrics is not None and norm == pytest.approx(metrics["grad_norm:mean"])


def test_wrong_requests_are_refused_with_a_sentence(
    service: tinker.ServiceClient, sampler: tinker.SamplingClient
) -> None:
    create = service.create_lora_training_client
    refused(lambda: create("no/model"), "is not served by this engine; it serves: charrun", 404)
    refused(lambda: create(NAME, rank=12), "power of two")
    refused(lambda: service.create_sampling_client(base_model="no/model"), "is not served", 404)
    missing = "tinker://00000000-0000:train:0/weights/none"
    refused(lambda: service.create_sampling_client(model_path=missing), "There is no checkpoint", 404)
    refused(lambda: service.create_training_client_from_state(missing), "There is no checkpoint", 404)
    refused(lambda: service.create_training_client_from_state("tinker://a:train:0/weights/.."), "cannot name")
    wrong: dict[str, tuple[types.SamplingParams, int]] = {
        "together they must stay within": (types.SamplingParams(max_tokens=100_000), 1),
        "temperature must be": (types.SamplingParams(max_tokens=2, temperature=-1), 1),
        "top_p must be": (types.SamplingParams(max_tokens=2, top_p=0), 1),
        "num_samples must be": (types.SamplingParams(max_tokens=2), 1000),
        "must not be empty": (types.SamplingParams(max_tokens=2, stop=[""]), 1),
    }
    for words, (params, samples) in wrong.items():
        refused(lambda p=params, n=samples: sampler.sample(PROMPT, n, p), words)  # type: ignore[misc]
    params = types.SamplingParams(max_tokens=2)
    refused(lambda: sampler.sample(types.ModelInput.from_ints([10**6]), 1, params), "not in the vocabulary")
    refused(lambda: sampler.sample(types.ModelInput.from_ints([]), 1, params), "no tokens")


def test_a_refused_gradient_takes_no_step(service: tinker.ServiceClient) -> None:
    client = service.create_lora_training_client(NAME, rank=4, seed=1).result()
    good = datum([1, 2, 3], target_tokens=[2, 3, 4])
    before = client.forward([good], "cross_entropy").result().metrics
    refused(lambda: client.forward_backward([datum([1, 2], target_tokens=[1])], "cross_entropy"), "Datum 0")
    refused(lambda: client.forward_backward([good], "stable_reinforce"), "is not offered")
    with pytest.raises(tinker.RequestFailedError, match="No step was taken") as caught:
        client.optim_step(types.AdamParams(learning_rate=1.0)).result()
    assert caught.value.category == types.RequestErrorCategory.User
    assert client.forward([good], "cross_entropy").result().metrics == before
    client.forward_backward([good], "cross_entropy")
    client.optim_step(types.AdamParams(learning_rate=0.01)).result()
    assert client.forward([good], "cross_entropy").result().metrics != before


def test_a_checkpoints_name_is_taken_once_unless_overwritten(trainer: tinker.TrainingClient) -> None:
    path = trainer.save_state("twice").result().path
    with pytest.raises(tinker.RequestFailedError, match="exists; choose another name"):
        trainer.save_state("twice").result()
    assert trainer.save_state("twice", overwrite=True).result().path == path
    refused(lambda: trainer.save_state("../escape"), "cannot name a checkpoint")
    refused(lambda: trainer.save_state("short", ttl_seconds=5), "ttl_seconds")


def test_sampling_and_training_share_the_machine(
    trainer: tinker.TrainingClient, sampler: tinker.SamplingClient
) -> None:
    params = types.SamplingParams(max_tokens=100, stop=[])
    crowd = [sampler.sample(types.ModelInput.from_ints([7, 8, number]), 16, params) for number in range(40)]
    for _ in range(3):
        trainer.forward_backward([datum([1, 2, 3], target_tokens=[2, 3, 4])], "cross_entropy")
        trainer.optim_step(types.AdamParams(learning_rate=0.0)).result()
    assert not all(future.future().done() for future in crowd)  # training did not wait for the whole queue
    assert all(len(sequence.tokens) == 100 for future in crowd for sequence in future.result().sequences)


def test_a_finished_session_is_over(engine: EngineProcess) -> None:
    service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
    client = service.create_lora_training_client(NAME, rank=4).result()
    service.close("success").result()
    answer = post(engine, "get_info", {"model_id": client.model_id})
    assert answer.status_code == 410 and "was finished" in answer.json()["error"]
