"""What is bound to fail at a service does so before anything is paid, with a budget and without."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, SPECS, charrun

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import money as bench
from service_sim.process import Running, simulated

from charrun.commands.loading import load
from charrun.pipeline.choice import choose
from charrun.pipeline.dry_run import run_dry
from charrun.pipeline.plan import plan
from charrun.pipeline.run import plan_cells

CONTEXT = 250
"""Tokens; a reflection's prompt has more, and a teacher's has not."""


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose student has a context that is shorter than the price book or its card would tell."""
    folder = tmp_path_factory.mktemp("narrow")
    student = Path(shutil.copytree(bench.models()[bench.STUDENT], folder / "student"))
    config = json.loads((student / "config.json").read_text())
    (student / "config.json").write_text(json.dumps({**config, "max_position_embeddings": CONTEXT}))
    with simulated(folder / "service", {**bench.models(), bench.STUDENT: student}, tokens=40) as running:
        yield running


@pytest.mark.parametrize("budget", [(), ("--budget", "1"), ("--budget", "1", "--partial")])
def test_a_prompt_that_will_not_fit_the_served_context_is_told_before_anything_is_paid(
    budget: tuple[str, ...], narrow: Running, tmp_path: Path
) -> None:
    spec, before = bench.spec_at(tmp_path, bench.TINY), narrow.bill()
    refused = charrun(spec, "--runs-dir", tmp_path / "runs", "--yes", *budget, env=narrow.environment)
    assert refused.code == 5 and bench.same(bench.settled(narrow), before), refused.text
    error = refused.err.rpartition("error: ")[2]
    assert error.startswith("nothing was begun, since this would fail:\n")
    assert "reflection: a prompt of " in error and f"does not fit the context of {CONTEXT} tokens" in error
    assert "a model with a longer context" in error and not (tmp_path / "runs").exists()


def test_a_part_that_fits_is_run(narrow: Running, tmp_path: Path) -> None:
    spec = bench.spec_at(tmp_path, bench.TINY)
    begun = charrun(spec, "--runs-dir", tmp_path / "runs", "--yes", "--until", "student", env=narrow.environment)
    assert begun.code == 0, begun.text


@pytest.mark.parametrize("name", ["pirate-smoke", "pirate-mini"])
def test_a_few_rows_of_each_stage_fail_of_no_spec_that_ships(name: str, tmp_path: Path) -> None:
    loaded = load(str(SPECS / f"{name}.yaml"), ["engine=tinker"])
    choice = choose(loaded.spec, loaded.registry)
    cells = plan_cells(choice, loaded.registry, tmp_path)
    plan(cells)
    found = run_dry(choice, loaded.registry, tmp_path, cells, tiny=True)
    assert found.gaps == {} == found.failed
    assert {place.stage for place in found.used} >= {"teacher", "student", "dpo", "reflection", "interaction", "sft"}
