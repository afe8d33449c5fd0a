"""`charrun doctor`: what is found of a machine and a spec, and that no secret is ever shown."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import SPECS, FinishedRun, RunningEngine, charrun

from charrun.demo import MODELS
from charrun.service import checks, disk_checks

LOCAL = """
version: 1
name: here
seed: 7
engine: local
characters: [pirate]
models: [{{teacher: charrun/demo-teacher, student: {{name: {student}, chat: {{enable_thinking: false}}}}}}]
scales: [smoke]
stages: [prompts, teacher, student, pairs, dpo]
"""
HOSTED = LOCAL.replace("engine: local", "engine: tinker").format(student="charrun/demo-student")
KEY, COMMAND_KEY, STORED_KEY, PASSWORD = (
    "tml-sentinel-in-env",
    "tml-sentinel-of-cmd",
    "tml-sentinel-stored",
    "pa55word",
)


def lines(text: str) -> dict[str, str]:
    """Level by what was found."""
    return {line[9:]: line[:9].strip() for line in text.splitlines()[:-1]}


@pytest.mark.slow
def test_a_machine_in_order_has_no_problem_and_its_engine_answers(tmp_path: Path) -> None:
    outcome = charrun("doctor", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 0, outcome.text
    found = lines(outcome.out)
    assert set(found.values()) <= {"ok", "warning"}
    for expected in (
        "Python 3.",
        "packages are within charrun's ranges: tinker 0.38",
        "there are no Tinker credentials",
        f"can be written, to be made in {tmp_path}",
        "GiB are free",
        "a lock keeps a second process out",
        "engines are registered",
        "the clock says 20",
        "torch computes with",
        "compiled loops",
        "the engine local answers, and serves charrun/demo-student-small",
        "charrun/demo-student-small answers a request for one token",
    ):
        assert any(expected in what for what in found), expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_spec_is_checked_down_to_its_runs_checkpoints(smoke: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(smoke.runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("items.jsonl"))
    gone = json.loads(next((tmp_path / "runs" / "store").glob("dpo-*/checkpoint-*.jsonl")).read_text())["sampler"]
    run, _, rest = gone.removeprefix("tinker://").partition("/")
    shutil.rmtree(tmp_path / "runs" / "engine" / run.replace(":", "_") / rest)
    outcome = charrun("doctor", SPECS / "pirate-smoke.yaml", "--runs-dir", tmp_path / "runs", "--json")
    assert outcome.code == 0, outcome.text
    found = [json.loads(line) for line in outcome.out.splitlines()]
    assert all(set(each) == {"check", "level", "what", "advice"} for each in found)
    of = {name: [each for each in found if each["check"] == name] for name in {each["check"] for each in found}}
    assert of["spec"][0]["what"].endswith("pirate-smoke.yaml is valid")
    assert "engine auto takes local" in of["engine"][0]["what"]
    assert "charrun/demo-student for Qwen/Qwen3-30B-A3B" in of["engine"][0]["what"]
    assert [each["level"] for each in of["model"] + of["rendering"] + of["answer"]] == ["ok"] * 6
    (lost,) = of["checkpoint"]
    assert lost["level"] == "warning"
    assert "no longer holds the checkpoint of dpo in pirate-smoke/1" in lost["what"]
    assert "--force dpo" in lost["advice"]


def test_a_spec_with_mistakes_is_a_problem_with_its_place(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(LOCAL.format(student="charrun/demo-student").replace("[smoke]", "[smok]"))
    outcome = charrun("doctor", spec, "--no-engine", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 5
    assert f"problem  {spec}:8:" in outcome.out
    assert "1 problem in" in outcome.out


def test_set_changes_the_spec_that_is_checked(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(LOCAL.format(student="charrun/demo-student"))
    outcome = charrun("doctor", spec, "--set", "scales=[smok]", "--no-engine", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 5
    assert "smok" in outcome.out and "--set" in outcome.out


def test_what_a_model_folder_lacks_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODELS["charrun/demo-student"], folder)
    (folder / "tokenizer.json").unlink()
    spec = tmp_path / "spec.yaml"
    spec.write_text(LOCAL.format(student=json.dumps(str(folder))))
    outcome = charrun("doctor", spec, "--no-engine", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 5
    assert f"problem  {folder}: {folder} lacks a tokenizer" in outcome.out


def test_a_chat_template_that_fails_is_a_problem(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(MODELS["charrun/demo-student"], folder)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role here') }}")
    spec = tmp_path / "spec.yaml"
    spec.write_text(LOCAL.format(student=json.dumps(str(folder))))
    outcome = charrun("doctor", spec, "--no-engine", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 5
    assert "its chat template fails: TemplateError: no system role here" in outcome.out


@pytest.mark.parametrize(
    ("form", "user", "expected"),
    [
        ((), "", "the engine refuses the key"),
        (("--json",), f"user:{quote(PASSWORD + '/')}@", "is no address"),
        (("--json", "--no-engine"), "", "Tinker credentials come from"),
    ],
)
def test_no_secret_is_shown(
    form: tuple[str, ...], user: str, expected: str, tmp_path: Path, demo_engine: RunningEngine
) -> None:
    """The key is refused by a real server, and an address with a password is not even one."""
    login = tmp_path / "home" / ".tinker" / "credentials.json"
    login.parent.mkdir(parents=True)
    record = {"type": "manual", "key": STORED_KEY, "name": "me"}
    login.write_text(json.dumps({"version": 1, "default": "a", "keys": {"a": record}}))
    spec = tmp_path / "spec.yaml"
    spec.write_text(HOSTED)
    env = {
        "HOME": str(tmp_path / "home"),
        "TINKER_API_KEY": KEY,
        "TINKER_CREDENTIAL_CMD": f"echo {COMMAND_KEY}",
        "TINKER_BASE_URL": demo_engine.base_url.replace("//", f"//{user}"),
    }
    outcome = charrun("doctor", spec, *form, "--runs-dir", tmp_path / "runs", env=env)
    assert expected in outcome.out
    assert outcome.code == (0 if "--no-engine" in form else 5), outcome.text
    assert "Tinker credentials come from the variable TINKER_API_KEY" in outcome.out
    assert str(login) in outcome.out
    for secret in (KEY, COMMAND_KEY, STORED_KEY, PASSWORD, "sentinel"):
        assert secret not in outcome.text, outcome.text
    assert "Traceback" not in outcome.text


def test_a_service_that_answers_is_asked_for_models_and_renderings(tmp_path: Path, demo_engine: RunningEngine) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(HOSTED)
    env = {"TINKER_API_KEY": demo_engine.api_key, "TINKER_BASE_URL": demo_engine.base_url}
    outcome = charrun("doctor", spec, "--runs-dir", tmp_path / "runs", env=env)
    assert outcome.code == 0, outcome.text
    found = lines(outcome.out)
    assert "the clock agrees with the service" in found
    assert any("the engine tinker answers, and serves charrun/demo-student" in what for what in found)
    assert sum("is rendered and read back" in what for what in found) >= 2
    assert not any("answers a request" in what for what in found)
    assert demo_engine.api_key not in outcome.text


def test_no_engine_means_no_network(tmp_path: Path) -> None:
    env = {"TINKER_API_KEY": KEY, "TINKER_BASE_URL": "http://127.0.0.1:9"}
    outcome = charrun("doctor", "--no-engine", "--runs-dir", tmp_path / "runs", env=env)
    assert outcome.code == 0, outcome.text
    assert "nothing answers" not in outcome.out and "cannot be compared" not in outcome.out


@pytest.mark.parametrize(
    ("env", "level", "expected"),
    [
        ({"TINKER_API_KEY": "sk-no-tinker-key"}, "problem", "no Tinker key"),
        ({"TINKER_BASE_URL": "127.0.0.1:8000"}, "problem", "is no address"),
        ({"TINKER_BASE_URL": "http://tinker.example"}, "warning", "in the clear"),
    ],
)
def test_credentials_that_cannot_work_are_told_before_they_are_used(
    env: dict[str, str], level: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = [check for check in checks.credentials() if expected in check.what]
    assert [check.level for check in found] == [level]
    assert "sk-no" not in str(found)


def test_a_login_that_others_may_read_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    login = tmp_path / ".tinker" / "credentials.json"
    login.parent.mkdir()
    login.write_text(json.dumps({"default": "a", "keys": {"a": {"key": STORED_KEY}}}))
    login.chmod(0o644)
    assert "others on this machine" in str(list(checks.credentials()))
    login.chmod(0o600)
    assert "others on this machine" not in str(list(checks.credentials()))
    login.write_text("{")
    assert "no login that can be used" in str(list(checks.credentials()))


@contextlib.contextmanager
def a_service_whose_clock_is(seconds: float) -> Iterator[str]:
    """A real server that tells a time so far from this machine's."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(time.time() + seconds, usegmt=True)

        def log_message(self, *args: object) -> None:
            return

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(("apart", "level"), [(0, "ok"), (-90, "warning"), (7200, "problem")])
def test_the_clock_is_compared_with_the_services(apart: float, level: str) -> None:
    with a_service_whose_clock_is(apart) as address:
        (found,) = checks.clock(address)
    assert found.level == level
    assert ("ahead of" in found.what, "behind" in found.what) == (apart < 0, apart > 0)


def test_a_file_in_place_of_the_runs_folder_is_a_problem(tmp_path: Path) -> None:
    place = tmp_path / "runs"
    place.write_text("")
    (found,) = checks.guarded("runs", lambda: disk_checks.runs_folder(place))
    assert found.level == "problem"
    assert "cannot be written" in found.what and "--runs-dir" in found.advice


def test_time_stamps_to_come_are_a_warning(tmp_path: Path) -> None:
    late = tmp_path / "pirate" / "1" / "run.json"
    late.parent.mkdir(parents=True)
    late.write_text("{}")
    os.utime(late, (time.time() + 7200,) * 2)
    found = {check.name: check for check in disk_checks.runs_folder(tmp_path)}
    assert found["stamps"].level == "warning" and str(late) in found["stamps"].what
    assert {check.level for name, check in found.items() if name != "stamps"} <= {"ok", "warning"}
    assert [path.name for path in tmp_path.iterdir()] == ["pirate"]


def test_an_error_within_a_check_is_a_problem_and_not_the_end() -> None:
    def broken() -> Iterator[checks.Check]:
        yield checks.Check("first", "ok", "fine")
        raise RuntimeError("out of order")

    first, second = checks.guarded("odd", broken)
    assert first.level == "ok"
    assert (second.level, second.what) == ("problem", "odd cannot be checked: RuntimeError: out of order")
