"""How a run goes on and how it is interrupted: the contract of `charrun.pipeline.run`, by its commands."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun, RunningEngine, charrun
from faults.plan import FOR_EVER, SAMPLE, Fault
from faults.proxy import Proxy
from small_runs import SAMPLED, STAGES, Until, ended, events, key, names, published, start, stored

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


@pytest.mark.slow
def test_what_the_gates_drop_is_made_up_for_on_both_sides_from_the_same_prompts(tmp_path: Path) -> None:
    path, runs = tmp_path / "spec.yaml", tmp_path / "runs"
    gates = "stages: {pairs: {with: {gates: {near_duplicate: 0.12}}}}\n"
    path.write_text(f"version: 1\nextends: builtin:pirate-smoke\nname: topped\n{gates}")
    done = charrun(path, "--until", "pairs", "--runs-dir", runs)
    assert done.code == 0 and "more needed: the gates dropped" in done.text, done.text
    rows = {kind: sorted(runs.glob(f"store/*/{kind}-*.jsonl"), key=lambda p: len(p.read_bytes()))[-1].read_text()
            for kind in ("prompts", "chosen", "rejected", "pairs")}  # fmt: skip
    ids = {kind: [json.loads(row)["id"] for row in text.splitlines()] for kind, text in rows.items()}
    assert len(ids["pairs"]) == 16 < len(ids["prompts"]) < 24
    assert ids["chosen"] == ids["rejected"] == [f"{id}-0" for id in ids["prompts"]]
    asked = [
        len(p.read_text().splitlines())
        for stage in ("teacher", "student")
        for p in runs.glob(f"store/{stage}-*/items.jsonl")
    ]
    assert asked == [len(ids["prompts"])] * 2  # asked for once, and for no more than there are prompts
    again = charrun(path, "--until", "pairs", "--runs-dir", runs)
    assert again.code == 0 and "more needed" not in again.text


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


def test_a_character_that_an_option_names_lies_beside_the_file_that_says_so(sampled: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    shutil.copy(SPECS / "characters" / "gardener.yaml", base / "other.yaml")
    text = SAMPLED.replace("pairs]", "pairs, dpo, {uses: evaluate, with: {scored_as: ./other.yaml}}]")
    (base / "base.yaml").write_text(text)
    sampled.write_text("extends: ./base/base.yaml\nname: tiny\n")
    planned = charrun("plan", sampled, "--runs-dir", tmp_path / "runs")
    assert planned.code == 0, planned.text
    (base / "other.yaml").unlink()
    refused = charrun("plan", sampled, "--runs-dir", tmp_path / "runs")
    assert refused.code == 3 and "RUN001 scored_as: ./other.yaml: no such file" in refused.err, refused.text


def test_a_run_whose_frozen_spec_is_gone_says_what_to_do(offline: Path, tmp_path: Path) -> None:
    assert charrun(offline, "--runs-dir", tmp_path / "runs", "--trust").code == 0
    (tmp_path / "runs/offline/1/spec.json").write_text("{")
    refused = charrun("resume", "--runs-dir", tmp_path / "runs")
    assert (refused.code, "is missing or damaged\n  run the spec itself again" in refused.err) == (5, True)
    other = tmp_path / "other.yaml"
    other.write_text(offline.read_text().replace("seed: 7", "seed: 8"))
    assert charrun(other, "--runs-dir", tmp_path / "others", "--trust").code == 0
    frozen = (tmp_path / "others/offline/1/spec.json").read_bytes()
    (tmp_path / "runs/offline/1/spec.json").write_bytes(frozen)  # sound, and another run's
    refused = charrun("resume", "--runs-dir", tmp_path / "runs")
    assert (refused.code, "is not the spec that the run was begun with" in refused.err) == (5, True)
    (tmp_path / "runs/offline/1/spec.json").write_text("{")
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
    assert "failed" not in outcome.text
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
    assert "error: the engine has answered none of 12 requests for 3 seconds" in outcome.err
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
