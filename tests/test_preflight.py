"""What is bound to fail at a service does so before anything is paid, with a budget and without."""

from __future__ import annotations

import contextlib
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
from charrun.errors import EnvironmentProblem
from charrun.pipeline.choice import choose
from charrun.pipeline.dry_run import run_dry
from charrun.pipeline.plan import plan
from charrun.pipeline.run import plan_cells
from charrun.plugins import engine_tinker
from charrun.service import disk_checks
from charrun.service.engine import EngineRequest

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


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ({"b": {"sampleable": False}}, ["the service does not sample from 'b'"]),
        ({"b": {"trainable": False}}, ["the service does not train 'b'"]),
        (
            {"a": {"sampleable": False}, "b": {"trainable": False}},
            ["the service does not sample from 'a'", "the service does not train 'b'"],
        ),
        ({"a": {"trainable": False}}, []),
        ({"c": {"trainable": False, "sampleable": False}}, []),
    ],
)
def test_a_model_is_taken_for_what_the_service_says_that_it_can_do(
    says: dict[str, dict[str, bool]], told: list[str], tmp_path: Path
) -> None:
    """`a` is only asked, `b` is trained too, and `d` is there beside them."""
    from tinker.types import SupportedModel

    served = {name: SupportedModel(model_name=name, **says.get(name, {})) for name in "abcd"}
    request = EngineRequest(["a", "b"], {}, tmp_path, tmp_path / "log", trained=["b"])
    with contextlib.nullcontext() if not told else pytest.raises(EnvironmentProblem) as caught:
        engine_tinker._require_uses(request, served)
    if caught is not None:
        assert caught.value.message.splitlines() == told and caught.value.hint.startswith("it does both with ")
        assert caught.value.hint.endswith("d") and not set(says) & set(caught.value.hint.rpartition("with ")[2])


def test_a_disk_without_room_is_told_before_anything_is_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shutil.disk_usage(tmp_path)
    disk_checks.require_room(tmp_path / "runs")
    monkeypatch.setattr(disk_checks, "_TOO_LITTLE", whole.free + (1 << 40))
    monkeypatch.setattr(disk_checks, "_LITTLE", whole.free + (1 << 40))
    with pytest.raises(EnvironmentProblem, match=r"^only [0-9.,]+ GiB are free for .*runs: nothing was begun$"):
        disk_checks.require_room(tmp_path / "runs")


@pytest.mark.parametrize("name", ["pirate-smoke", "pirate-mini"])
def test_a_few_rows_of_each_stage_fail_of_no_spec_that_ships(name: str, tmp_path: Path) -> None:
    loaded = load(str(SPECS / f"{name}.yaml"), ["engine=tinker"])
    choice = choose(loaded.spec, loaded.registry)
    cells = plan_cells(choice, loaded.registry, tmp_path)
    plan(cells)
    found = run_dry(choice, loaded.registry, tmp_path, cells, tiny=True)
    assert found.gaps == {} == found.failed
    assert {place.stage for place in found.used} >= {"teacher", "student", "dpo", "reflection", "interaction", "sft"}
