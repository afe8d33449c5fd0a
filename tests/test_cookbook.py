"""What tinker-cookbook asks of the engine beyond training; its loops themselves run in benchmarks/cookbook/run.py."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest
import tinker
from conftest import RunningEngine
from safetensors.torch import load

from charrun.demo import MODELS

pyrage = pytest.importorskip("pyrage")
FILES = {"adapter_config.json.age", "adapter_model.safetensors.age"}


@pytest.fixture(scope="module")
def training(service: tinker.ServiceClient) -> tinker.TrainingClient:
    folder = MODELS["charrun/demo-student-small"].resolve()
    return service.create_lora_training_client(str(folder), rank=4).result()


def exported(address: dict[str, str], path: str) -> dict[str, bytes]:
    """Every file of an external checkpoint, by its signed address."""
    urls = tinker.RestClient(**address).get_external_weights_urls(path).result().urls
    files = {}
    for name, url in urls.items():
        with urllib.request.urlopen(url) as answer:
            files[name] = answer.read()
    return files


def test_a_model_named_by_its_folder_has_a_tokenizer_that_loads_without_a_hub(training: tinker.TrainingClient) -> None:
    data = training.get_info().model_data
    assert data.tokenizer_id is not None
    assert Path(data.tokenizer_id).samefile(MODELS["charrun/demo-student-small"])
    tokenizer = training.get_tokenizer()
    assert tokenizer.decode(tokenizer.encode("Good morning!")) == "Good morning!"


def test_an_encrypted_export_of_a_training_checkpoint_is_read_by_each_recipient_alone(
    demo_engine: RunningEngine, service: tinker.ServiceClient, training: tinker.TrainingClient
) -> None:
    state = training.save_state("kept").result().path
    again = service.create_training_client_from_state(state).result()
    plain = exported(demo_engine.address, again.save_weights_external("plain").result().path)
    first, second, stranger = (pyrage.x25519.Identity.generate() for _ in range(3))
    recipients = [str(each.to_public()) for each in (first, second)]
    path = again.save_weights_external("secret", ttl_seconds=3600, age_encryption_recipients=recipients).result().path
    secret = exported(demo_engine.address, path)
    assert set(secret) == FILES
    for identity in (first, second):
        opened = {name.removesuffix(".age"): pyrage.decrypt(body, [identity]) for name, body in secret.items()}
        assert opened == plain
    assert json.loads(plain["adapter_config.json"])["r"] == 4
    assert load(plain["adapter_model.safetensors"])
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(secret["adapter_model.safetensors.age"], [stranger])


def test_a_recipient_that_is_none_is_refused_and_nothing_is_saved(
    demo_engine: RunningEngine, service: tinker.ServiceClient
) -> None:
    run = service.create_lora_training_client(str(MODELS["charrun/demo-student-small"].resolve()), rank=4).result()
    with pytest.raises(tinker.BadRequestError, match="not an age recipient"):
        run.save_weights_external("broken", age_encryption_recipients=["age1nobody"]).result()
    kept = tinker.RestClient(**demo_engine.address).list_checkpoints(run.model_id).result().checkpoints
    assert kept == []
