"""What probes have paid: which budget it counts against, and where it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY

from charrun.errors import BudgetReached
from charrun.pipeline.spending import Spending
from charrun.report.cost import cost_csv, cost_document, cost_lines, cost_records, probe_records
from charrun.spec.prices import Rates, own_rates
from charrun.store.ledger import LEDGER, Ledger, Place, Totals, read_ledger
from charrun.store.probes import free_probes, probe_ledger, probes_of, take_probes
from charrun.usage import Usage

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import money
from service_sim.process import Running, simulated

MODEL = "m"
RATES: dict[str, Rates | None] = {MODEL: own_rates({"prefill": 1.0, "sample": 1.0, "train": 1.0})}
MOST = Usage(requests=1, prefill_tokens=100_000)  # $0.10


def probed(runs: Path, spec: str = "pirate", *, killed: bool = False) -> None:
    """A probe of one request."""
    path = probe_ledger(runs, spec)
    path.parent.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(path)
    number = ledger.reserve(Place("", "teacher", MODEL), MOST)
    assert number
    if not killed:
        ledger.settle(number, Usage(requests=1, prefill_tokens=40_000))
    ledger.close()


def run_folder(runs: Path, number: int, spec: str = "pirate") -> Path:
    folder = runs / spec / str(number)
    folder.mkdir(parents=True)
    return folder


def begun(folder: Path) -> Path:
    """The run's ledger has a line."""
    spending(folder, None).enter(Place("cell", "teacher", MODEL), Usage(requests=1))
    return folder


def spending(folder: Path, limit: float | None) -> Spending:
    rates = RATES.__getitem__
    return Spending(lambda heard: Ledger(folder / LEDGER, heard), rates, limit, {}, lambda error: None)


def tokens(totals: Totals) -> tuple[int, int]:
    return totals.all().tokens, sum(most.tokens for most in totals.in_doubt().values())


def test_what_probes_for_a_run_have_paid_counts_against_its_budget(tmp_path: Path) -> None:
    for _ in range(3):
        probed(tmp_path)
    first = spending(run_folder(tmp_path, 1), 0.25)
    with pytest.raises(BudgetReached) as caught:
        for _ in range(2):
            first.enter(Place("cell", "teacher", MODEL), MOST)
    assert "$0.2200 of $0.2500 are spent ($0.1200 by probes)" in caught.value.message
    spending(run_folder(tmp_path, 2), 0.25).enter(Place("cell", "teacher", MODEL), MOST)
    second = spending(tmp_path / "pirate/2", 0.25)
    assert second.ledger and not tokens(probes_of(tmp_path / "pirate/2"))[0], "the first run has paid for them"


def test_each_probe_counts_once_for_the_next_run_that_begins_and_for_probes_until_then(tmp_path: Path) -> None:
    probed(tmp_path)
    probed(tmp_path, "gardener")
    assert tokens(free_probes(tmp_path, "pirate")) == (40_000, 0)
    waiting = run_folder(tmp_path, 1)
    assert tokens(probes_of(waiting)) == (40_000, 0), "it would be the run's with its first request"
    begun(run_folder(tmp_path, 2))
    assert [tokens(probes_of(tmp_path / "pirate" / n))[0] for n in "12"] == [0, 40_000]
    assert not tokens(free_probes(tmp_path, "pirate"))[0] and tokens(free_probes(tmp_path, "gardener"))[0] == 40_000
    probed(tmp_path)
    begun(tmp_path / "pirate/2")
    assert tokens(probes_of(tmp_path / "pirate/2"))[0] == 40_000, "a probe for another resolved spec is not this run's"
    take_probes(tmp_path / "pirate/2")
    assert tokens(probes_of(tmp_path / "pirate/2"))[0] == 80_000


def test_requests_of_a_killed_probe_count_at_their_most(tmp_path: Path) -> None:
    probed(tmp_path, killed=True)
    folder = begun(run_folder(tmp_path, 1))
    assert tokens(probes_of(folder)) == (0, 100_000)
    with pytest.raises(BudgetReached, match="by probes"):
        spending(folder, 0.15).enter(Place("cell", "teacher", MODEL), MOST)


def test_cost_tells_of_probes_beside_the_sums(tmp_path: Path) -> None:
    probed(tmp_path)
    probed(tmp_path, killed=True)
    folder = begun(run_folder(tmp_path, 1))
    totals, probes = read_ledger(folder / LEDGER), probes_of(folder)
    lines = cost_lines(totals, RATES, 0.5, probes)
    assert any(
        line.startswith("Probes have paid $0.0400 before, and at most $0.1000 for what has no end") for line in lines
    )
    assert "Budget: $0.5000; $0.3600 are left." in lines
    document = cost_document("pirate/1", totals, RATES, 0.5, probes)
    assert document["probes"]["usd_high"] == 0.04 and document["probes"]["usd_in_doubt"] == 0.1
    assert document["total"] == cost_document("pirate/1", totals, RATES, 0.5)["total"]
    records = [*cost_records(totals, RATES), *probe_records(probes, RATES)]
    _, *rows = cost_csv(records).splitlines()
    assert [row for row in rows if row.startswith(",(probes),m,1,40000,")], rows


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulated(tmp_path_factory.mktemp("service"), money.models(), tokens=40) as running:
        yield running


@pytest.mark.slow
def test_probes_and_their_run_together_stay_within_the_budget_and_the_rest_costs_what_the_plan_says(
    service: Running, tmp_path: Path
) -> None:
    spec, runs, budget = money.spec_at(tmp_path, money.TINY), tmp_path / "runs", 0.05
    before = service.bill()
    for rows, code in ((16, 0), (200, 6)):
        words = ["plan", spec, "--runs-dir", runs, "--probe", rows, "--budget", budget]
        done = subprocess.run(
            [sys.executable, "-m", "charrun", *map(str, words)],
            env={**os.environ, **service.environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
    assert "left of the budget: nothing was asked for" in done.stderr
    assert money.run(service, spec, runs, "--partial", "--budget", str(budget)) == 6
    stopped = money.settled(service)
    paid = money.dollars(money.since(stopped, before))
    assert 0.5 * budget < paid <= budget
    plan = money.told("plan", spec, "--runs-dir", runs, "--json")
    assert plan["spent_usd"] == pytest.approx(paid)
    assert money.run(service, spec, runs) == 0
    rest = money.since(money.settled(service), stopped)
    low, high = plan["usd"]
    assert low <= money.dollars(rest) <= high, json.dumps(plan["cells"][0]["stages"])
