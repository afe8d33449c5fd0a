"""Wrong requests: each gets a 4xx that the SDK does not repeat, with a sentence, and never a traceback."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tinker
from conftest import RunningEngine
from engine_messages import MODEL, PROMPT, message, result, section, submit
from tinker.proto import tinker_public_pb2 as pb

JUNK: list[Any] = [None, [], {}, "x", 7, {"model_id": 3}, {"path": None}, {"session_id": "../../etc"}, {"x": "\u0000"}]
BAD_NAMES = [
    "..",
    ".",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\u0000b",
    "é",
    "a b",
    "",
    "-a",
    ".old-a",
    "x" * 200,
    "%2e%2e",
]
BAD_PATHS = [
    "tinker://",
    "tinker://a/weights",
    "tinker://a:train:0/weights/..",
    "tinker://../weights/a",
    "tinker://a:train:0/../../weights/a",
    "tinker://a:train:0/weights/a/../b",
    "tinker://a:train:0/other/a",
    "/etc/passwd",
    "file:///etc/passwd",
    "tinker://a:train:0/weights/\u0000",
    "tinker://" + "a" * 100_000,
    "tinker://a:train:0/weights/none",
]


@pytest.fixture(scope="module")
def client(service: tinker.ServiceClient) -> tinker.TrainingClient:
    return service.create_lora_training_client(MODEL, rank=4).result()


def check_refused(answer: httpx.Response, what: object = "") -> None:
    """A 4xx that the SDK does not repeat, with a sentence and without a sign of a fault."""
    assert 400 <= answer.status_code < 500 and answer.status_code not in (408, 409, 429), (what, answer.text)
    sentence = answer.json()["error"]
    assert "Traceback" not in sentence and "The engine failed" not in sentence, (what, sentence)
    assert sentence.rstrip().endswith((".", ")")) and len(sentence) < 2000, (what, sentence)


def bodies() -> list[tuple[str, str]]:
    """Every route that takes a body, with an address."""
    found = re.findall(r"^\| `(POST|PUT) (/\S+)` \|", section("Endpoints"), re.MULTILINE)
    return [(verb, path) for verb, path in found if not path.endswith(("telemetry", "client/config", "dynamic_config"))]


@pytest.mark.parametrize(("verb", "path"), bodies())
def test_junk_is_refused_with_a_sentence(http: httpx.Client, verb: str, path: str) -> None:
    address = re.sub(r"\{\w+\}", "nothing", path)
    for junk in JUNK:
        check_refused(http.request(verb, address, json=junk), junk)
    for raw in (b"", b"\xff\xfe\x00", b"{", b"[" * 100_000, b'{"a":' * 5000, b"9" * 6000, b'"\\ud800"'):
        check_refused(http.request(verb, address, content=raw), raw[:20])
    for encoding in ("zstd", "br"):
        check_refused(http.request(verb, address, content=b"\xff\xfe\x00", headers={"Content-Encoding": encoding}))


def test_a_wrong_method_or_path_is_refused_with_a_sentence(http: httpx.Client) -> None:
    for verb, path in (("GET", "asample"), ("DELETE", "checkpoints"), ("POST", "no/such"), ("GET", "../../etc/passwd")):
        check_refused(http.request(verb, f"/api/v1/{path}"), path)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_folder_is_refused(
    http: httpx.Client, client: tinker.TrainingClient, name: str
) -> None:
    for kind in ("save_weights", "save_weights_for_sampler", "save_weights_external"):
        check_refused(http.post(f"/api/v1/{kind}", json={"model_id": client.model_id, "path": name}), name)
    quoted = urllib.request.quote(name, safe="").replace(".", "%2E")
    run = urllib.request.quote(client.model_id, safe="")
    for verb, place in (
        ("DELETE", f"{run}/checkpoints/weights/{quoted}"),
        ("DELETE", f"{run}/checkpoints/{quoted}/a"),
        ("DELETE", f"{quoted}/checkpoints/weights/a"),
        ("PUT", f"{run}/checkpoints/weights/{quoted}/ttl"),
        ("POST", f"{run}/checkpoints/weights/{quoted}/publish"),
        ("GET", f"{quoted}/checkpoints"),
        ("GET", f"{run}/checkpoints/external_weights/{quoted}/external_weights_urls"),
    ):
        body = {"json": {"ttl_seconds": None}} if verb == "PUT" else {}
        check_refused(http.request(verb, f"/api/v1/training_runs/{place}", **body), place)
    check_refused(http.get(f"/files/{run}/{quoted}/adapter_config.json?expires=1&signature=0"), name)


@pytest.mark.parametrize("path", BAD_PATHS, ids=range(len(BAD_PATHS)))
def test_a_path_that_is_no_checkpoints_is_refused(http: httpx.Client, client: tinker.TrainingClient, path: str) -> None:
    session = client.model_id.partition(":train:")[0]
    sampling = {"session_id": session, "sampling_session_seq_id": 999, "model_path": path}
    loading = {"session_id": session, "model_seq_id": 999, "path": path}
    for endpoint, body in (
        ("weights_info", {"tinker_path": path}),
        ("copy_weights", {"source_path": path}),
        ("create_sampling_session", sampling),
        ("load_weights", loading),
        ("load_weights", {"model_id": client.model_id, "path": path}),
    ):
        check_refused(http.post(f"/api/v1/{endpoint}", json=body), endpoint)


UNKNOWN = ["", "nothing", "a:train:0", "a:train:" + "9" * 5000, "a:sample:\u0663", "\u0000", "x" * 10_000]


@pytest.mark.parametrize("name", UNKNOWN, ids=range(len(UNKNOWN)))
def test_an_unknown_id_is_refused(http: httpx.Client, name: str) -> None:
    for endpoint, body in (
        ("get_info", {"model_id": name}),
        ("optim_step", {"model_id": name, "adam_params": {}}),
        ("save_weights", {"model_id": name, "path": "a"}),
        ("retrieve_future", {"request_id": name}),
        ("session_heartbeat", {"session_id": name}),
        ("join_sampling_session", {"sampling_session_id": name}),
        ("create_model", {"session_id": name, "model_seq_id": 0, "base_model": MODEL, "lora_config": {"rank": 4}}),
    ):
        check_refused(http.post(f"/api/v1/{endpoint}", json=body), endpoint)
    quoted = urllib.request.quote(name[:1000] or " ", safe="")
    for place in (f"samplers/{quoted}", f"sessions/{quoted}", f"training_runs/{quoted}"):
        check_refused(http.get(f"/api/v1/{place}"), place)


SAMPLING: list[dict[str, Any]] = [
    {"num_samples": 0},
    {"num_samples": 10**30},
    {"num_samples": -1},
    {"prompt": {"chunks": []}},
    {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [-1]}]}},
    {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [10**30]}]}},
    {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [1] * 100_000}]}},
    {"prompt": {"chunks": [{"type": "image", "data": "aGk=", "format": "png"}]}},
    {"sampling_params": {"temperature": -1}},
    {"sampling_params": {"temperature": 1e308}},
    {"sampling_params": {"top_p": 0}},
    {"sampling_params": {"top_p": 1.5}},
    {"sampling_params": {"max_tokens": 0}},
    {"sampling_params": {"max_tokens": -5}},
    {"sampling_params": {"max_tokens": 10**30}},
    {"sampling_params": {"stop": [""]}},
    {"sampling_params": {"stop": ["a"] * 1000}},
    {"sampling_params": {"stop": "x" * 10_000}},
    {"sampling_params": {"top_k": "many"}},
    {"topk_prompt_logprobs": -1},
    {"topk_prompt_logprobs": 10**9},
    {"topk_sample_logprobs": 65},
    {"prompt_alt_tokens_k": -1},
    {"prompt_alt_tokens_k": 10**9},
    {"prompt_logprobs_last_n": 1},
    {"prompt_logprobs": True, "prompt_logprobs_last_n": 0},
    {"prompt_logprobs": True, "prompt_logprobs_last_n": 4},
    {"target_prompt_logprobs": {"data": [1], "dtype": "int64", "shape": [1, 1]}},
    {"target_prompt_logprobs": {"data": [1.0] * 3, "dtype": "float32", "shape": [3, 1]}},
    {"target_prompt_logprobs": {"data": [1] * 2, "dtype": "int64", "shape": [3, 1]}},
    {"target_prompt_logprobs": {"data": [-1] * 3, "dtype": "int64", "shape": [3, 1]}},
    {"target_prompt_logprobs": {"data": [-2] * 3, "dtype": "int64", "shape": [3, 1]}},
    {"target_prompt_logprobs": {"data": [10**30] * 3, "dtype": "int64", "shape": [3, 1]}},
    {"target_prompt_logprobs": {"data": [1], "dtype": "int64", "shape": [3, -1]}},
    {"target_prompt_logprobs": {"data": [1], "dtype": "int64", "shape": [3, 10**30]}},
    {
        "target_prompt_logprobs": {
            "data": [1],
            "dtype": "int64",
            "shape": [3, 1],
            "sparse_crow_indices": [0, 9, 0, 1],
            "sparse_col_indices": [0],
        }
    },
    {
        "prompt": {"chunks": [{"type": "encoded_text", "tokens": [5]}]},
        "target_prompt_logprobs": {"data": [], "dtype": "int64", "shape": [0, 1]},
    },
    {"prompt": {"chunks": [{"type": "encoded_text", "tokens": [5]}]}, "prompt_alt_tokens_k": 1},
    {"record_stability_info": True},
    {"base_model": "no/such"},
    {"base_model": None},
    {"sampling_session_id": "no-such"},
    {"unknown": 1},
]


@pytest.mark.parametrize("change", SAMPLING, ids=range(len(SAMPLING)))
def test_a_wrong_sampling_request_is_refused(http: httpx.Client, change: dict[str, Any]) -> None:
    prompt = {"chunks": [{"type": "encoded_text", "tokens": PROMPT}]}
    body = {"base_model": MODEL, "prompt": prompt, "sampling_params": {"max_tokens": 2}, **change}
    check_refused(http.post("/api/v1/asample", json=body), change)


def test_numbers_that_json_should_not_hold_are_refused(http: httpx.Client) -> None:
    for number in ("NaN", "Infinity", "-Infinity", "1e400"):
        body = (
            f'{{"base_model": "{MODEL}", "prompt": {{"chunks": [{{"type": "encoded_text", "tokens": [5]}}]}}, '
            f'"sampling_params": {{"max_tokens": 2, "temperature": {number}}}}}'
        )
        check_refused(http.post("/api/v1/asample", content=body), number)


@pytest.mark.parametrize(
    "params",
    [
        {"seed": -1},
        {"seed": 2**70},
        {"temperature": 1e-30},
        {"temperature": 1e-300},
        {"temperature": 1000},
        {"top_p": 1e-300},
        {"top_k": 10**30},
        {"top_k": -(10**30)},
        {"top_k": 0},
        {"stop": [-1, 10**12]},
    ],
)
def test_an_odd_but_right_sampling_request_is_served(http: httpx.Client, params: dict[str, Any]) -> None:
    prompt = {"chunks": [{"type": "encoded_text", "tokens": PROMPT}]}
    body = {"base_model": MODEL, "prompt": prompt, "sampling_params": {"max_tokens": 3, "stop": [], **params}}
    found = result(http, http.post("/api/v1/asample", json=body))
    assert found.headers["content-type"] == "application/x-protobuf", found.text
    (sequence,) = pb.SampleResponse.FromString(found.content).sequences
    tokens = np.frombuffer(sequence.tokens, np.int32)
    assert len(tokens) == 3 and np.isfinite(np.frombuffer(sequence.logprobs, np.float32)).all()


TRAINING: list[tuple[str, dict[str, Any]]] = [
    ("create_model", {"lora_config": None}),
    ("create_model", {"lora_config": {"rank": 3}}),
    ("create_model", {"lora_config": {"rank": 0}}),
    ("create_model", {"lora_config": {"rank": -4}}),
    ("create_model", {"lora_config": {"rank": 2**40}}),
    ("create_model", {"lora_config": {"rank": 4, "train_mlp": False, "train_attn": False, "train_unembed": False}}),
    ("create_model", {"model_seq_id": -1}),
    ("create_model", {"model_seq_id": 10**30}),
    ("create_model", {"base_model": "../../etc"}),
    ("create_model", {"optimizer_config": {"type": "dimuon"}}),
    ("create_model", {"user_metadata": {"x": "y" * 100_000}}),
    ("optim_step", {"adam_params": {"learning_rate": -1}}),
    ("optim_step", {"adam_params": {"learning_rate": 1e308}}),
    ("optim_step", {"adam_params": {"beta1": 1}}),
    ("optim_step", {"adam_params": {"beta2": -0.5}}),
    ("optim_step", {"adam_params": {"eps": -1}}),
    ("optim_step", {"adam_params": {"grad_clip_norm": 1e300}}),
    ("optim_step", {"optimizer_params": {"type": "dimuon", "learning_rate": 0.1}}),
    ("optim_step", {"seq_id": 0}),
    ("optim_step", {"seq_id": -1}),
    ("optim_step", {"seq_id": 10**30}),
    ("save_weights", {"path": None}),
    ("save_weights", {"ttl_seconds": 1}),
    ("save_weights", {"ttl_seconds": 10**30}),
    ("save_weights", {"user_metadata": {"x": "y" * 100_000}}),
    ("save_weights_for_sampler", {"path": None}),
    ("save_weights_for_sampler", {"path": None, "sampling_session_seq_id": -1}),
    ("save_weights_for_sampler", {"path": None, "kind": "other", "sampling_session_seq_id": 1}),
    ("save_weights_external", {"age_encryption_recipients": ["age1nonsense"]}),
]


@pytest.mark.parametrize(("endpoint", "change"), TRAINING, ids=range(len(TRAINING)))
def test_a_wrong_training_request_is_refused(
    http: httpx.Client, client: tinker.TrainingClient, endpoint: str, change: dict[str, Any]
) -> None:
    session = client.model_id.partition(":train:")[0]
    right = {
        "create_model": {"session_id": session, "model_seq_id": 999, "base_model": MODEL, "lora_config": {"rank": 4}},
        "optim_step": {"model_id": client.model_id, "adam_params": {}},
    }.get(endpoint, {"model_id": client.model_id, "path": "a"})
    body = {**right, **change}
    if "optimizer_params" in change:
        del body["adam_params"]
    check_refused(http.post(f"/api/v1/{endpoint}", json=body), change)


def odd(change: Callable[[pb.ForwardBackwardRequest], object]) -> pb.ForwardBackwardRequest:
    made = message("", 0, PROMPT)
    change(made)
    return made


def tensor(made: pb.ForwardBackwardRequest) -> pb.Tensor:
    return made.data[0].loss_fn_inputs["target_tokens"]


def sparse(made: pb.ForwardBackwardRequest, crow: list[int], col: list[int], shape: list[int]) -> None:
    made_tensor = tensor(made)
    made_tensor.shape.extend(shape)
    made_tensor.sparse_csr.values = np.ones(len(col), np.int64).tobytes()
    made_tensor.sparse_csr.crow_indices = np.array(crow, np.int64).tobytes()
    made_tensor.sparse_csr.col_indices = np.array(col, np.int64).tobytes()


PASSES: list[Callable[[pb.ForwardBackwardRequest], object]] = [
    lambda made: made.ClearField("data"),
    lambda made: made.data[0].ClearField("model_input"),
    lambda made: made.data[0].ClearField("loss_fn_inputs"),
    lambda made: setattr(made, "loss_fn", "\u00e9"),
    lambda made: setattr(made.data[0].model_input[0].encoded_text, "tokens", b"abc"),
    lambda made: setattr(made.data[0].model_input[0].image, "data", b"abc"),
    lambda made: setattr(tensor(made), "dense", b"abc"),
    lambda made: setattr(tensor(made), "dtype", pb.DTYPE_UNSPECIFIED),
    lambda made: setattr(tensor(made), "dtype", pb.DTYPE_BFLOAT16),
    lambda made: setattr(tensor(made), "dtype", pb.DTYPE_FLOAT32),
    lambda made: tensor(made).shape.extend([-1]),
    lambda made: tensor(made).shape.extend([2**62, 4]),
    lambda made: tensor(made).shape.extend([3, 1, 1]),
    lambda made: tensor(made).ClearField("dense"),
    lambda made: setattr(tensor(made), "dense", np.full(3, -1, np.int64).tobytes()),
    lambda made: setattr(tensor(made), "dense", np.full(3, 2**62, np.int64).tobytes()),
    lambda made: sparse(made, [0, 1, 2, 3], [0, 0, 9], [3, 1]),
    lambda made: sparse(made, [0, 3, 1, 3], [0, 0, 0], [3, 1]),
    lambda made: sparse(made, [0, 1], [0], [3, 1]),
    lambda made: sparse(made, [0, 1, 2, 3], [0, 0, 0], [3, 2**40]),
    lambda made: sparse(made, [0, 1, 2, 3], [0, 0, 0], []),
]


@pytest.mark.parametrize("number", range(len(PASSES)))
def test_a_wrong_pass_is_refused_and_the_next_step_too(
    http: httpx.Client, service: tinker.ServiceClient, spoiled: tuple[str, Iterator[int]], number: int
) -> None:
    made = odd(PASSES[number])
    made.model_id, made.seq_id = spoiled[0], next(spoiled[1])
    check_refused(submit(http, made), number)
    adam = {"model_id": made.model_id, "seq_id": next(spoiled[1]), "adam_params": {}}
    found = result(http, http.post("/api/v1/optim_step", json=adam)).json()
    assert found["category"] == "user" and "No step was taken" in found["error"]


@pytest.fixture(scope="module")
def spoiled(service: tinker.ServiceClient) -> tuple[str, Iterator[int]]:
    """A run and the numbers of its requests."""
    return service.create_lora_training_client(MODEL, rank=2).result().model_id, iter(range(1, 10_000))


def test_wrong_pages_are_refused(http: httpx.Client) -> None:
    for query in ("limit=-1", "limit=x", "offset=" + "9" * 5000, "limit=\u0663", "limit=1e3", "offset="):
        for place in ("checkpoints", "training_runs", "sessions"):
            check_refused(http.get(f"/api/v1/{place}?{query}"), query)
    check_refused(http.get("/api/v1/training_runs?access_scope=all"))
    check_refused(http.get("/api/v1/training_runs?project_id=mine"))


def test_what_the_page_calls_refused_is_refused_through_the_sdk(
    demo_engine: RunningEngine, client: tinker.TrainingClient
) -> None:
    rest = tinker.RestClient(**demo_engine.address)
    session = client.model_id.partition(":train:")[0]
    with pytest.raises(tinker.BadRequestError, match="no trace"):
        rest.export_session_trace(session).result()
    with pytest.raises(tinker.BadRequestError, match="no projects"):
        rest.assign_session_project(session, "p").result()
    with pytest.raises(RuntimeError, match="JWT"):
        rest.whoami().result()
