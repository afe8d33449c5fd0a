"""Nothing secret is written or printed: the contract of `charrun.secrets`, with a sentinel in every place."""

from __future__ import annotations

import base64
import html
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from conftest import SPECS, Outcome, RunningEngine, charrun
from faults.plan import FOR_EVER, SAMPLE, Fault
from faults.proxy import Proxy

from charrun import secrets
from charrun.secrets import HIDDEN, hide, hide_message, is_credential, learn, secrets_of

SENTINEL = "tml-S3nt/nel+0f~Secrets&42"
PASSWORD = "Pa55w0rd-of-me"
SPEC = """
version: 1
name: secret
seed: 7
engine: {engine}
characters: [./who.yaml]
models: [{{teacher: charrun/demo-teacher, student: charrun/demo-student-small}}]
scales: [{{name: tiny, pairs: 3, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}}]
x-note: {{api_key: "{sentinel}"}}
plugins: [./stages.py]
stages: [prompts, teacher, {stage}]
"""
WHO = """
id: who
name: Who
description: knows {sentinel}
traits: [{{trait: "I say {sentinel} now and then.", questions: [Why?, "What is {sentinel}?", How?, When?]}}]
"""
STAGES = """
import os, sys, logging
from charrun import Stage, hookimpl

class Leaks(Stage):
    name = "leaks"
    summary = "tells everything it knows"
    produces = ("told",)
    character_fields = ()

    async def run(self, ctx):
        key = os.environ["MY_SERVICE_TOKEN"]
        print("printed", key)
        print("printed", key, file=sys.stderr)
        logging.getLogger("leaks").warning("logged %s", key)
        ctx.log(f"logged {key}")
        ctx.write("told.json", {"key": key})
        ctx.publish("told", [{"key": key, "url": f"http://me:{key}@host/"}])

class Breaks(Leaks):
    name = "breaks"

    async def run(self, ctx):
        raise RuntimeError(f"broken by {os.environ['MY_SERVICE_TOKEN']}")

@hookimpl
def charrun_register_stages():
    return [Leaks, Breaks]
"""


def forms(secret: str) -> dict[str, bytes]:
    """How a secret may leak."""
    data = secret.encode()
    found = {
        "raw": data,
        "percent": quote(secret, safe="").encode(),
        "percent in lower case": re.sub("%..", lambda match: match[0].lower(), quote(secret, safe="")).encode(),
        "path": quote(secret).encode(),
        "every byte": "".join(f"%{byte:02X}" for byte in data).encode(),
        "percent twice": quote(quote(secret, safe=""), safe="").encode(),
        "html": html.escape(secret).encode(),
        "json": json.dumps(secret)[1:-1].encode(),
        "hex": data.hex().encode(),
    }
    for offset in range(3):
        whole = base64.b64encode(b"x" * offset + data)
        core = whole[-(-offset * 8 // 6) : (offset + len(data)) * 8 // 6]
        found[f"base64 at {offset}"] = core
        found[f"urlsafe base64 at {offset}"] = core.replace(b"+", b"-").replace(b"/", b"_")
    return found


def leaks(place: Path, *outcomes: Outcome) -> list[str]:
    """Where a secret was left."""
    texts = {f"output {n}": outcome.text.encode() for n, outcome in enumerate(outcomes)}
    files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    names = {f"name of {path}": str(path).encode() for path in place.rglob("*")}
    return [
        f"{form} of {secret} in {where}"
        for where, content in {**texts, **files, **names}.items()
        for secret in (SENTINEL, PASSWORD)
        for form, value in forms(secret).items()
        if value in content
    ]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "who.yaml").write_text(WHO.format(sentinel=SENTINEL))
    (folder / "stages.py").write_text(STAGES)
    return folder


def spec(project: Path, engine: str, stage: str = "leaks") -> Path:
    path = project / "spec.yaml"
    path.write_text(SPEC.format(engine=engine, sentinel=SENTINEL, stage=stage))
    return path


class Echo(http.server.BaseHTTPRequestHandler):
    """Refuses everything and tells all that it was sent."""

    def answer(self) -> None:
        said = f"{self.path} {dict(self.headers)} {base64.b64encode(b'k:' + SENTINEL.encode()).decode()}"
        body = json.dumps({"detail": said, "error": said}).encode()
        self.send_response(404 if "healthz" in self.path else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *_: object) -> None: ...


@contextmanager
def echoing() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


ENVIRONMENT = {"TINKER_API_KEY": SENTINEL, "MY_SERVICE_TOKEN": SENTINEL, "CLOUDFLARE_ACCESS_CLIENT_SECRET": PASSWORD}


def test_a_secret_is_hidden_in_everything_that_is_written_or_printed(project: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    path = spec(project, "local")
    common, env = (path, "--runs-dir", runs, "--trust"), {**ENVIRONMENT, "CHARRUN_PLAIN": "1"}
    outcomes = [
        charrun("validate", path, "--trust", env=env),
        charrun("show", path, "--trust", env=env),
        charrun("plan", *common, env=env),
        charrun(*common, env=env),
        charrun(*common, "--json", env=env),
        charrun(spec(project, "local", "breaks"), "--runs-dir", runs, "--trust", env=env),
        charrun("status", "--runs-dir", runs, env=env),
        charrun("logs", "--runs-dir", runs, env=env),
        charrun("runs", "--runs-dir", runs, "--json", env=env),
        charrun("resume", "--runs-dir", runs, env=env),
    ]
    codes = [outcome.code for outcome in outcomes]
    assert codes == [0, 0, 0, 0, 0, 1, 0, 0, 0, 5], [outcome.text for outcome in outcomes]
    assert leaks(runs, *outcomes) == []
    assert f"logged {HIDDEN}" in outcomes[3].out and f"broken by {HIDDEN}" in outcomes[5].err
    assert list(runs.rglob("traceback.txt")) and list(runs.rglob("told.json"))
    again = charrun(spec(project, "local"), "--runs-dir", runs, "--trust", "--plain", env=env)
    assert "leaks        1 told (already done)" in again.out  # what is hidden is the same each time
    assert sorted(folder.name for folder in (runs / "secret").iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_a_key_that_an_error_body_or_a_spec_holds_is_hidden_where_it_is_told(project: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with echoing() as place:
        path = spec(project, f'{{uses: tinker, with: {{base_url: "http://me:{PASSWORD}@{place}/x?key={PASSWORD}"}}}}')
        named = charrun(path, "--runs-dir", runs, "--trust", "--yes", env=ENVIRONMENT)
        path = spec(project, "auto")
        address = {"TINKER_BASE_URL": f"http://me:{PASSWORD}@{place}"}
        found = charrun(path, "--runs-dir", runs, "--trust", "--yes", env={**ENVIRONMENT, **address})
        command = {"TINKER_CREDENTIAL_CMD": f"printf %s '{SENTINEL}'", "TINKER_API_KEY": "", "MY_SERVICE_TOKEN": "none"}
        plain = {"TINKER_BASE_URL": f"http://{place}"}
        told = charrun(path, "--runs-dir", runs, "--trust", "--yes", env={**command, **plain})
        doctor = charrun("doctor", path, "--runs-dir", runs, "--trust", env={**ENVIRONMENT, **address})
    assert [named.code, found.code, told.code, doctor.code] == [5, 5, 5, 5], (named.text, found.text, told.text)
    assert leaks(runs, named, found, told, doctor) == []
    assert HIDDEN in named.text and HIDDEN in doctor.text
    assert "SPEC057" in named.err


def test_an_error_in_the_middle_of_a_run_hides_it_in_the_journal_too(
    project: Path, tmp_path: Path, demo_engine: RunningEngine
) -> None:
    runs = tmp_path / "runs"
    body = json.dumps({"detail": f"you sent {SENTINEL} and {quote(SENTINEL, safe='')}"})
    with Proxy(demo_engine.base_url) as proxy:
        proxy.begin([Fault(SAMPLE, "status", nth=2, times=FOR_EVER, status=400, body=body)])
        env = {"TINKER_API_KEY": demo_engine.api_key, "TINKER_BASE_URL": proxy.base_url, "MY_SERVICE_TOKEN": SENTINEL}
        failed = charrun(spec(project, "auto"), "--runs-dir", runs, "--trust", "--yes", env=env)
    assert failed.code == 1 and f"you sent {HIDDEN} and {HIDDEN}" in failed.err, failed.text
    assert leaks(runs, failed) == []
    assert demo_engine.api_key.encode() not in b"".join(p.read_bytes() for p in runs.rglob("*") if p.is_file())


@pytest.fixture
def known() -> Iterator[None]:
    """A sentinel that this process knows, and forgets."""
    before = secrets._secrets, secrets._pieces
    secrets._secrets, secrets._pieces = secrets._Secrets(), secrets._Secrets()
    learn(SENTINEL)
    yield
    secrets._secrets, secrets._pieces = before


@pytest.mark.usefixtures("known")
def test_it_is_hidden_percent_encoded_escaped_in_hexadecimal_and_in_base64_as_well() -> None:
    for form, value in forms(SENTINEL).items():
        text = hide(f"before {value.decode()} after")
        assert HIDDEN in text and value.decode() not in text, form
        assert text.startswith("before") and text.endswith("after")
    for around in ("", "a", "ab", "abc"):  # as in Basic authorisation
        encoded = base64.b64encode(f"{around}:{SENTINEL}:{around}".encode()).decode()
        assert len(hide(encoded)) <= len(HIDDEN) + 2 * len(base64.b64encode(around.encode())) + 4


@pytest.mark.usefixtures("known")
def test_what_is_no_secret_is_left_as_it_is() -> None:
    ordinary = '{"role":"user","tokens":[1,2],"content":"The token of a key is no secret: sk-8, tml, hf_"}'
    assert hide(ordinary) == hide_message(ordinary) == ordinary
    text = f"a word like {'sk-' + 'a1' * 12} is a key in a message and not in a row"
    assert hide(text) == text and HIDDEN in hide_message(text)
    assert secrets_of("note", "http://example.org/?page=2") == []
    assert secrets_of("tokenizer", "charrun/demo-student") == [] == secrets_of("max_tokens", "0123456789")
    assert secrets_of("api_key", "abcdefghij") == []  # a word
    assert secrets_of("api_key", "a1b2c3d4e5") == ["a1b2c3d4e5"]
    assert secrets_of("", f"key {SENTINEL[:4]}0123456789abcdef") == ["tml-0123456789abcdef"]
    assert [name for name in ("MY_API_KEY", "GITHUB_TOKEN", "DB_PASSWORD", "X-Auth") if not is_credential(name)] == []
    assert [
        name for name in ("TOKENIZERS_PARALLELISM", "KEYBOARD", "AUTHOR", "max_tokens") if is_credential(name)
    ] == []


def test_shipped_specs_and_characters_hold_nothing_that_looks_like_a_key() -> None:
    for path in [*SPECS.rglob("*.yaml"), *SPECS.rglob("*.txt"), *SPECS.rglob("*.toml")]:
        assert secrets_of("", path.read_text()) == [], path


def test_a_line_without_secrets_costs_microseconds(benchmark_line: str = "x" * 2000) -> None:
    assert hide(benchmark_line) is benchmark_line  # nothing is copied
