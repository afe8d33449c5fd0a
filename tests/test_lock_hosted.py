"""What a lock says of a hosted service, which is asked for what costs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import RunningEngine
from locked import LOCK, edit, fill, lines, replace
from run_copies import Call, caller

from charrun.commands.loading import load
from charrun.demo import MODELS
from charrun.pipeline import lock_models
from charrun.pipeline.choice import choose
from charrun.pipeline.lockfile import lock_entries
from charrun.pipeline.run import plan_cells
from charrun.store.files import make_folder

HOSTED = """
version: 1
name: hosted
seed: 7
engine: tinker
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: {name: charrun/demo-student, chat: {enable_thinking: false}}}]
scales: [smoke]
stages: [prompts, teacher]
"""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """A command in a folder with a spec that brings along a character, a model, prompts and a template."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return caller(capsys, monkeypatch)


@pytest.fixture
def hosted(call: Call, demo_engine: RunningEngine, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The same, with a spec for a service that answers."""
    Path("mine.yaml").write_text(HOSTED)
    monkeypatch.setenv("TINKER_API_KEY", demo_engine.api_key)
    monkeypatch.setenv("TINKER_BASE_URL", demo_engine.base_url)
    return call


def test_a_service_is_asked_for_what_its_models_can_do(hosted: Call) -> None:
    assert hosted("lock", "mine.yaml").out == f"wrote {LOCK}\n"
    student = json.loads(Path(LOCK).read_text())["models"]["demo-student"]["student"]
    assert student["trainable"] is True and student["sampleable"] is True
    local = lock_models.folder_facts("student", MODELS["charrun/demo-student"])
    assert student["identity"].startswith("tinker:charrun/demo-student") and local.items() <= student.items()
    assert hosted("plan", "mine.yaml", "--locked").code == 0
    edit(LOCK, lambda lock: lock["models"]["demo-student"]["student"].update(trainable=False, context_length=128))
    refused = hosted("lock", "mine.yaml", "--check", "--set", "seed=8")
    assert {
        "models.demo-student.student.context_length: locked 128, now 4096",
        "models.demo-student.student.trainable: locked false, now true",
        "seeds: locked [7], now [8]",
    } <= set(lines(refused.err))
    assert not Path("runs").exists()


def test_a_run_keeps_what_an_earlier_one_heard_of_hosted_models(hosted: Call, tmp_path: Path) -> None:
    hosted("lock", "mine.yaml")
    locked = json.loads(Path(LOCK).read_text())
    loaded = load("mine.yaml", plugins=False)
    choice = choose(loaded.spec, loaded.registry)
    shared = plan_cells(choice, loaded.registry, tmp_path / "runs")[0].shared
    assert "tokenizer_sha256" not in lock_entries(shared)["models"]["demo-student"]["student"]
    make_folder(shared.folder.folder)
    shared.folder.write("lock.json", locked)
    assert lock_entries(shared) == locked


def test_where_a_service_does_not_answer_what_is_known_is_told(hosted: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    hosted("lock", "mine.yaml")
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    assert hosted("lock", "mine.yaml", "--check").code == 5
    refused = hosted("lock", "mine.yaml", "--check", "--set", "name=other")
    assert lines(refused.err) == ["spec.name: locked hosted, now other"]


def test_a_lock_holds_no_secret(hosted: Call, demo_engine: RunningEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "ab12" * 8)
    replace("mine.yaml", "enable_thinking: false", "enable_thinking: false, api_key: sk-0123456789abcdef0123")
    assert hosted("lock", "mine.yaml").code == 0
    text = Path(LOCK).read_text()
    assert '"api_key": "[hidden]"' in text
    for secret in ("hf_", "sk-", demo_engine.api_key, demo_engine.base_url):
        assert secret not in text
    assert hosted("lock", "mine.yaml", "--check").code == 0
    elsewhere = ["--set", "engine={uses: tinker, with: {base_url: 'http://me:hunter2hunter2@a.example/?key=abcdefgh'}}"]
    found = lines(hosted("lock", "mine.yaml", "--check", *elsewhere).err)
    assert found == ["engine.with.base_url: not locked, now http://a.example/"]
