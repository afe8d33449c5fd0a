"""Arms and presets: variations of every cell, and a published run's options under the spec's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import SPECS, charrun

from charrun.commands.loading import load, stage_infos
from charrun.errors import SpecError
from charrun.pipeline.selection import Selection
from charrun.plugin_manager import load_registry
from charrun.spec import Spec
from charrun.spec.arms import shipped_arms
from charrun.spec.presets import load_preset, shipped_presets
from charrun.store.runs import find_run

SMOKE = "version: 1\nextends: builtin:pirate-smoke\nname: varied\n"


def spec_of(folder: Path, more: str) -> Spec:
    path = folder / "spec.yaml"
    path.write_text(SMOKE + more, encoding="utf-8")
    return load(str(path)).spec


def ids_of(spec: Spec) -> dict[str, list[str]]:
    return {cell.arm.name: [item.id for item in cell.arm.stages] for cell in spec.cells}


def test_every_cell_is_run_once_with_each_arm_whose_stages_are_laid_over_the_specs(tmp_path: Path) -> None:
    spec = spec_of(
        tmp_path, "seed: [1, 2]\narms: [full, dpo-only, {name: hot, stages: {teacher: {with: {temperature: 1}}}}]\n"
    )
    assert [cell.name for cell in spec.cells] == [
        f"pirate-qwen3-30b-a3b-smoke-s{seed}-{arm}" for seed in (1, 2) for arm in ("full", "dpo-only", "hot")
    ]
    ids = ids_of(spec)
    assert ids["full"] == ids["hot"] == [item.id for item in spec.stages]
    assert ids["dpo-only"] == [id for id in ids["full"] if id not in ("reflection", "interaction", "sft")]
    hot = next(item for item in spec.cells[2].arm.stages if item.id == "teacher")
    assert hot.options["temperature"] == 1 and spec.stages[1].options["temperature"] == 0.7


def test_an_arm_trains_another_character_and_its_evaluations_look_for_the_cells(tmp_path: Path) -> None:
    (cell,) = spec_of(tmp_path, "arms: [neutral]\n").cells
    assert (cell.character.id, cell.looked_for.id) == ("neutral", "pirate")


def test_what_is_wrong_with_an_arm_is_told_at_its_place(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as failure:
        spec_of(
            tmp_path,
            "arms:\n  - fulll\n  - {name: a, stages: {dpoo: null}}\n  - {name: b, stages: {pairs: null}}\n"
            "  - {name: c, character: nobody}\n  - dpo-only\n  - dpo-only\n",
        )
    told = {(problem.code, problem.line) for problem in failure.value.problems if problem.severity == "error"}
    assert {("SPEC066", 5), ("SPEC037", 6), ("SPEC030", 8), ("SPEC031", 10)} <= told
    assert any("arm 'b': stage 'dpo' needs pairs" in problem.message for problem in failure.value.problems)


def test_cells_are_left_out_and_chosen_by_arm(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "seed: [1, 2]\narms: [full, dpo-only]\nexclude: [{arm: dpo-only, seed: 2}]\n")
    assert len(spec.cells) == 3
    assert [cell.arm.name for cell in Selection(arms=("dpo-only",)).cells(spec)] == ["dpo-only"]
    order = [item.id for item in spec.stages]
    short = ids_of(spec)["dpo-only"]
    start, end = Selection(first="sft", last="evaluate").bounds(short, order)
    assert short[start:end] == ["evaluate"]


@pytest.mark.parametrize("name", sorted(shipped_arms()))
def test_every_shipped_arm_fits_the_shipped_stages(name: str, tmp_path: Path) -> None:
    (cell,) = spec_of(tmp_path, f"arms: [{name}]\n").cells
    assert cell.arm.name == name and cell.arm.description


def test_report_007_is_what_the_stages_do_unasked() -> None:
    registry = load_registry(third_party=False)
    written = load(str(SPECS / "pirate-smoke.yaml")).spec
    plain = {item.uses: item.options for item in written.stages}
    assert "report-007" in shipped_presets()
    preset = load_preset(shipped_presets()["report-007"], stage_infos(registry))
    for stage, options in preset.items():
        defaults = {
            k: v["default"] for k, v in registry.stages[stage].options_schema["properties"].items() if "default" in v
        }
        assert {key: defaults[key] for key in options} == dict(options), stage
    assert plain["dpo"]["beta"] == preset["dpo"]["beta"]


def test_a_preset_is_under_what_an_item_says_itself(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "description: mine\nstages: {dpo: {beta: 0.3, learning_rate: 2e-4}, teacher: {top_p: 0.5}, unknown: {x: 1}}\n"
    )
    spec = spec_of(tmp_path, "preset: ./mine.yaml\nstages: {dpo: {with: {beta: 0.2, learning_rate: null}}}\n")
    options = {item.id: item.options for item in spec.stages}
    assert (options["dpo"]["beta"], options["dpo"]["learning_rate"], options["teacher"]["top_p"]) == (0.2, 2e-4, 0.5)


def test_what_stays_over_a_preset_from_below_is_told_and_what_is_said_beside_it_is_not(tmp_path: Path) -> None:
    hybrid = charrun("show", SPECS / "pirate-smoke.yaml", "--set", "preset=paper")
    assert hybrid.code == 0
    told = [line for line in hybrid.err.splitlines() if "SPEC073" in line]
    kept = [("learning_rate", "0.0001", "5e-05"), ("batch_size", "16", "32"), ("learning_rate", "2.5e-05", "5e-05")]
    assert len(told) == len(kept)
    for name, ours, theirs in kept:
        assert any(f"SPEC073 {name} is {ours} here and {theirs} in the preset that --set #1 names" in t for t in told)
    removed = [f"--set=stages.{each}=null" for each in ("dpo.with.learning_rate", "dpo.with.batch_size")]
    rest = charrun("show", SPECS / "pirate-smoke.yaml", "--set", "preset=paper", *removed)
    assert rest.text.count("SPEC073") == 1
    spec = spec_of(tmp_path, "preset: paper\nstages: {dpo: {with: {learning_rate: 0.002}}}\n")
    kept_from = [(p.message.partition(" ")[0], p.file) for p in spec.warnings if p.code == "SPEC073"]
    of_base = "builtin:pirate-smoke"
    assert sorted(kept_from) == [("batch_size", of_base), ("learning_rate", of_base)]  # SFT's rate, not DPO's
    assert not [p for p in spec_of(tmp_path, "preset: report-007\n").warnings if p.code == "SPEC073"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("description: x\nstages: {dpo: {bta: 1}}\n", "mine.yaml:2:16 SPEC012"),
        ("stages: {}\n", "mine.yaml:1:1 SPEC015"),
    ],
)
def test_what_is_wrong_in_a_preset_is_told_in_its_file(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SpecError) as failure:
        spec_of(tmp_path, "preset: ./mine.yaml\n")
    places = [f"{Path(p.file).name}:{p.line}:{p.column} {p.code}" for p in failure.value.problems]
    assert told in places
    with pytest.raises(SpecError, match="unknown preset 'papr'"):
        spec_of(tmp_path, "preset: papr\n")


@pytest.mark.slow
def test_arms_share_what_is_the_same_and_resume_from_the_frozen_spec(tmp_path: Path) -> None:
    """A null control and an ablation beside the whole method, at smoke scale."""
    (tmp_path / "spec.yaml").write_text(SMOKE + "arms: [full, dpo-only, neutral]\n", encoding="utf-8")
    runs = tmp_path / "runs"
    done = charrun(tmp_path / "spec.yaml", "--runs-dir", runs, "--arm", "full", "--arm", "dpo-only")
    assert done.code == 0, done.err
    done = charrun(tmp_path / "spec.yaml", "--runs-dir", runs)
    assert done.code == 0, done.err
    (tmp_path / "spec.yaml").unlink()
    resumed = charrun("resume", "--runs-dir", runs)
    assert resumed.code == 0 and "never made" not in resumed.out, resumed.err
    assert len(list((runs / "store").glob("dpo-*"))) == 2  # the whole method's and the control's
    cells = find_run(runs).cells
    assert [cell.rows("evaluation")[0]["scored_as"] for cell in cells] == ["pirate"] * 3
    assert [len(cell.stages) for cell in cells] == [10, 7, 10]
    told = charrun("evidence", "--runs-dir", runs, "--against", "neutral", "--json")
    (group,) = json.loads(told.out)["groups"]
    assert {(rate["arm"], rate["model"]) for rate in group["rates"]} == {
        *((arm, model) for arm in ("full", "neutral") for model in ("base", "dpo", "sft")),
        *(("dpo-only", model) for model in ("base", "dpo")),
    }
    assert all(rate["share"]["n"] == 120 for rate in group["rates"])
    assert charrun("evidence", "--runs-dir", runs, "--against", "nobody").code == 2
