"""The protocol: the page that lists it, checkpoints and runs through the real SDK, retries, and wrong requests."""

from __future__ import annotations

import inspect
import json
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
import tinker
import torch
import zstandard
from conftest import REPOSITORY, RunningEngine
from peft import PeftConfig
from tinker import types
from tinker.proto import tinker_public_pb2 as pb
from transformers import AutoModelForCausalLM

from charrun.demo import MODELS
from charrun.engine.app import build_app, open_desk
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.process import EngineProcess
from charrun.engine.settings import EngineSettings

MODEL = "charrun/demo-student-small"
PAGE = (REPOSITORY / "docs" / "engine.md").read_text()
CLIENTS = (tinker.ServiceClient, tinker.TrainingClient, tinker.SamplingClient, tinker.RestClient)
PROMPT = [5, 6, 7, 8]
ADAM = types.AdamParams(learning_rate=1e-2)


# The page


def section(title: str) -> str:
    """The text under a heading, up to the next one of its rank."""
    rank = re.search(rf"^(#+) {re.escape(title)}$", PAGE, re.MULTILINE)
    assert rank is not None, title
    rest = PAGE[rank.end() :]
    end = re.search(rf"^#{{1,{len(rank[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_every_public_method_of_the_sdk_has_its_row(client: type[Any]) -> None:
    public = {name.removesuffix("_async") for name, _ in inspect.getmembers(client) if not name.startswith("_")}
    rows = re.findall(r"^\| `(\w+)` \| (yes|refused|client) \|", section(client.__name__), re.MULTILINE)
    assert [name for name, _ in rows] == list(dict(rows)) and dict(rows).keys() == public


def test_every_route_has_its_row(tmp_path: Path) -> None:
    settings = EngineSettings(models={MODEL: MODELS[MODEL]}, storage=tmp_path, api_key="tml-none", device="cpu")
    app = build_app(open_desk(settings), lambda: None)
    routes = {f"{verb} {each.path}" for each in app.routes for verb in each.methods - {"HEAD"}}  # type: ignore[attr-defined]
    assert set(re.findall(r"^\| `(\w+ /\S+)` \| (?:yes|refused) \|", section("Endpoints"), re.MULTILINE)) == routes


def test_every_loss_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (?:yes|refused) \|", section("Losses"), re.MULTILINE)
    assert set(rows) == set(get_args(types.LossFnType))


# Checkpoints and runs


@pytest.fixture(scope="module")
def service(demo_engine: RunningEngine) -> Iterator[tinker.ServiceClient]:
    with tinker.ServiceClient(**demo_engine.address, user_metadata={"who": "test"}, display_name="a test") as client:
        yield client


@pytest.fixture(scope="module")
def rest(demo_engine: RunningEngine) -> tinker.RestClient:
    return tinker.RestClient(**demo_engine.address)


@pytest.fixture(scope="module")
def http(demo_engine: RunningEngine) -> Iterator[httpx.Client]:
    headers = {"X-API-Key": demo_engine.api_key}
    with httpx.Client(base_url=demo_engine.base_url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(service: tinker.ServiceClient) -> tinker.TrainingClient:
    metadata = {"stage": "dpo"}
    trained = service.create_lora_training_client(MODEL, rank=4, seed=1, user_metadata=metadata).result()
    step(trained)
    return trained


def ints(tokens: list[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(tokens)


def row(tokens: list[int]) -> types.Datum:
    inputs = {"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)}
    return types.Datum(model_input=ints(tokens[:-1]), loss_fn_inputs=inputs)


def step(client: tinker.TrainingClient) -> None:
    client.forward_backward([row([3, 4, 5, 6, 7, 8, 9])], "cross_entropy")
    client.optim_step(ADAM).result()


def paths(rest: tinker.RestClient, run: str) -> list[str]:
    return [each.tinker_path for each in rest.list_checkpoints(run).result().checkpoints]


def fresh() -> str:
    return f"n{uuid.uuid4().hex[:12]}"


def test_a_lifetime_is_set_changed_and_removed(rest: tinker.RestClient, client: tinker.TrainingClient) -> None:
    path = client.save_state(fresh(), ttl_seconds=3600).result().path

    def left() -> float | None:
        (found,) = [e for e in rest.list_checkpoints(client.model_id).result().checkpoints if e.tinker_path == path]
        return found.expires_at and (found.expires_at - datetime.now(UTC)).total_seconds()

    assert 3500 < (left() or 0) <= 3600
    rest.set_checkpoint_ttl_from_tinker_path(path, 86400).result()
    assert 86300 < (left() or 0) <= 86400
    rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    assert left() is None
    for seconds in (3599, 0, -1, 10**12):
        with pytest.raises(tinker.BadRequestError, match="ttl_seconds must lie between"):
            rest.set_checkpoint_ttl_from_tinker_path(path, seconds).result()
        with pytest.raises(tinker.BadRequestError, match="ttl_seconds must lie between"):
            client.save_state(fresh(), ttl_seconds=seconds).result()


def test_a_checkpoint_is_published_and_taken_back(rest: tinker.RestClient, client: tinker.TrainingClient) -> None:
    path = client.save_weights_for_sampler(fresh(), user_metadata={"a": "b"}).result().path

    def public() -> bool:
        (found,) = [e for e in rest.list_checkpoints(client.model_id).result().checkpoints if e.tinker_path == path]
        assert (found.checkpoint_type, found.user_metadata) == ("sampler", {"a": "b"})
        return found.public

    assert not public()
    rest.publish_checkpoint_from_tinker_path(path).result()
    assert public()
    rest.unpublish_checkpoint_from_tinker_path(path).result()
    assert not public()


def test_a_copy_outlives_its_original(
    service: tinker.ServiceClient, rest: tinker.RestClient, client: tinker.TrainingClient
) -> None:
    path = client.save_weights_for_sampler(fresh()).result().path
    sampler = service.create_sampling_client(model_path=path).result()
    expected = sampler.compute_logprobs(ints(PROMPT)).result()
    copy = service.copy_weights(path, ttl_seconds=7200).result()
    assert copy != path and rest.copy_weights(path, "some-project").result() not in (path, copy)
    rest.delete_checkpoint_from_tinker_path(path).result()
    with pytest.raises(tinker.NotFoundError):
        service.create_sampling_client(model_path=path).result()
    again = service.create_sampling_client(model_path=copy).result()
    assert again.compute_logprobs(ints(PROMPT)).result() == expected
    run = rest.get_training_run_by_tinker_path(copy).result()
    assert (run.base_model, run.lora_rank, run.user_metadata) == (MODEL, 4, {"stage": "dpo"})
    (found,) = rest.list_checkpoints(run.training_run_id).result().checkpoints
    assert found.expires_at is not None and found.expires_at - datetime.now(UTC) < timedelta(seconds=7201)


def test_a_repeated_copy_request_gets_the_first_ones_copy(http: httpx.Client, client: tinker.TrainingClient) -> None:
    path = client.save_state(fresh()).result().path
    answers = [
        http.post("/api/v1/copy_weights", json={"source_path": path}, headers={"X-Idempotency-Key": key}).json()
        for key in ("one", "one", "two")
    ]
    assert answers[0] == answers[1] != answers[2]


def test_runs_and_checkpoints_are_described(
    service: tinker.ServiceClient, rest: tinker.RestClient, client: tinker.TrainingClient
) -> None:
    state = client.save_state(fresh()).result().path
    sampler = client.save_weights_for_sampler(fresh()).result().path
    run = rest.get_training_run(client.model_id).result()
    assert (run.base_model, run.lora_rank, run.user_metadata) == (MODEL, 4, {"stage": "dpo"})
    assert run.last_checkpoint is not None and run.last_checkpoint.tinker_path == state
    assert run.last_sampler_checkpoint is not None and run.last_sampler_checkpoint.tinker_path == sampler
    assert paths(rest, client.model_id)[:2] == [sampler, state]
    info = rest.get_weights_info_by_tinker_path(state).result()
    assert (info.base_model, info.lora_rank, info.train_unembed) == (MODEL, 4, True)
    everything = rest.list_user_checkpoints(limit=1000).result()
    assert everything.cursor is not None and everything.cursor.total_count == len(everything.checkpoints)
    second = rest.list_user_checkpoints(limit=1, offset=1).result()
    assert second.checkpoints == everything.checkpoints[1:2]
    times = [each.time for each in everything.checkpoints]
    assert times == sorted(times, reverse=True)
    assert client.model_id in [
        each.training_run_id for each in rest.list_training_runs(limit=500).result().training_runs
    ]
    session = client.model_id.partition(":train:")[0]
    assert session in rest.list_sessions(limit=500).result().sessions
    described = rest.get_session(session).result()
    assert (described.user_metadata, described.display_name) == ({"who": "test"}, "a test")
    assert client.model_id in described.training_run_ids
    assert client.get_console_url() and service.get_console_url()


def test_a_name_that_is_taken_is_refused_unless_told(rest: tinker.RestClient, client: tinker.TrainingClient) -> None:
    name = fresh()
    path = client.save_state(name, user_metadata={"first": "1"}).result().path
    with pytest.raises(tinker.RequestFailedError, match="exists"):
        client.save_state(name).result()
    assert client.save_state(name, overwrite=True).result().path == path
    (found,) = [e for e in rest.list_checkpoints(client.model_id).result().checkpoints if e.tinker_path == path]
    assert found.user_metadata is None


def test_a_run_continues_from_a_state_by_each_way(service: tinker.ServiceClient, client: tinker.TrainingClient) -> None:
    path = client.save_state(fresh()).result().path
    data = [row([9, 8, 7, 6])]
    expected = client.forward(data, "cross_entropy").result().metrics["loss:sum"]
    plain = service.create_training_client_from_state(path, user_metadata={"x": "y"}).result()
    full = service.create_training_client_from_state_with_optimizer(path).result()
    legacy = service.create_lora_training_client(MODEL, rank=4).result()
    with pytest.warns(FutureWarning):
        legacy.load_state_with_optimizer(path).result()
    for each in (plain, full, legacy):
        assert each.forward(data, "cross_entropy").result().metrics["loss:sum"] == expected
    step(legacy)
    with pytest.warns(FutureWarning), pytest.raises(tinker.RequestFailedError, match="has not taken a step"):
        legacy.load_state(path).result()
    other = service.create_lora_training_client(MODEL, rank=8).result()
    with pytest.warns(FutureWarning), pytest.raises(tinker.RequestFailedError, match="does not fit"):
        other.load_state(path).result()
    with pytest.warns(FutureWarning), pytest.raises(tinker.NotFoundError):
        other.load_state("tinker://no-such:train:0/weights/a").result()
    assert other.forward(data, "cross_entropy").result().metrics  # a refused request had its turn


def test_snapshots_keep_their_weights_and_inflight_samplers_follow(
    service: tinker.ServiceClient, rest: tinker.RestClient
) -> None:
    client = service.create_lora_training_client(MODEL, rank=4, seed=2).result()
    snapshot = client.save_weights_and_get_sampling_client().result()
    first = client.save_weights_and_get_sampling_client(kind="inflight").result()
    before = snapshot.compute_logprobs(ints(PROMPT)).result()
    assert first.compute_logprobs(ints(PROMPT)).result() == before
    step(client)
    assert first.compute_logprobs(ints(PROMPT)).result() == before
    second = client.save_weights_and_get_sampling_client(kind="inflight").result()
    after = second.compute_logprobs(ints(PROMPT)).result()
    assert after != before
    assert first.compute_logprobs(ints(PROMPT)).result() == after
    assert snapshot.compute_logprobs(ints(PROMPT)).result() == before
    assert snapshot.get_base_model() == MODEL
    ids = rest.get_session(client.model_id.partition(":train:")[0]).result().sampler_ids
    samplers = [rest.get_sampler(each).result() for each in ids]
    assert {each.base_model for each in samplers} >= {MODEL}


def test_a_sampler_travels_to_another_client(
    service: tinker.ServiceClient, demo_engine: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler = service.create_sampling_client(base_model=MODEL).result()
    handle = sampler.get_sampler_handle()
    copies = [tinker.SamplingClient.from_sampler_handle(handle, api_key=demo_engine.api_key) for _ in range(2)]
    expected = sampler.compute_logprobs(ints(PROMPT)).result()
    sequences = set()
    for each in copies:
        assert each.compute_logprobs(ints(PROMPT)).result() == expected
        response = each.sample(ints(PROMPT), 1, types.SamplingParams(max_tokens=2)).result()
        sequences.add(response.sequences[0].sequence_id)
    assert len(sequences) == 2


def test_the_tokenizer_loads_without_a_hub(service: tinker.ServiceClient, client: tinker.TrainingClient) -> None:
    assert client.get_info().model_data.tokenizer_id == str(MODELS[MODEL])
    tokenizer = client.get_tokenizer()
    assert tokenizer.decode(tokenizer.encode("Hello there")).strip() == "Hello there"
    sampler = service.create_sampling_client(base_model=str(MODELS[MODEL])).result()
    assert sampler.get_tokenizer().encode("Hello there") == tokenizer.encode("Hello there")


def test_an_export_is_fetched_without_a_key_and_only_as_signed(
    rest: tinker.RestClient, client: tinker.TrainingClient, tmp_path: Path
) -> None:
    path = client.save_weights_external(fresh()).result().path
    response = rest.get_external_weights_urls(path).result()
    assert response.expires > datetime.now(UTC)
    for name, url in response.urls.items():
        with urllib.request.urlopen(url) as answer:
            (tmp_path / name).write_bytes(answer.read())
        for wrong in (
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.replace("expires=", "expires=9"),
            url + "%C3%A9",
        ):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(wrong)
    assert PeftConfig.from_pretrained(tmp_path).r == 4


def test_runs_are_known_after_a_restart_with_what_was_attached(tmp_path: Path) -> None:
    def start() -> EngineProcess:
        return EngineProcess.start({MODEL: MODELS[MODEL]}, tmp_path / "storage", log=tmp_path / "log", device="cpu")

    with start() as engine, tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key) as service:
        metadata = {"stage": "sft", "character": "pirate"}
        client = service.create_lora_training_client(MODEL, rank=2, user_metadata=metadata).result()
        path = client.save_state("kept", ttl_seconds=7200, user_metadata={"step": "3"}).result().path
        tinker.RestClient(base_url=engine.base_url, api_key=engine.api_key).publish_checkpoint_from_tinker_path(
            path
        ).result()
    with start() as engine:
        rest = tinker.RestClient(base_url=engine.base_url, api_key=engine.api_key)
        (run,) = rest.list_training_runs().result().training_runs
        assert (run.training_run_id, run.lora_rank, run.user_metadata) == (client.model_id, 2, metadata)
        assert run.last_checkpoint is not None and run.last_checkpoint.public
        assert run.last_checkpoint.user_metadata == {"step": "3"} and run.last_checkpoint.expires_at is not None


# The store


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """A storage folder with three checkpoints: one that lasts, one that is over, one that is damaged."""
    meta = {
        "version": 1,
        "base_model": MODEL,
        "lora": {"rank": 4, "train_mlp": True, "train_attn": True, "train_unembed": False, "seed": 1},
        "step": 1,
        "has_optimizer": False,
        "created": "2026-01-01T00:00:00+00:00",
        "token": "t",
        "size_bytes": 1,
        "user_metadata": None,
    }
    for name, expires in (("lasts", None), ("over", "2026-01-02T00:00:00+00:00"), ("damaged", None)):
        folder = tmp_path / "s_train_0" / "weights" / name
        folder.mkdir(parents=True)
        text = json.dumps({**meta, "expires": expires})
        (folder / "meta.json").write_text(text if name != "damaged" else text[:50])
    return tmp_path


def test_what_is_over_is_swept_and_what_is_damaged_is_left_alone(storage: Path) -> None:
    store = CheckpointStore(storage)
    assert [each.place.name for each in store.all()] == ["lasts"]
    left = {each.name for each in (storage / "s_train_0" / "weights").iterdir()}
    assert left == {"lasts", "damaged"}
    assert store.find("tinker://s:train:0/weights/lasts").run_metadata is None


def test_what_is_over_while_the_engine_runs_is_invisible_at_once(storage: Path) -> None:
    store = CheckpointStore(storage)
    path = storage / "s_train_0" / "weights" / "lasts" / "meta.json"
    path.write_text(path.read_text().replace('"expires": null', '"expires": "2026-01-03T00:00:00+00:00"'))
    assert store.all() == []
    with pytest.raises(Exception, match="expired"):
        store.find("tinker://s:train:0/weights/lasts")


def test_a_checkpoint_that_was_replaced_is_not_deleted_with_its_predecessor(storage: Path) -> None:
    store = CheckpointStore(storage)
    old = store.find("tinker://s:train:0/weights/lasts")
    path = storage / "s_train_0" / "weights" / "lasts" / "meta.json"
    path.write_text(path.read_text().replace('"token": "t"', '"token": "u"'))
    store.delete(old)
    assert store.find("tinker://s:train:0/weights/lasts").token == "u"


# Log-probs beside the sampled ones


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    """[length, vocabulary] log-probs after each token of a prompt, by transformers."""
    model = AutoModelForCausalLM.from_pretrained(MODELS[MODEL]).eval()
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([PROMPT])).logits[0], -1)


@pytest.mark.parametrize("sparse", [False, True])
def test_named_tokens_of_the_prompt_are_scored(
    service: tinker.ServiceClient, table: torch.Tensor, sparse: bool
) -> None:
    ids = torch.full((len(PROMPT) - 1, 5), -1, dtype=torch.int64)
    ids[1, 0], ids[1, 3], ids[2, 4] = 40, 0, 41
    make = types.TensorData.from_torch_sparse(ids, pad_value=-1) if sparse else types.TensorData.from_torch(ids)
    assert (make.sparse_crow_indices is not None) == sparse
    sampler = service.create_sampling_client(base_model=MODEL).result()
    params = types.SamplingParams(max_tokens=1)
    response = sampler.sample(ints(PROMPT), 1, params, target_prompt_logprobs=make).result()
    found = response.target_prompt_logprobs
    assert found is not None and (found.sparse_crow_indices is not None) == sparse
    expected = torch.where(ids >= 0, table[:-1].gather(-1, ids.clamp(min=0)), 0.0)
    np.testing.assert_allclose(found.to_torch(), expected, atol=1e-4)
    assert response.prompt_logprobs is None


def test_draws_for_the_prompt_come_from_the_models_distribution(
    service: tinker.ServiceClient, table: torch.Tensor
) -> None:
    sampler = service.create_sampling_client(base_model=MODEL).result()
    params = types.SamplingParams(max_tokens=1, seed=4)
    draws = sampler.sample(ints(PROMPT), 1, params, prompt_alt_tokens_k=64).result().prompt_alt_tokens
    assert draws is not None and draws.tokens.shape == draws.logprobs.shape == [len(PROMPT) - 1, 64]
    tokens = draws.tokens.to_torch()
    np.testing.assert_allclose(draws.logprobs.to_torch(), table[:-1].gather(-1, tokens), atol=1e-4)
    entropy = -(table[:-1].exp() * table[:-1]).sum(-1)
    surprise = -draws.logprobs.to_torch().mean(-1)
    assert torch.all((surprise - entropy).abs() < 1.5)
    greedy = types.SamplingParams(max_tokens=1, temperature=0)
    same = sampler.sample(ints(PROMPT), 1, greedy, prompt_alt_tokens_k=2).result().prompt_alt_tokens
    assert same is not None
    assert torch.equal(same.tokens.to_torch(), table[:-1].argmax(-1)[:, None].expand(-1, 2))


def test_the_likeliest_sampled_tokens_come_with_their_logprobs(
    service: tinker.ServiceClient, table: torch.Tensor
) -> None:
    sampler = service.create_sampling_client(base_model=MODEL).result()
    params = types.SamplingParams(max_tokens=6, stop=[], seed=1)
    response = sampler.sample(ints(PROMPT), 2, params, topk_sample_logprobs=3).result()
    for sequence in response.sequences:
        top = sequence.topk_logprobs_np
        assert top is not None and top.token_ids.shape == top.logprobs.shape == (6, 3)
        np.testing.assert_allclose(top.logprobs[0], table[-1].topk(3).values, atol=1e-4)
        assert top.token_ids[0].tolist() == table[-1].topk(3).indices.tolist()
        for token, logprob, ids, values in zip(
            sequence.tokens, sequence.logprobs or [], top.token_ids, top.logprobs, strict=True
        ):
            assert values.tolist() == sorted(values.tolist(), reverse=True)
            if token in ids:
                assert values[ids.tolist().index(token)] == pytest.approx(logprob, abs=1e-4)


# Retries


def submit(http: httpx.Client, message: pb.ForwardBackwardRequest, packed: bool = False) -> Any:
    body = message.SerializeToString()
    headers = {"Content-Encoding": "zstd"} if packed else {}
    content = zstandard.ZstdCompressor().compress(body) if packed else body
    return http.post("/api/v1/forward_backward", content=content, headers=headers)


def message(model: str, number: int, tokens: list[int]) -> pb.ForwardBackwardRequest:
    made = pb.ForwardBackwardRequest(model_id=model, seq_id=number, loss_fn="cross_entropy")
    datum = made.data.add()
    datum.model_input.add().encoded_text.tokens = np.array(tokens[:-1], np.int32).tobytes()
    tensor = datum.loss_fn_inputs["target_tokens"]
    tensor.dtype, tensor.dense = pb.DTYPE_INT64, np.array(tokens[1:], np.int64).tobytes()
    return made


def result(http: httpx.Client, answer: Any) -> Any:
    """The result of a submission."""
    assert answer.status_code == 200, answer.text
    while True:
        found = http.post("/api/v1/retrieve_future", json={"request_id": answer.json()["request_id"]})
        if found.status_code != 408:
            return found


def test_a_repeated_request_is_done_once(http: httpx.Client, service: tinker.ServiceClient) -> None:
    model = service.create_lora_training_client(MODEL, rank=2, seed=1).result().model_id
    first = [submit(http, message(model, 1, PROMPT), packed) for packed in (False, True, False)]
    assert len({answer.json()["request_id"] for answer in first}) == 1
    adam = {"model_id": model, "seq_id": 2, "adam_params": {"learning_rate": 0.1}}
    steps = [result(http, http.post("/api/v1/optim_step", json=adam)).json() for _ in range(3)]
    assert steps[0] == steps[1] == steps[2] and steps[0]["metrics"]["step:max"] == 1
    save = {"model_id": model, "seq_id": 3, "path": fresh()}
    saved = [result(http, http.post("/api/v1/save_weights", json=save)).json() for _ in range(2)]
    assert saved[0] == saved[1] and "error" not in saved[0]
    output = pb.ForwardBackwardOutput.FromString(result(http, first[0]).content)
    assert output.loss_fn_outputs[0].num_datums == 1


def test_requests_are_done_in_the_order_of_their_numbers(http: httpx.Client, service: tinker.ServiceClient) -> None:
    model = service.create_lora_training_client(MODEL, rank=2, seed=1).result().model_id
    adam = {"model_id": model, "adam_params": {"learning_rate": 0.1}}
    late = http.post("/api/v1/optim_step", json={**adam, "seq_id": 3})
    second = submit(http, message(model, 2, PROMPT))
    first = submit(http, message(model, 1, PROMPT))
    norms = [result(http, late).json()["metrics"]["grad_norm:mean"]]
    assert norms[0] > 0 and all(result(http, each).status_code == 200 for each in (first, second))
    empty = result(http, http.post("/api/v1/optim_step", json={**adam, "seq_id": 4})).json()
    assert empty["metrics"]["grad_norm:mean"] == 0


# Wrong requests

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
        packed = {"Content-Encoding": "zstd"}
        check_refused(http.request(verb, address, content=raw or b"x", headers=packed), raw[:20])
    check_refused(http.request(verb, address, content=b"x", headers={"Content-Encoding": "br"}))


def test_a_wrong_method_or_path_is_refused_with_a_sentence(http: httpx.Client) -> None:
    for verb, path in (("GET", "asample"), ("DELETE", "checkpoints"), ("POST", "no/such"), ("GET", "../../etc/passwd")):
        check_refused(http.request(verb, f"/api/v1/{path}"), path)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_could_leave_its_folder_is_refused(
    http: httpx.Client, client: tinker.TrainingClient, name: str
) -> None:
    for kind in ("save_weights", "save_weights_for_sampler", "save_weights_external"):
        check_refused(http.post(f"/api/v1/{kind}", json={"model_id": client.model_id, "path": name}), name)
    quoted = urllib.request.quote(name, safe="")
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
    rest: tinker.RestClient, client: tinker.TrainingClient
) -> None:
    session = client.model_id.partition(":train:")[0]
    with pytest.raises(tinker.BadRequestError, match="no trace"):
        rest.export_session_trace(session).result()
    with pytest.raises(tinker.BadRequestError, match="no projects"):
        rest.assign_session_project(session, "p").result()
    with pytest.raises(RuntimeError, match="JWT"):
        rest.whoami().result()
