"""`charrun plan --probe`: a few answers before the estimate, paid, kept, and counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Outcome, charrun

from charrun.store.ledger import LEDGER, read_ledger

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import money
from service_sim.process import Running, simulated

ROWS = 8
DPO = "{uses: dpo, with: {lora_rank: 32, monitor: {stop: false}}}"
STAGES = f"[prompts, teacher, student, pairs, {DPO}, reflection, interaction]"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulated(tmp_path_factory.mktemp("service"), money.models(), tokens=40, most_rank=32) as running:
        yield running


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return money.spec_at(tmp_path, money.TINY, stages=STAGES)


def command(service: Running, *words: str | Path, code: int = 0) -> Outcome:
    outcome = charrun(*words, env=service.environment)
    assert outcome.code == code, outcome.text
    return outcome


@pytest.mark.slow
def test_a_probe_is_paid_once_kept_and_makes_the_plan_narrow(service: Running, spec: Path, tmp_path: Path) -> None:
    place = ("--runs-dir", tmp_path / "runs")
    before = service.bill()
    guessed = json.loads(command(service, "plan", spec, *place, "--json").out)["usd"]
    assert money.same(service.bill(), before)
    probed = command(service, "plan", spec, *place, "--json", "--probe", str(ROWS))
    known = json.loads(probed.out)
    assert f"Probing: {4 * ROWS} answers, at most $0." in probed.err
    assert "16 of them are the run's own rows" in probed.err, probed.err
    paid = money.since(money.settled(service), before)
    ledger = read_ledger(tmp_path / "runs/store/probes/simulated.jsonl")
    counted = {model: sum(u.tokens for p, u in ledger.used.items() if p.model == model) for model in paid}
    assert not ledger.open and counted == {model: each.total() for model, each in paid.items()}
    low, high = known["usd"]
    cost = money.dollars(paid)
    assert guessed[0] < low + cost < high + cost < guessed[1] and high - low < 0.25 * (guessed[1] - guessed[0])
    stages = {stage["id"]: stage for stage in known["cells"][0]["stages"]}
    assert stages["reflection"]["basis"] == "8 earlier answers; what a probe found in the engine's cache"
    again = command(service, "plan", spec, *place, "--json", "--probe", str(ROWS))
    assert "Nothing to probe" in again.err and json.loads(again.out)["usd"] == known["usd"]
    command(service, spec, *place, "--yes")
    bill = read_ledger(tmp_path / "runs/simulated/1" / LEDGER)
    asked = {place.stage: usage.requests for place, usage in bill.used.items()}
    assert asked["teacher"] == asked["student"] == 4  # 12 answers less the probe's
    total = json.loads(command(service, "cost", *place, "--json").out)["total"]
    assert low <= total["usd_low"] <= total["usd_high"] <= high


def test_a_probe_that_the_budget_does_not_allow_asks_nothing(service: Running, spec: Path, tmp_path: Path) -> None:
    before = service.bill()
    refused = command(
        service, "plan", spec, "--runs-dir", tmp_path / "runs", "--probe", "8", "--budget", "0.0001", code=6
    )
    assert "nothing was asked for" in refused.err and money.same(service.bill(), before)
    assert not (tmp_path / "runs").exists()


def test_there_is_nothing_to_probe_where_nothing_is_paid(spec: Path, tmp_path: Path) -> None:
    told = charrun("plan", spec, "--runs-dir", tmp_path / "runs", "--set", "engine=local", "--probe", "8")
    assert told.code == 2 and "nothing is paid for on the engine local" in told.err


def test_a_rank_that_the_engine_does_not_train_is_told_before_anything_is_paid(
    service: Running, spec: Path, tmp_path: Path
) -> None:
    before = service.bill()
    refused = command(
        service, spec, "--runs-dir", tmp_path / "runs", "--yes", "--set", "stages.dpo.with.lora_rank=64", code=5
    )
    assert "charrun/demo-student can't be trained with LoRA rank 64, before anything was paid" in refused.err
    assert "--set stages.dpo.with.lora_rank=..." in refused.err and money.same(service.bill(), before)
