"""How a run ends and goes on: the contract of `charrun.pipeline.run`, through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS, FinishedRun, Outcome, RunningEngine, charrun
from faults.plan import FOR_EVER, SAMPLE, Fault
from faults.proxy import Proxy

Until = Callable[[Callable[[], bool]], None]

SAMPLED = """
version: 1
name: tiny
seed: 7
engine: auto
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: {name: charrun/demo-student-small, chat: {enable_thinking: false}}}]
scales: [{name: tiny, pairs: 6, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}]
stages: [prompts, teacher, student, pairs]
"""

OFFLINE = """
version: 1
name: offline
seed: 7
engine: local
plugins: [./stages.py]
characters: [{characters}]
models: [{{teacher: charrun/demo-teacher, student: charrun/demo-student-small}}]
scales: [smoke]
stages: [first, second]
"""

STAGES = """
import time
from pathlib import Path
from charrun import Stage, StageFailed, hookimpl

class First(Stage):
    name = "first"
    summary = "writes rows"
    produces = ("numbers",)
    character_fields = ()
    options_schema = {
        "type": "object",
        "properties": {
            "rows": {"type": "integer", "default": 3, "description": "How many."},
            "fails": {"type": "string", "default": "", "description": "A file whose presence makes it fail."},
            "waits": {"type": "string", "default": "", "description": "A file that it waits for."},
        },
        "additionalProperties": False,
    }

    async def run(self, ctx):
        import asyncio
        if self.path(ctx, "fails").is_file():
            raise StageFailed("it was told to fail")
        while ctx.options["waits"] and not self.path(ctx, "waits").is_file():
            await asyncio.sleep(0.01)
        ctx.publish("numbers", [{"n": n, "text": "x" * 1000} for n in range(ctx.options["rows"])])

    def path(self, ctx, name):
        return ctx.path(ctx.options[name])


class Second(Stage):
    name = "second"
    summary = "adds them up"
    consumes = ("numbers",)
    produces = ("sum",)
    character_fields = ("name",)

    async def run(self, ctx):
        ctx.publish("sum", [{"sum": sum(row["n"] for row in await ctx.rows("numbers"))}])


@hookimpl
def charrun_register_stages():
    return [First, Second]
"""


def events(runs_dir: Path, run: str) -> list[dict[str, Any]]:
    path = runs_dir / run / "journal.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def names(runs_dir: Path, run: str) -> list[str]:
    return [event["event"] for event in events(runs_dir, run)]


def stored(runs_dir: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (runs_dir / "store").glob("*/items.jsonl"))


def published(runs_dir: Path) -> dict[str, bytes]:
    paths = (runs_dir / "store").glob("*/*-????????????????.jsonl")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def key(engine: RunningEngine, address: str) -> dict[str, str]:
    return {"TINKER_API_KEY": engine.api_key, "TINKER_BASE_URL": address}


def start(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "charrun", *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err, out + err
    return Outcome(process.returncode, out, err)


@pytest.fixture(scope="module")
def proxy(demo_engine: RunningEngine) -> Iterator[Proxy]:
    with Proxy(demo_engine.base_url) as running:
        yield running


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SAMPLED)
    return path


@pytest.fixture
def offline(tmp_path: Path) -> Path:
    (tmp_path / "stages.py").write_text(STAGES)
    path = tmp_path / "offline.yaml"
    path.write_text(OFFLINE.format(characters="pirate"))
    return path


# -- going on -----------------------------------------------------------------------------------------------------


def test_the_same_command_goes_on_with_a_run_and_asks_for_nothing_that_is_stored(
    sampled: Path, tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine
) -> None:
    env, command = key(demo_engine, proxy.base_url), (sampled, "--runs-dir", tmp_path / "runs", "--yes")
    ledger = proxy.begin()
    killed = charrun(*command, env={**env, "CHARRUN_FAULT": "row.after:9"})
    assert killed.code == -signal.SIGKILL and stored(tmp_path / "runs") == 9
    finished = charrun(*command, env=env)
    assert finished.code == 0, finished.text
    rows = [line for path in (tmp_path / "runs/store").glob("*/items.jsonl") for line in path.read_text().splitlines()]
    keys = [json.loads(row)["key"] for row in rows]
    assert len(set(keys)) == len(keys)
    lost = len(ledger.asks) - len(keys)
    assert 0 <= lost <= 12  # what was in flight
    again = proxy.begin()
    assert charrun(*command, env=env).code == 0
    assert not again.requests


def test_a_resumed_run_goes_on_from_its_frozen_spec_whatever_became_of_the_file(
    sampled: Path, tmp_path: Path, demo_engine: RunningEngine
) -> None:
    """It extends another in another folder, whose options and templates name files that lie there."""
    env, runs, base = key(demo_engine, demo_engine.base_url), tmp_path / "runs", tmp_path / "base"
    base.mkdir()
    (base / "mine.jsonl").write_text("".join(json.dumps({"prompt": f"Question {n}?"}) + "\n" for n in range(8)))
    (base / "who.j2").write_text("You are {{ name }}.{% for trait in traits %} {{ trait }}{% endfor %}")
    (base / "stages.py").write_text(STAGES)
    text = SAMPLED.replace("[prompts,", "[first, {uses: prompts, with: {sources: [./mine.jsonl]}},")
    (base / "base.yaml").write_text(text + "templates: {character: ./who.j2}\nplugins: [./stages.py]\n")
    sampled.write_text("extends: ./base/base.yaml\nname: tiny\n")
    command = (sampled, "--runs-dir", runs, "--yes", "--trust", "--until", "student")
    whole = charrun(sampled, "--runs-dir", tmp_path / "whole", "--yes", "--trust", "--until", "student", env=env)
    assert whole.code == 0, whole.text
    killed = charrun(*command, env={**env, "CHARRUN_FAULT": "row.after:3"})
    assert killed.code == -signal.SIGKILL
    for name in ("tiny.yaml", "base/base.yaml", "base/who.j2", "base/stages.py"):
        (tmp_path / name).unlink()
    resumed = charrun("resume", "tiny/1", "--runs-dir", runs, "--yes", env=env)
    assert resumed.code == 0, resumed.text
    assert published(runs) == published(tmp_path / "whole")  # the same folders: the same fingerprints
    assert [path.name for path in (runs / "tiny").iterdir()] == ["1"]
    assert "pairs" not in {event.get("stage") for event in events(runs, "tiny/1")}  # the same part of the spec


def test_a_run_whose_frozen_spec_is_gone_says_what_to_do(offline: Path, tmp_path: Path) -> None:
    assert charrun(offline, "--runs-dir", tmp_path / "runs", "--trust").code == 0
    (tmp_path / "runs/offline/1/spec.json").write_text("{")
    refused = charrun("resume", "--runs-dir", tmp_path / "runs")
    assert (refused.code, "is missing or damaged\n  run the spec itself again" in refused.err) == (5, True)
    again = charrun(offline, "--runs-dir", tmp_path / "runs", "--trust")
    assert again.code == 0 and "spec.json was missing or damaged and is written anew" in again.out
    assert charrun("resume", "--runs-dir", tmp_path / "runs").code == 0


# -- interruptions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_ctrl_c_awaits_what_is_in_flight_and_stores_it(
    number: signal.Signals, sampled: Path, tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine, until: Until
) -> None:
    env, runs = key(demo_engine, proxy.base_url), tmp_path / "runs"
    ledger = proxy.begin([Fault("/api/v1/retrieve_future", "slow", nth=1, times=FOR_EVER, seconds=0.5)])
    process = start(sampled, "--runs-dir", runs, "--yes", "--plain", env=env)
    until(lambda: bool(ledger.asks) or process.poll() is not None)
    process.send_signal(number)
    outcome = ended(process)
    assert outcome.code == 130, outcome.text
    assert "stopping: " in outcome.out and "Ctrl-C again ends at once" in outcome.out
    assert "error: interrupted" in outcome.err and "run the same command again to continue" in outcome.err
    assert stored(runs) == len(ledger.asks) > 0  # everything that was asked is stored
    assert names(runs, "tiny/1")[-1] == "run_interrupted"
    status = charrun("status", "--runs-dir", runs)
    assert "interrupted" in status.out
    proxy.begin()
    assert charrun(sampled, "--runs-dir", runs, "--yes", env=env).code == 0


def test_a_second_ctrl_c_ends_the_process_at_once(
    sampled: Path, tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine, until: Until
) -> None:
    env, runs = key(demo_engine, proxy.base_url), tmp_path / "runs"
    ledger = proxy.begin([Fault(SAMPLE, "silence", nth=1, times=FOR_EVER)])
    process = start(sampled, "--runs-dir", runs, "--yes", "--plain", env=env)
    until(lambda: ledger.requests[SAMPLE] > 0 or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    until(lambda: "stopping" in (runs / "tiny/1/journal.jsonl").read_text())
    process.send_signal(signal.SIGINT)
    outcome = ended(process)
    assert outcome.code == 130 and "interrupted at once: what is recorded stays" in outcome.err
    proxy.begin()
    assert charrun(sampled, "--runs-dir", runs, "--yes", env=env).code == 0


def test_an_engine_that_answers_nothing_for_too_long_ends_the_run_in_one_sentence(
    sampled: Path, tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine
) -> None:
    env, runs = key(demo_engine, proxy.base_url), tmp_path / "runs"
    proxy.begin([Fault("/api/v1/retrieve_future", "never", nth=1, times=FOR_EVER)])
    outcome = charrun(sampled, "--runs-dir", runs, "--yes", "--patience", "0.05", env=env)
    assert outcome.code == 5 and "Traceback" not in outcome.text
    assert "error: the engine has answered none of 6 requests for 3 seconds" in outcome.err
    assert "run the same command again" in outcome.err
    proxy.begin()
    assert charrun(sampled, "--runs-dir", runs, "--yes", env=env).code == 0


# -- what is needed -----------------------------------------------------------------------------------------------


def test_a_finished_run_needs_neither_the_sdk_nor_an_engine(smoke: FinishedRun, tmp_path: Path) -> None:
    runs = shutil.copytree(smoke.runs_dir, tmp_path / "runs", ignore=shutil.ignore_patterns("engine"))
    site = tmp_path / "site"
    for name in ("tinker", "torch", "transformers", "peft"):
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(f"raise SystemExit('{name} is imported')")
    for command in ((SPECS / "pirate-smoke.yaml",), ("resume", "pirate-smoke"), ("plan", SPECS / "pirate-smoke.yaml")):
        outcome = charrun(*command, "--runs-dir", runs, env={"PYTHONPATH": str(site)})
        assert outcome.code == 0, outcome.text
    assert not (runs / "engine").exists()


@pytest.mark.parametrize(
    "parts", [("state", "sampler"), pytest.param(("sampler",), marks=pytest.mark.slow)], ids=["all", "sampler"]
)
def test_a_lost_checkpoint_is_trained_again_only_where_a_stage_that_still_has_to_run_consumes_it(
    parts: tuple[str, ...], sampled: Path, tmp_path: Path, demo_engine: RunningEngine
) -> None:
    import tinker

    env, runs = key(demo_engine, demo_engine.base_url), tmp_path / "runs"
    sampled.write_text(SAMPLED.replace("pairs]", "pairs, {uses: dpo, with: {batch_size: 2}}, reflection]"))
    command = (sampled, "--runs-dir", runs, "--yes", "--plain")
    assert charrun(*command, env=env).code == 0
    before = published(runs)
    (path,) = (runs / "store").glob("dpo-*/checkpoint-*.jsonl")
    lost = json.loads(path.read_text())
    for name in parts:
        tinker.RestClient(**demo_engine.address).delete_checkpoint_from_tinker_path(lost[name]).result()
    finished = charrun(*command, env=env)
    assert finished.code == 0 and "dpo          1 checkpoint (already done)" in finished.out
    planned = charrun("plan", *command[:3], "--plain", "--force", "reflection", env=env)
    assert "dpo: to do (the engine no longer holds its checkpoint)" in planned.out
    forced = charrun(*command, "--force", "reflection", env=env)
    assert forced.code == 0, forced.text
    gone = ", ".join(sorted(lost[name] for name in parts))
    assert f"the engine no longer holds {gone}: dpo trains again" in forced.out
    after = published(runs)
    assert {name: rows for name, rows in before.items() if "dpo-" not in name}.items() <= after.items()
    samplers = {json.loads(rows)["sampler"] for name, rows in after.items() if "dpo-" in name} - {lost["sampler"]}
    assert len(samplers) == 1  # saved anew, to be sampled from


# -- other processes and the machine ------------------------------------------------------------------------------


def test_a_second_runner_waits_for_the_first_one_if_it_is_told_to(offline: Path, tmp_path: Path, until: Until) -> None:
    offline.write_text(offline.read_text().replace("[first,", "[{uses: first, with: {waits: ./go}},"))
    runs, common = tmp_path / "runs", (offline, "--runs-dir", tmp_path / "runs", "--trust", "--plain")
    first = start(*common)
    until(lambda: "stage_started" in names(runs, "offline/1") or first.poll() is not None)
    refused = charrun(*common)
    assert refused.code == 7
    assert f"is being written by process {first.pid} on {os.uname().nodename}: __main__.py {offline}" in refused.err
    assert "or add --wait" in refused.err
    waiting = start(*common, "--wait")
    until(lambda: "; waiting for it" in (runs / "offline/1/journal.jsonl").read_text() or waiting.poll() is not None)
    (tmp_path / "go").touch()
    assert ended(first).code == 0
    second = ended(waiting)
    assert second.code == 0 and "first        3 numbers (already done)" in second.out
    assert names(runs, "offline/1").count("stage_started") == 2  # each stage once, by the first one


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[Path]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_ends_a_run_in_one_sentence_and_the_same_command_goes_on(offline: Path, tmp_path: Path) -> None:
    offline.write_text(offline.read_text().replace("[first,", "[{uses: first, with: {rows: 3000}},"))
    with mounted(tmp_path / "small", "-o", "size=2m") as runs:
        full = charrun(offline, "--runs-dir", runs, "--trust")
        assert full.code == 5 and "Traceback" not in full.text
        assert "No space left on device" in full.err and "make room and run the same command again" in full.err
        assert [*runs.rglob("numbers-*"), *runs.rglob(".tmp-*")] == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(runs)], check=True)
        assert charrun(offline, "--runs-dir", runs, "--trust").code == 0


def test_a_disk_that_fills_while_rows_are_stored_loses_nothing_that_is_stored(
    sampled: Path, tmp_path: Path, demo_engine: RunningEngine
) -> None:
    env = key(demo_engine, demo_engine.base_url)
    with mounted(tmp_path / "small", "-o", "size=64k") as runs:
        sampled.write_text(SAMPLED.replace("pairs: 6", "pairs: 40"))
        full = charrun(sampled, "--runs-dir", runs, "--yes", env=env)
        assert full.code == 5 and "Traceback" not in full.text, full.text
        assert "No space left on device" in full.err and "make room" in full.err
        kept = stored(runs)
        subprocess.run(["mount", "-o", "remount,size=20m", str(runs)], check=True)
        done = charrun(sampled, "--runs-dir", runs, "--yes", env=env)
        assert done.code == 0, done.text
        assert stored(runs) >= 80 > kept


def test_a_folder_that_cannot_be_written_ends_a_run_in_one_sentence(offline: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "size=20m") as runs:
        subprocess.run(["mount", "-o", "remount,ro", str(runs)], check=True)
        refused = charrun(offline, "--runs-dir", runs, "--trust")
        assert refused.code == 5 and "Traceback" not in refused.text
        assert "Read-only file system" in refused.err and "--runs-dir" in refused.err
        subprocess.run(["mount", "-o", "remount,rw", str(runs)], check=True)
        assert charrun(offline, "--runs-dir", runs, "--trust", "--until", "first").code == 0
        subprocess.run(["mount", "-o", "remount,ro", str(runs)], check=True)
        midway = charrun(offline, "--runs-dir", runs, "--trust")
        assert midway.code == 5 and "Read-only file system" in midway.err and "Traceback" not in midway.text
        subprocess.run(["mount", "-o", "remount,rw", str(runs)], check=True)
        assert charrun(offline, "--runs-dir", runs, "--trust").code == 0


JUMPING = """
import time
_time, _calls = time.time, [0]
def jumping():
    _calls[0] += 1
    return _time() + (-86400.0, 0.0, 40 * 86400.0)[_calls[0] % 3]
time.time = jumping
"""


def test_a_clock_that_jumps_changes_nothing(sampled: Path, tmp_path: Path, demo_engine: RunningEngine) -> None:
    sampled.write_text(SAMPLED.replace("pairs]", "pairs, {uses: dpo, with: {batch_size: 2, checkpoint_every: 1}}]"))
    env = key(demo_engine, demo_engine.base_url)
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(JUMPING)
    jumping = {**env, "PYTHONPATH": str(tmp_path / "site")}
    assert charrun(sampled, "--runs-dir", tmp_path / "steady", "--yes", env=env).code == 0
    command = (sampled, "--runs-dir", tmp_path / "jumping", "--yes")
    assert charrun(*command, env={**jumping, "CHARRUN_FAULT": "step.done:2"}).code == -signal.SIGKILL
    outcome = charrun(*command, env=jumping)
    assert outcome.code == 0, outcome.text
    assert [event["seq"] for event in events(tmp_path / "jumping", "tiny/1")] == list(
        range(len(events(tmp_path / "jumping", "tiny/1")))
    )
    rows = [{n: r for n, r in published(tmp_path / d).items() if "dpo-" not in n} for d in ("steady", "jumping")]
    assert rows[0] == rows[1]
    (steady,), (jumped,) = ((tmp_path / d / "store").glob("dpo-*/steps.jsonl") for d in ("steady", "jumping"))
    assert steady.read_bytes() == jumped.read_bytes()


def test_work_that_cells_share_fails_once(offline: Path, tmp_path: Path) -> None:
    text = OFFLINE.format(characters="pirate, gardener").replace("[first,", "[{uses: first, with: {fails: ./bad}},")
    offline.write_text(text)
    (tmp_path / "bad").touch()
    failed = charrun(offline, "--runs-dir", tmp_path / "runs", "--trust", "--plain")
    assert failed.code == 1 and "2 of 2 cells failed" in failed.err and failed.err.count("it was told to fail") == 1
    assert names(tmp_path / "runs", "offline/1").count("stage_started") == 1
    (tmp_path / "bad").unlink()
    assert charrun(offline, "--runs-dir", tmp_path / "runs", "--trust").code == 0


def test_a_part_of_a_run_does_not_hide_the_whole(offline: Path, tmp_path: Path) -> None:
    command = (offline, "--runs-dir", tmp_path / "runs", "--trust")
    assert charrun(*command).code == 0
    report = (tmp_path / "runs/offline/1/report.md").read_text()
    assert charrun(*command, "--only", "first").code == 0
    assert (tmp_path / "runs/offline/1/report.md").read_text() == report
    snapshot = json.loads((tmp_path / "runs/offline/1/run.json").read_text())
    assert [stage["rows"] for stage in snapshot["cells"][0]["stages"]] == [{"numbers": 3}, {"sum": 1}]


def test_a_service_that_wants_to_be_paid_ends_the_run_in_one_sentence(
    sampled: Path, tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine
) -> None:
    env, runs = key(demo_engine, proxy.base_url), tmp_path / "runs"
    unpaid = '{"detail": "no credit is left"}'
    proxy.begin([Fault(SAMPLE, "status", nth=4, times=FOR_EVER, status=402, body=unpaid)])
    outcome = charrun(sampled, "--runs-dir", runs, "--yes", env=env)
    assert outcome.code == 5 and "Traceback" not in outcome.text
    assert "error: the service wants to be paid: " in outcome.err and "no credit is left" in outcome.err
    assert "add credit, then run the same command again" in outcome.err
    assert stored(runs) == 3  # what was answered before
    proxy.begin()
    assert charrun(sampled, "--runs-dir", runs, "--yes", env=env).code == 0
