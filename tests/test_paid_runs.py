"""Runs on an engine that charges: what went over the wire, budgets that hold, and plans that say so before."""

from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome, RunningEngine, charrun
from faults.ledger import Ledger as Wire
from faults.proxy import Proxy
from paid import SPEC, planned
from small_runs import key, published

from charrun.commands.loading import load
from charrun.pipeline.choice import choose
from charrun.pipeline.foresight import foresee
from charrun.pipeline.plan import LOST, plan, priced
from charrun.pipeline.run import plan_cells
from charrun.pipeline.selection import Selection
from charrun.plugins.engine_tinker import TinkerEngine
from charrun.service.engine import EngineRequest
from charrun.spec.prices import dollars, own_rates
from charrun.store.ledger import LEDGER, read_ledger
from charrun.usage import Usage, of_samples

TEACHER = own_rates({"prefill": 0.68, "sample": 1.7})
Run = Callable[..., Outcome]


@dataclass
class Whole:
    """A run that nothing stopped."""

    runs: Path
    on_the_wire: Usage
    cost: dict[str, Any]

    @property
    def usd(self) -> float:
        """What it cost at the most."""
        return float(self.cost["total"]["usd_high"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy, demo_engine: RunningEngine) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    spec = folder / "paid.yaml"
    spec.write_text(SPEC)
    wire = proxy.begin()
    outcome = charrun(spec, "--runs-dir", folder / "runs", "--yes", env=key(demo_engine, proxy.base_url))
    assert outcome.code == 0, outcome.text
    return Whole(folder / "runs", on_the_wire(wire), cost(folder / "runs"))


@pytest.fixture
def run(tmp_path: Path, proxy: Proxy, demo_engine: RunningEngine) -> Run:
    """The command, in a folder of its own."""
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC)

    def command(*args: str, fault: str = "") -> Outcome:
        env = {**key(demo_engine, proxy.base_url), **({"CHARRUN_FAULT": fault} if fault else {})}
        return charrun(spec, "--runs-dir", tmp_path / "runs", "--yes", *args, env=env)

    return command


def cost(runs: Path) -> dict[str, Any]:
    told = charrun("cost", "--runs-dir", runs, "--json")
    assert told.code == 0, told.text
    document: dict[str, Any] = json.loads(told.out)
    return document


def rows_of(files: dict[str, bytes]) -> dict[str, bytes]:
    """All but checkpoints, whose rows hold paths at the engine."""
    return {name: rows for name, rows in files.items() if "/checkpoint-" not in name}


def on_the_wire(wire: Wire) -> Usage:
    """What a service would charge for the samples and scores that it answered, read from its answers."""
    from tinker import types
    from tinker.proto.response_conv import deserialize_proto_response

    total = Usage()
    for ask in wire.asks.values():
        if ask.request_id:
            assert ask.delivered
            response = deserialize_proto_response(ask.result, types.SampleResponse)
            hits = response.prompt_cache_hit_tokens
            total.requests += 1
            total.prefill_tokens += ask.prompt_tokens - hits
            total.cached_tokens += hits + (ask.sequences - 1) * ask.prompt_tokens
            total.sampled_tokens += sum(len(sequence.tokens) for sequence in response.sequences)
    return total


# -- runs ---------------------------------------------------------------------------------------------------------


def test_the_ledger_is_what_went_over_the_wire(whole: Whole) -> None:
    counted = read_ledger(whole.runs / "paid/1" / LEDGER)
    assert not counted.open
    answered, total = whole.on_the_wire, counted.all()
    for name in ("requests", "prefill_tokens", "cached_tokens", "sampled_tokens"):
        assert getattr(total, name) == getattr(answered, name) > 0
    tickets = [json.loads(path.read_text()) for path in (whole.runs / "store").glob("*/done/*.json")]
    for name, value in total.counted().items():  # nothing was there before: the work is what was paid for
        assert sum(ticket["usage"][name] for ticket in tickets) == value
    rows = whole.cost["rows"]
    assert {row["stage"] for row in rows} == {"teacher", "student", "dpo", "reflection", "interaction", "sft"}
    again = charrun("cost", "--runs-dir", whole.runs, "--csv")
    assert again.out.splitlines()[0].startswith("cell,stage,model,requests,prefill_tokens,cached_tokens")
    assert len(again.out.splitlines()) == 1 + len(rows)
    told = charrun("cost", "--runs-dir", whole.runs, "--by", "model").out
    assert "charrun/demo-teacher" in told and "Budget: $1.00; $" in told


def test_storage_is_told_after_a_run_and_before_the_next(
    whole: Whole, proxy: Proxy, demo_engine: RunningEngine, tmp_path: Path
) -> None:
    """As the engine's own files are large, and in proportion to the rank."""
    rows = [json.loads(line) for path in whole.runs.glob("store/*/checkpoint-*.jsonl") for line in path.open()]
    assert [row["stage"] for row in sorted(rows, key=lambda row: str(row["stage"]))] == ["dpo", "sft"]
    folders = [demo_engine.storage / _folder(row[kind]) for row in rows for kind in ("state", "sampler")]
    files = [file for folder in folders for file in folder.iterdir() if file.name != "meta.json"]
    size = sum(file.stat().st_size for file in files)
    assert whole.cost["storage_bytes"] == size
    told = charrun("cost", "--runs-dir", whole.runs).out
    assert f"until you delete them: {size / 1e9:.3g} GB, $" in told
    assert f"until you delete them: {size / 1e9:.3g} GB, $" in next(whole.runs.glob("*/*/report.md")).read_text()

    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC)

    def planned(*args: str) -> int:
        env = key(demo_engine, proxy.base_url)
        outcome = charrun("plan", spec, "--runs-dir", whole.runs, "--json", "--set", "seed=9", *args, env=env)
        return int(json.loads(outcome.out)["storage_bytes"])

    assert planned() == pytest.approx(size, rel=0.01)
    assert planned("--set", "stages.dpo.with.lora_rank=32") == pytest.approx(size / 2, rel=0.01)


def _folder(path: str) -> str:
    """Where the local engine keeps a checkpoint."""
    run, kind, name = path.removeprefix("tinker://").split("/")
    return f"{run.replace(':', '_')}/{kind}/{name}"


@pytest.mark.slow
def test_what_stopped_for_its_budget_goes_on_under_a_higher_one(
    run: Run, tmp_path: Path, proxy: Proxy, whole: Whole
) -> None:
    """And ends with the same rows as a run that nothing stopped, having paid for nothing twice."""
    wire = proxy.begin()
    for part in (0.3, 0.8):
        usd = f"{part * whole.usd:.6f}"
        stopped = run("--budget", usd, "--partial")
        assert stopped.code == 6 and "Traceback" not in stopped.text, stopped.text
        assert f"of ${float(usd):.4f} are spent, and the next request of" in stopped.err
        spent = cost(tmp_path / "runs")
        assert spent["total"]["usd_high"] + spent["total"]["usd_in_doubt"] <= float(usd)
        assert spent["requests_without_end"] == 0 and spent["budget_usd"] == float(usd)
    finished = run()
    assert finished.code == 0, finished.text
    asked = [ask.key for ask in wire.asks.values() if not ask.scores]
    assert len(set(asked)) == len(asked)
    assert [path.name for path in (tmp_path / "runs/paid").iterdir()] == ["1"]
    assert rows_of(published(tmp_path / "runs")) == rows_of(published(whole.runs))


def test_a_killed_run_keeps_its_budget(run: Run, tmp_path: Path, proxy: Proxy) -> None:
    wire = proxy.begin()
    assert run("--until", "teacher", fault="row.after:2").code == -signal.SIGKILL  # of four
    counted = read_ledger(tmp_path / "runs/paid/1" / LEDGER)
    sent = sum(bool(ask.request_id) for ask in wire.asks.values())
    assert counted.all().requests <= sent <= counted.all().requests + len(counted.open)
    before = cost(tmp_path / "runs")["total"]
    dearest = max(TEACHER.cost(of_samples(ask.prompt_tokens, 0, 2, 2 * 512)).high for ask in wire.asks.values())
    usd = before["usd_high"] + before["usd_in_doubt"] + dollars(dearest) + 1e-6  # one of the two that are left
    stopped = run("--until", "teacher", "--budget", f"{usd:.9f}", "--partial")
    assert stopped.code == 6, stopped.text
    after = cost(tmp_path / "runs")["total"]
    assert before["usd_high"] < after["usd_high"] and after["usd_in_doubt"] == before["usd_in_doubt"]
    assert after["usd_high"] + after["usd_in_doubt"] <= usd


@pytest.mark.slow
def test_a_budget_of_the_spec_may_change_and_the_run_is_the_same(run: Run, tmp_path: Path) -> None:
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC.replace("usd: 1", "usd: 0.0008"))
    refused = run()
    assert refused.code == 6 and "and its budget is $0.0008: nothing was begun" in refused.err
    assert "--partial to begin anyway" in refused.err and not (tmp_path / "runs/paid").exists()
    stopped = run("--partial")
    assert stopped.code == 6 and "a higher --budget" in stopped.err
    assert re.search(r"finishing would cost \$0\.\d{4} to \$0\.\d{4} more", stopped.err)
    spec.write_text(SPEC.replace("usd: 1", "usd: 2, stages: {teacher: 1}"))
    assert run("--until", "student").code == 0
    assert [path.name for path in (tmp_path / "runs/paid").iterdir()] == ["1"]
    assert charrun("verify", "--runs-dir", tmp_path / "runs").code == 0


# -- foresight ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bill_is_within_what_the_plan_says(whole: Whole, tmp_path: Path) -> None:
    """From stated defaults in a wide range, from earlier answers in a narrow one."""
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC)
    before = sorted(whole.runs.rglob("*"))
    bill = whole.cost["total"]
    guessed = planned(spec, tmp_path / "none")
    assert guessed["usd"][0] <= bill["usd_low"] <= bill["usd_high"] <= guessed["usd"][1]
    assert not (tmp_path / "none").exists() and guessed["tokenizers_missing"] == guessed["not_foreseen"] == []
    stages = {stage["id"]: stage for stage in guessed["cells"][0]["stages"]}
    assert stages["teacher"]["basis"] == "answers of 1/32 of max_tokens to all of it"
    for row in whole.cost["rows"]:
        low, high = (stages[row["stage"]][end][row["model"]] for end in ("low", "high"))
        assert low["requests"] == high["requests"] == row["requests"], (row["stage"], low, high, row)
        for ends in (low, high):  # the prompts are the real ones, counted with the real tokenizer
            if row["stage"] in ("teacher", "student", "reflection"):
                assert ends["prefill_tokens"] + ends["cached_tokens"] == row["prefill_tokens"] + row["cached_tokens"]
        for name in ("sampled_tokens", "forward_tokens", "trained_tokens"):
            assert low[name] <= row[name] <= high[name], (row["stage"], name)
    student = "charrun/demo-student-small"
    for stage in ("dpo", "sft"):  # the steps stand in no ledger
        (path,) = (whole.runs / "store").glob(f"{stage}-*/done/*.json")
        low, high = (stages[stage][end][student]["steps"] for end in ("low", "high"))
        assert low == high == json.loads(path.read_text())["usage"]["steps"] > 0
    known = planned(spec, whole.runs, "--set", "seed=8")
    assert guessed["usd"][0] < known["usd"][0] and known["usd"][1] < guessed["usd"][1]
    assert {stage["basis"] for stage in known["cells"][0]["stages"]} >= {"8 earlier answers", "10 earlier answers"}
    small = planned(spec, whole.runs, "--budget", "0.000001")
    done = planned(spec, whole.runs)
    assert small["usd"] == done["usd"]
    assert done["usd"] == [0.0, 0.0] and done["spent_usd"] == pytest.approx(bill["usd_high"])
    assert sorted(whole.runs.rglob("*")) == before


def test_cells_that_are_done_cost_nothing_more(whole: Whole, tmp_path: Path) -> None:
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC.replace("seed: 7", "seed: [7, 8]"))
    plan = planned(spec, whole.runs)
    done, left = plan["cells"]
    assert {stage["state"] for stage in done["stages"]} == {"done"}
    assert all(stage["usd"] == [0.0, 0.0] for stage in done["stages"])
    rest = sum(stage["usd"][1] for stage in left["stages"])
    assert rest > 0 and plan["usd"][1] == pytest.approx(rest)


def test_what_is_stored_is_foreseen_as_free(run: Run, tmp_path: Path, proxy: Proxy) -> None:
    proxy.begin()
    assert run("--until", "teacher", fault="row.after:3").code == -signal.SIGKILL  # three of four answers
    plan = planned(tmp_path / "paid.yaml", tmp_path / "runs")
    (teacher,) = [stage for stage in plan["cells"][0]["stages"] if stage["id"] == "teacher"]
    assert teacher["low"]["charrun/demo-teacher"]["requests"] == 1
    assert plan["spent_usd"] > 0


def test_a_checkpoint_that_is_lost_is_foreseen_to_be_trained_again(whole: Whole, tmp_path: Path) -> None:
    """Where a stage that is to do consumes it; what that cost the first time is within what is foreseen."""
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC)
    loaded = load(str(spec))
    choice = replace(choose(loaded.spec, loaded.registry), engine=Forgetful())
    cells = plan_cells(choice, loaded.registry, whole.runs, Selection(forced=("reflection",)))
    (planned_cell,) = plan(cells)
    (dpo,) = [stage for stage in planned_cell.stages if stage.id == "dpo"]
    assert (dpo.state, dpo.reason) == ("to do", LOST)
    foreseen = foresee(choice, loaded.registry, whole.runs, cells)
    assert foreseen.gaps == {}
    (dpo,) = [stage for stage in priced([planned_cell], foreseen)[0].stages if stage.id == "dpo"]
    (row,) = [row for row in whole.cost["rows"] if row["stage"] == "dpo"]
    assert dpo.low[row["model"]].trained_tokens <= row["trained_tokens"] <= dpo.high[row["model"]].trained_tokens
    assert row["trained_tokens"] and dpo.usd and 0 < dpo.usd[0] <= row["usd_high"] and row["usd_low"] <= dpo.usd[1]


def test_a_checkpoint_that_is_soon_gone_is_told_before_a_stage_that_needs_it_is_paid(
    whole: Whole, run: Run, demo_engine: RunningEngine, tmp_path: Path
) -> None:
    import tinker

    shutil.copytree(whole.runs, tmp_path / "runs")
    (file,) = whole.runs.glob("store/dpo-*/checkpoint-*.jsonl")
    path = json.loads(file.read_text())["sampler"]
    rest = tinker.RestClient(base_url=demo_engine.base_url, api_key=demo_engine.api_key)
    rest.set_checkpoint_ttl_from_tinker_path(path, 3600).result()
    try:
        told = run("--force", "reflection", "--until", "reflection")
        assert told.code == 0, told.text
        (line,) = [
            line for line in told.err.splitlines() if line.startswith("warning: the checkpoint of dpo is gone on")
        ]
        assert line.endswith(f"tinker checkpoint set-ttl --remove {path}")
    finally:
        rest.set_checkpoint_ttl_from_tinker_path(path, None).result()
    quiet = run("--force", "reflection", "--until", "reflection")
    assert quiet.code == 0 and "is gone on" not in quiet.err


class Forgetful(TinkerEngine):
    """A service that holds no checkpoint any more."""

    def holds(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, bool]:
        return dict.fromkeys(paths, False)


def test_what_earlier_answers_show_to_be_cut_is_foreseen_to_be_made_up_for(whole: Whole, tmp_path: Path) -> None:
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC)
    records = [json.loads(line) for path in whole.runs.glob("store/teacher-*/items.jsonl") for line in path.open()]
    lengths = sorted(len(each["tokens"]) for record in records for each in record["sequences"])
    assert len(lengths) == 8

    def teacher(max_tokens: int) -> dict[str, Any]:
        plan = planned(spec, whole.runs, "--set", "seed=8", "--set", f"stages.teacher.with.max_tokens={max_tokens}")
        assert plan["not_foreseen"] == []
        (found,) = [stage for stage in plan["cells"][0]["stages"] if stage["id"] == "teacher"]
        return {**found, "calls": found["high"]["charrun/demo-teacher"]["requests"]}

    longer, shorter = teacher(lengths[-1]), teacher(lengths[-2] - 1)
    assert longer["calls"] == longer["requests"] == 4
    assert shorter["calls"] > shorter["requests"] == 4, "two of eight would be cut, and others are asked for instead"
