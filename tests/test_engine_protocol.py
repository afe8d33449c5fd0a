"""The protocol: the page that lists it, checkpoints and runs through the real SDK, and the store behind them."""

from __future__ import annotations

import inspect
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
import tinker
from conftest import RunningEngine
from engine_messages import MODEL, PROMPT, fresh, ints, row, section, step
from peft import PeftConfig
from tinker import types

from charrun.demo import MODELS
from charrun.engine.app import build_app, open_desk
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.process import EngineProcess
from charrun.engine.settings import EngineSettings

CLIENTS = (tinker.ServiceClient, tinker.TrainingClient, tinker.SamplingClient, tinker.RestClient)


# The page


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
def client(service: tinker.ServiceClient) -> tinker.TrainingClient:
    metadata = {"stage": "dpo"}
    trained = service.create_lora_training_client(MODEL, rank=4, seed=1, user_metadata=metadata).result()
    step(trained)
    return trained


def paths(rest: tinker.RestClient, run: str) -> list[str]:
    return [each.tinker_path for each in rest.list_checkpoints(run).result().checkpoints]


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
    service: tinker.ServiceClient, rest: tinker.RestClient, client: tinker.TrainingClient, demo_engine: RunningEngine
) -> None:
    path = client.save_weights_for_sampler(fresh()).result().path
    archive = tinker.ServiceClient(**demo_engine.address, project_id="archive")
    sampler = service.create_sampling_client(model_path=path).result()
    expected = sampler.compute_logprobs(ints(PROMPT)).result()
    copy = archive.copy_weights(path, ttl_seconds=7200).result()
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


@pytest.mark.slow
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
