"""A lock says what a run is made with, and `--locked` refuses anything else."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, SPECS, charrun
from imported_modules import imported_by
from locked import LOCK, Edit, edit, fill, lines, replace
from plugin_folders import distribution, stage
from run_copies import Call, caller

from charrun.chat import load_tokenizer
from charrun.pipeline import lock_models
from charrun.report.drift import drift


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """A command in a folder with a spec that brings along a character, a model, prompts and a template."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return caller(capsys, monkeypatch)


def test_a_lock_is_written_beside_its_spec_and_stays_the_same(call: Call) -> None:
    assert call("lock", "mine.yaml").out == f"wrote {LOCK}\n"
    text = Path(LOCK).read_text()
    assert call("lock", "mine.yaml").out == f"{LOCK} is up to date\n"
    checked = call("lock", "mine.yaml", "--check")
    assert (checked.code, checked.out) == (0, f"{LOCK} is up to date\n")
    Path(LOCK).unlink()
    call("lock", "mine.yaml")
    assert Path(LOCK).read_text() == text
    lock = json.loads(text)
    assert lock["lock_version"] == 1 and text == json.dumps(lock, indent=2, sort_keys=True) + "\n"


def test_a_lock_names_no_place_of_the_machine_and_holds_elsewhere(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("lock", "mine.yaml")
    text = Path(LOCK).read_text()
    assert str(tmp_path) not in text and str(REPOSITORY) not in text and str(Path.home()) not in text
    elsewhere = tmp_path / "elsewhere" / "deep"
    elsewhere.mkdir(parents=True)
    fill(elsewhere)
    (elsewhere / LOCK).write_text(text)
    monkeypatch.chdir(elsewhere)
    assert call("lock", "mine.yaml").out == f"{LOCK} is up to date\n"


def in_spec(old: str, new: str) -> Edit:
    return lambda: replace("mine.yaml", old, new)


def in_lock(change: Callable[[Any], Any]) -> Edit:
    return lambda: edit(LOCK, change)


def in_model(file: str, old: str, new: str) -> Edit:
    return lambda: replace(Path("models/mine") / file, old, new)


def another_tokenizer() -> None:
    edit("models/mine/tokenizer.json", lambda parts: parts["model"]["merges"].pop())


def other_weights() -> None:
    path = Path("models/mine/model.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")


CHANGED = r"changed \(sha256 [0-9a-f]{8}… -> [0-9a-f]{8}…\)"
DRIFTS: dict[str, tuple[Edit, list[str]]] = {
    "an edited character": (
        lambda: replace("character.yaml", "description: ", "description: Now "),
        [f"characters.pirate {CHANGED}"],
    ),
    "an option of a stage": (
        in_spec("dpo]", "{uses: dpo, with: {learning_rate: 5e-5}}]"),
        [r"stages.dpo.with.learning_rate: locked 0.0001, now 5e-05"],
    ),
    "one stage less": (in_spec(", dpo]", "]"), [r"stages.dpo: locked, now gone"]),
    "another seed": (
        in_spec("seed: 7", "seed: 8"),
        [r"seeds: locked \[7\], now \[8\]", f"stages.prompts.inputs {CHANGED}"],
    ),
    "a number of a scale": (in_spec("pairs: 4", "pairs: 5"), [r"scales.tiny.pairs: locked 4, now 5"]),
    "a file of prompts": (lambda: replace("more.jsonl", "far", "near"), [f"stages.prompts.inputs {CHANGED}"]),
    "a prompt template": (lambda: replace("character.j2", " ", "  "), [f"templates.character {CHANGED}"]),
    "another model": (
        in_spec("teacher: charrun/demo-teacher", "teacher: charrun/demo-student"),
        [r"models.mine.teacher.name: locked charrun/demo-teacher, now charrun/demo-student"],
    ),
    "an option of the chat template": (
        in_spec("{teacher: charrun/demo-teacher", "{teacher: {name: charrun/demo-teacher, chat: {tone: dry}}"),
        [r"models.mine.teacher.chat.tone: not locked, now dry"],
    ),
    "the chat template": (
        in_model("chat_template.jinja", "<|im_start|>", "<|im_start|> "),
        [
            f"models.mine.student.chat_template {CHANGED}",
            r"models.mine.student.identity: locked local:mine@.+…, now .+",
        ],
    ),
    "the tokenizer": (
        another_tokenizer,
        [r"models.mine.student.identity: .*", f"models.mine.student.tokenizer {CHANGED}"],
    ),
    "the weights": (other_weights, [r"models.mine.student.identity: .*"]),
    "the context length": (
        in_model("config.json", '"max_position_embeddings": 4096', '"max_position_embeddings": 2048'),
        [r"models.mine.student.context_length: locked 4096, now 2048", r"models.mine.student.identity: .*"],
    ),
    "a package": (
        in_lock(lambda lock: lock["versions"].update(torch="1.0", tinker="0.1")),
        [r"versions.tinker: locked 0.1, now 0.38.*", r"versions.torch: locked 1.0, now 2\..*"],
    ),
    "the price book": (
        in_lock(lambda lock: lock["price_book"].update(date="2026-01-01")),
        [r"price_book.date: locked 2026-01-01, now 2026-11-22"],
    ),
    "a schema and a stage's code": (
        in_lock(lambda lock: (lock["schemas"].update(spec="0" * 64), lock["stages"][4].update(cache_version=99))),
        [f"schemas.spec {CHANGED}", r"stages.dpo.cache_version: locked 99, now \d+"],
    ),
    "a lock edited by hand": (
        in_lock(lambda lock: (lock["spec"].update(sha256="0" * 64), lock.pop("templates"), lock.update(seeds={}))),
        [r"seeds: locked \{\}, now \[7\]", r"templates: not locked, now there"],
    ),
    "nothing but the hash of the spec": (
        in_lock(lambda lock: lock["spec"].update(sha256="0" * 64)),
        [f"spec {CHANGED}"],
    ),
}


@pytest.mark.parametrize("kind", DRIFTS)
def test_whatever_drifts_is_refused_and_named(kind: str, call: Call) -> None:
    change, expected = DRIFTS[kind]
    call("lock", "mine.yaml")
    change()
    outcome = call("plan", "mine.yaml", "--locked")
    assert outcome.code == 3 and outcome.out == "", outcome.text
    found = lines(outcome.err)
    assert len(found) == len(expected), found
    for line, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    count = f"{len(found)} problem{'s' if len(found) > 1 else ''}; nothing was run\n"
    assert outcome.err.endswith(count) and "accept it: charrun lock mine.yaml" in outcome.err
    assert ("install the locked versions" in outcome.err) == ("versions" in outcome.err.split("accept")[0])


def test_every_difference_is_told_at_once_and_accepted_by_locking_again(call: Call) -> None:
    call("lock", "mine.yaml")
    for kind in ("an edited character", "an option of a stage", "a number of a scale", "the weights"):
        DRIFTS[kind][0]()
    refused = call("lock", "mine.yaml", "--check")
    assert refused.code == 3 and len(lines(refused.err)) == 4
    written = call("lock", "mine.yaml")
    assert written.out.splitlines() == [
        f"wrote {LOCK}, in which changed:",
        *(f"  {line}" for line in lines(refused.err)),
    ]
    assert call("lock", "mine.yaml", "--check").code == 0


def test_what_the_command_line_sets_is_locked_with_the_spec(call: Call) -> None:
    setting = ["--set", "stages.dpo.with.beta=0.2"]
    call("lock", "mine.yaml", *setting)
    assert call("plan", "mine.yaml", "--locked", *setting).code == 0
    refused = call("plan", "mine.yaml", "--locked", "--set", "vars.x=an other")
    assert "stages.dpo.with.beta: locked 0.2, now 0.1" in refused.err
    assert "accept it: charrun lock mine.yaml --set 'vars.x=an other'\n" in refused.err


def test_a_locked_run_with_a_difference_writes_nothing(call: Call) -> None:
    call("lock", "mine.yaml")
    before = sorted(Path().rglob("*"))
    outcome = call("mine.yaml", "--locked", "--scale", "smoke")
    assert outcome.code == 3 and "scales.tiny: locked, now gone" in lines(outcome.err)
    assert sorted(Path().rglob("*")) == before


def test_a_locked_run_without_a_lock_says_how_to_write_one(call: Call) -> None:
    for outcome in (call("mine.yaml", "--locked"), call("lock", "mine.yaml", "--check")):
        assert outcome.code == 3
        told = f"{LOCK} LOCK001 there is no lock file\n      write it: charrun lock mine.yaml\n"
        assert outcome.err == f"{told}1 problem; nothing was run\n"


def test_a_run_that_fits_its_lock_records_the_same_in_its_folder(call: Call) -> None:
    replace("mine.yaml", ", teacher, student, pairs, dpo]", "]")
    call("lock", "mine.yaml")
    outcome = call("mine.yaml", "--locked", "--json")
    assert outcome.code == 0, outcome.text
    recorded = json.loads(Path("runs/mine/1/lock.json").read_text())
    recorded.pop("sum")
    assert recorded == json.loads(Path(LOCK).read_text())


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.replace('"engine": {', '"engine": {,'), "{lock}:5:14 LOCK002 the lock is not JSON: "),
        (lambda text: text[:200], "{lock}:11:5 LOCK002 the lock is not JSON: "),
        (lambda text: text.replace("{\n", "{\n<<<<<<< HEAD\n", 1), "{lock}:2:1 LOCK002 the lock is not JSON: "),
        (lambda text: text.replace('"mine"', '"mi\udcffne"', 1), "LOCK002 the lock is not UTF-8"),
        (lambda text: "[" * 100_000, "{lock} LOCK002 the lock cannot be read: it is nested too deeply"),
        (
            lambda text: text.replace('"lock_version": 1,', '"lock_version": 1,\n"lock_version": 1,'),
            '{lock} LOCK002 the lock cannot be read: the key "lock_version" is there twice',
        ),
        (lambda text: text.replace('"lock_version": 1', '"lock_version": 2'), "{lock} LOCK003 lock_version 2 is not"),
        (lambda text: "[]", "{lock} LOCK003 this is no lock"),
    ],
)
def test_a_damaged_lock_is_told_with_its_place(damage: Callable[[str], str], told: str, call: Call) -> None:
    call("lock", "mine.yaml")
    text = Path(LOCK).read_text()
    Path(LOCK).write_bytes(damage(text).encode("utf-8", "surrogateescape"))
    outcome = call("mine.yaml", "--locked")
    assert outcome.code == 3
    assert told.format(lock=LOCK) in outcome.err and "write it anew: charrun lock mine.yaml" in outcome.err
    assert call("lock", "mine.yaml").out == f"wrote {LOCK}, in place of one that could not be read\n"
    assert Path(LOCK).read_text() == text


def test_pythons_last_number_is_no_difference() -> None:
    now = {"versions": {"python": "3.11.7"}, "models": {}}
    assert drift({"versions": {"python": "3.11.2"}, "models": {}}, now) == []
    assert len(drift({"versions": {"python": "3.12.7"}, "models": {}}, now)) == 1


def test_a_shipped_spec_is_locked_at_a_place_that_is_named(call: Call) -> None:
    name = "builtin:pirate-smoke"
    for words in (["lock", name], ["lock", name, "--check"], [name, "--locked"]):
        refused = call(*words)
        assert refused.code == 2
        assert f"charrun lock {name} -o pirate-smoke.yaml.lock" in refused.err
    assert call("lock", name, "-o", "here.lock").out == "wrote here.lock\n"
    assert call("lock", name, "-o", "here.lock", "--check").code == 0
    assert "charrun lock builtin:pirate-smoke -o there.lock" in call("lock", name, "-o", "there.lock", "--check").err


def test_stand_ins_and_the_models_of_a_service_are_not_the_same(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SPECS / "pirate-smoke.yaml", "mine.yaml")
    call("lock", "mine.yaml")
    assert json.loads(Path(LOCK).read_text())["stand_ins"]["Qwen/Qwen3-30B-A3B"] == "charrun/demo-student"
    monkeypatch.setenv("TINKER_API_KEY", "tml-this-is-a-key-of-nobody")
    outcome = call("mine.yaml", "--locked", "--yes")
    found = lines(outcome.err)
    assert outcome.code == 3 and found[0] == "engine.uses: locked local, now tinker"
    assert "models.qwen3-30b-a3b.student.name: locked charrun/demo-student, now Qwen/Qwen3-30B-A3B" in found
    assert "stand_ins.Qwen/Qwen3-30B-A3B: locked charrun/demo-student, now gone" in found
    assert not [line for line in found if "tokenizer" in line or "vocabulary" in line]
    assert "run where it was locked" in outcome.err and not Path("runs").exists()


def test_for_local_models_nothing_is_started_or_imported(tmp_path: Path) -> None:
    fill(tmp_path)
    found = imported_by("lock", "mine.yaml", folder=tmp_path)
    assert (tmp_path / LOCK).exists()
    assert not found & {"torch", "transformers", "tinker", "charrun.engine.process"}


def test_the_files_of_a_model_say_what_transformers_loads(tmp_path: Path) -> None:
    folder = fill(tmp_path) / "models" / "mine"
    read = lock_models.folder_facts("mine", folder)
    loaded = load_tokenizer(folder)
    assert read == {"context_length": 4096, **lock_models._facts_of(loaded)}
    loaded("a longer text", truncation=True, max_length=2)
    loaded.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder / "tokenizer_config.json", lambda config: config.update(chat_template=loaded.chat_template))
    assert lock_models.folder_facts("mine", folder) == read
    edit(folder / "tokenizer_config.json", lambda config: config.update(eos_token="<|endoftext|>"))
    assert lock_models.folder_facts("mine", folder)["tokenizer_sha256"] != read["tokenizer_sha256"]
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    (folder / "chat_template.jinja").write_text(loaded.chat_template)
    several = lock_models.folder_facts("mine", folder)
    assert several == {"context_length": 4096, **lock_models._facts_of(load_tokenizer(folder))}
    assert several["chat_template_sha256"] != read["chat_template_sha256"]


def test_a_model_that_is_not_whole_is_not_locked(call: Call) -> None:
    Path("models/mine/chat_template.jinja").unlink()
    edit("models/mine/tokenizer_config.json", lambda config: config.pop("chat_template"))
    outcome = call("lock", "mine.yaml")
    assert outcome.code == 5 and "has no chat template" in outcome.err
    Path("models/mine/config.json").write_text("{}")
    assert "not the folder of a causal language model" in call("lock", "mine.yaml").err
    assert not Path(LOCK).exists()


def test_installed_plugins_that_the_spec_uses_are_locked_with_their_versions(tmp_path: Path) -> None:
    fill(tmp_path)
    site = tmp_path / "site"
    distribution(site, "charrun-count", stage("count"), version="1.0")
    distribution(site, "charrun-idle", stage("idle"), version="1.0")
    replace(tmp_path / "mine.yaml", "dpo]", "count]")
    env = {"PYTHONPATH": str(site)}
    assert charrun("lock", "mine.yaml", cwd=tmp_path, env=env).code == 0
    locked = json.loads((tmp_path / LOCK).read_text())["versions"]
    assert locked["charrun-count"] == "1.0" and "charrun-idle" not in locked
    shutil.rmtree(site / "charrun_count-1.0.dist-info")
    distribution(site, "charrun-count", stage("count"), version="1.1")
    outcome = charrun("plan", "mine.yaml", "--locked", cwd=tmp_path, env=env)
    assert outcome.code == 3 and lines(outcome.err) == ["versions.charrun-count: locked 1.0, now 1.1"]


def test_a_stage_file_beside_the_spec_is_locked_by_its_content(call: Call) -> None:
    shutil.copy(SPECS / "stages" / "lexicon.py", "lexicon.py")
    replace("mine.yaml", "dpo]", "lexicon]\nplugins: [./lexicon.py]")
    assert call("lock", "mine.yaml", "--trust").code == 0
    with Path("lexicon.py").open("a") as file:
        file.write("# changed\n")
    outcome = call("plan", "mine.yaml", "--locked", "--trust")
    assert outcome.code == 3 and re.fullmatch(f'plugins."lexicon.py" {CHANGED}', lines(outcome.err)[0])


def test_every_code_of_a_lock_is_documented() -> None:
    source = Path(sys.modules[drift.__module__].__file__ or "").read_text()
    documented = re.findall(r"^### (LOCK\d{3})", (REPOSITORY / "docs" / "errors.md").read_text(), re.MULTILINE)
    assert documented == sorted(set(re.findall(r"LOCK\d{3}", source)))


def test_every_shipped_spec_has_a_lock_that_reads_back(call: Call) -> None:
    for name in ("pirate-mini", "two-characters", "pirate-null-control"):
        call("lock", f"builtin:{name}", "-o", LOCK)
        assert call("lock", f"builtin:{name}", "-o", LOCK, "--check").code == 0
