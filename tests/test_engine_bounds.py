"""What a server bounds: sessions, bodies, what waits, and what nobody fetches."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import tinker
import zstandard
from served_engine import (
    NAME,
    RAW_SAMPLE,
    TOKENS,
    datum,
    open_session,
    post,
    start,
)
from tinker import types

from charrun.engine.errors import RequestRefused
from charrun.engine.futures import TicketOffice
from charrun.engine.process import EngineProcess

# Bounds


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine with little room."""
    with start(
        tmp_path_factory.mktemp("small"), max_sessions=4, max_runs=2, max_samplers=3, session_seconds=1.0
    ) as process:
        yield process


def test_the_number_of_sessions_runs_and_samplers_is_bounded(small: EngineProcess) -> None:
    session = open_session(small)
    base = {"session_id": session, "base_model": NAME}
    lora = {"lora_config": {"rank": 4}}
    for number in range(2):
        assert post(small, "create_model", {**base, **lora, "model_seq_id": number}).status_code == 200
    refused = post(small, "create_model", {**base, **lora, "model_seq_id": 2})
    assert refused.status_code == 400 and "2 training runs, as many as it may" in refused.json()["error"]
    answers = [
        post(small, "create_sampling_session", {**base, "sampling_session_seq_id": number}).status_code
        for number in range(4)
    ]
    assert answers == [200, 200, 200, 400]
    large = {"tags": [], "user_metadata": {"a": "x" * 70_000}, "sdk_version": "0"}
    assert "user_metadata holds more" in post(small, "create_session", large).json()["error"]
    more = [post(small, "create_session", {"tags": [], "user_metadata": {}, "sdk_version": "0"}) for _ in range(5)]
    assert {each.status_code for each in more} >= {400} and "open sessions" in more[-1].json()["error"]


def test_whoever_needs_room_gets_that_of_vanished_clients(
    tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    """Runners that are killed and begun again, one after the other, must never fill an engine for those after them."""
    with start(tmp_path, max_sessions=3, max_runs=2, session_seconds=600.0, pressed_seconds=1.0) as engine:
        lora = {"base_model": NAME, "lora_config": {"rank": 4}, "model_seq_id": 0}
        living, *vanished = [open_session(engine) for _ in range(3)]
        for session in (living, vanished[0]):
            assert post(engine, "create_model", {**lora, "session_id": session}).status_code == 200
        for attempt in range(3):

            def has_room() -> bool:
                assert post(engine, "session_heartbeat", {"session_id": living}).status_code == 200
                body = {"tags": [], "user_metadata": {}, "sdk_version": "0"}
                answer = post(engine, "create_session", body)
                if answer.status_code != 200:
                    assert "3 open sessions" in answer.json()["error"]
                    return False
                made = post(engine, "create_model", {**lora, "session_id": answer.json()["session_id"]})
                return made.status_code == 200

            until(has_room)
            assert attempt or post(engine, "session_heartbeat", {"session_id": vanished[0]}).status_code == 410
        assert post(engine, "session_heartbeat", {"session_id": living}).status_code == 200


def test_the_session_of_a_vanished_client_is_closed(small: EngineProcess) -> None:
    vanished = living = ""
    while not living:  # sessions of other tests go first
        answers = [post(small, "create_session", {"tags": [], "user_metadata": {}, "sdk_version": "0"}) for _ in "ab"]
        if all(each.status_code == 200 for each in answers):
            vanished, living = (str(each.json()["session_id"]) for each in answers)
    base = {"base_model": NAME, "session_id": vanished, "sampling_session_seq_id": 0}
    sampler = post(small, "create_sampling_session", base).json()["sampling_session_id"]
    params = {"max_tokens": 4000, "stop": []}
    body = {**RAW_SAMPLE, "sampling_session_id": sampler, "seq_id": 1, "num_samples": 64, "sampling_params": params}
    ticket = post(small, "asample", body).json()
    answer = None
    while answer is None or answer.status_code == 408:
        assert post(small, "session_heartbeat", {"session_id": living}).status_code == 200
        with contextlib.suppress(httpx.ReadTimeout):  # the one that lives has to give signs of life meanwhile
            answer = post(small, "retrieve_future", {"request_id": ticket["request_id"]}, timeout=0.2)
    assert "session" in answer.json()["error"] and "over" in answer.json()["error"]
    assert post(small, "session_heartbeat", {"session_id": living}).status_code == 200
    assert post(small, "session_heartbeat", {"session_id": vanished}).status_code == 410


def test_a_body_is_bounded_while_it_arrives_and_while_it_unpacks(small: EngineProcess) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(600 * 1024 * 1024))
    before = psutil.Process(small.pid).memory_info().rss
    answer = post(small, "forward_backward", content=bomb, headers={"Content-Encoding": "zstd"})
    assert answer.status_code == 413 and "unpacks to more" in answer.json()["error"]
    assert psutil.Process(small.pid).memory_info().rss - before < 500 * 1024 * 1024
    with socket.create_connection(("127.0.0.1", httpx.URL(small.base_url).port or 0)) as client:
        lines = ["POST /api/v1/asample HTTP/1.1", "Host: x", f"X-API-Key: {small.api_key}", f"Content-Length: {2**40}"]
        client.sendall("\r\n".join([*lines, "", ""]).encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(1024 * 1024)

    with contextlib.suppress(httpx.TransportError):  # it is answered and hung up on before the client has sent all
        assert post(small, "asample", content=endless()).status_code == 413
    assert post(small, "asample", content=bomb[:-2], headers={"Content-Encoding": "zstd"}).status_code in (400, 413)
    assert httpx.get(f"{small.base_url}/api/v1/healthz", headers={"X-API-Key": small.api_key}).status_code == 200


@pytest.mark.slow
def test_too_much_waiting_is_told_to_come_back_and_the_sdk_does(tmp_path: Path) -> None:
    with start(tmp_path, waiting_bytes=40_000, result_bytes=1_000_000) as engine:
        raw = {**RAW_SAMPLE, "base_model": NAME, "sampling_params": {"max_tokens": 1500, "stop": []}}
        answers = [post(engine, "asample", raw) for _ in range(60)]
        busy = [each for each in answers if each.status_code == 429]
        assert busy and {each.headers["Retry-After"] for each in busy} == {"2"}
        with tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key) as service:
            sampler = service.create_sampling_client(base_model=NAME).result()
            params = types.SamplingParams(max_tokens=20, stop=[])
            crowd = [sampler.sample(TOKENS, 1, params) for _ in range(40)]
            assert all(len(future.result().sequences[0].tokens) == 20 for future in crowd)
            trainer = service.create_lora_training_client(NAME, rank=4).result()
            steps = [trainer.forward_backward([datum(200)] * 8, "cross_entropy") for _ in range(12)]
            assert len({future.result().metrics["loss:sum"] for future in steps}) == 1


def test_results_that_nobody_fetches_are_dropped_before_they_fill_the_memory() -> None:
    async def many() -> list[str]:
        office, answers = TicketOffice(waiting_bytes=100_000, result_bytes=100_000), []
        for number in range(60):
            office.create(f"a:{number}").settle_now(bytes(10_000))
        assert office.crowded and not office.open
        for number in range(60):
            try:
                answers.append(f"{len(await office.fetch(f'a:{number}', 1) or b'')}")  # type: ignore[arg-type]
            except RequestRefused as error:
                answers.append(f"{error.status} {error.message}")
        assert not office.crowded
        return answers

    answers = asyncio.run(many())
    assert answers[0].startswith("410 ") and "was dropped" in answers[0]
    assert {answer[:5] for answer in answers} == {"410 T", "10000"} and answers[-1] == "10000"


@pytest.mark.slow
def test_samplers_in_memory_give_way_to_newer_ones(tmp_path: Path) -> None:
    with start(tmp_path, snapshot_bytes=1_000_000) as engine:
        service = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
        trainer = service.create_lora_training_client(NAME, rank=16).result()
        samplers = [trainer.save_weights_and_get_sampling_client().result() for _ in range(8)]
        assert len(samplers[-1].compute_logprobs(TOKENS).result()) == 5
        with pytest.raises(tinker.APIStatusError, match="newer ones needed it") as caught:
            samplers[0].compute_logprobs(TOKENS).result()
        assert caught.value.status_code == 410
