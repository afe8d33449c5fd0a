"""A command may be about a part of a spec: some cells, some stages, some of them anew."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS, FinishedRun, charrun
from jsonschema import Draft7Validator
from run_copies import publish_instead

from charrun.commands.loading import resolve
from charrun.errors import StageFailed, UsageProblem
from charrun.pipeline.cell import Cell
from charrun.pipeline.checks import passed_cells
from charrun.pipeline.choice import choose
from charrun.pipeline.plan import plan
from charrun.pipeline.run import plan_cells
from charrun.pipeline.selection import Selection
from charrun.plugin_manager import load_registry
from charrun.report.event_lines import event_schema
from charrun.spec import Spec
from charrun.store.runs import find_run

REGISTRY = load_registry(third_party=False)
SMOKE = str(SPECS / "pirate-smoke.yaml")
MATRIX = (
    "characters=[pirate, gardener]",
    "models=[{teacher: charrun/demo-teacher, student: charrun/demo-student}, "
    "{teacher: charrun/demo-teacher, student: charrun/demo-student-small}]",
    "scales=[smoke, micro]",
    "stand_ins=null",
    "engine=local",
)


def spec(*sets: str) -> Spec:
    return resolve(SMOKE, sets, REGISTRY)


def cells(runs_dir: Path, selection: Selection | None = None, *sets: str) -> list[Cell]:
    return plan_cells(choose(spec(*sets), REGISTRY), REGISTRY, runs_dir, selection)


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        (Selection(), 8),
        (Selection(characters=("pirate",)), 4),
        (Selection(models=("demo-student-small",)), 4),
        (Selection(scales=("micro",), characters=("gardener",)), 2),
        (Selection(models=("demo-student",), scales=("smoke",), characters=("pirate",)), 1),
    ],
)
def test_cells_are_chosen_by_character_models_and_scale(selection: Selection, count: int) -> None:
    assert len(selection.cells(spec(*MATRIX))) == count


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        (Selection(characters=("pirat",)), "did you mean 'pirate'?"),
        (Selection(models=("qwen3-30b-3b",)), "did you mean 'qwen3-30b-a3b'?"),
        (Selection(scales=("huge",)), "the spec has smoke"),
        (Selection(first="dop"), "did you mean 'dpo'?"),
        (Selection(last="export2"), "did you mean 'export'?"),
        (Selection(forced=("nothing",)), "the spec has prompts, teacher"),
        (Selection(first="sft", last="dpo"), "--until dpo comes before --from sft"),
        (Selection(first="sft", forced=("dpo",)), "--force dpo lies outside"),
    ],
)
def test_a_name_that_the_spec_does_not_have_is_a_usage_error_with_a_suggestion(selection: Selection, told: str) -> None:
    with pytest.raises(UsageProblem) as raised:
        cells(Path("nowhere"), selection)
    assert told in raised.value.render() and raised.value.exit_code == 2


def test_a_finished_run_has_nothing_left_to_do_and_another_seed_everything(smoke: FinishedRun) -> None:
    assert {stage.state for cell in plan(cells(smoke.runs_dir)) for stage in cell.stages} == {"done"}
    (other,) = plan(cells(smoke.runs_dir, None, "seed=8"))
    assert {stage.state for stage in other.stages} == {"to do"}


def test_a_changed_option_redoes_exactly_what_depends_on_it(smoke: FinishedRun) -> None:
    (cell,) = plan(cells(smoke.runs_dir, None, "stages.dpo.with.beta=0.2"))
    states = {stage.id: stage.state for stage in cell.stages}
    done = {id for id, state in states.items() if state == "done"}
    assert done == {"prompts", "teacher", "student", "pairs"}


def test_cells_that_share_work_plan_it_once(tmp_path: Path) -> None:
    planned = plan(cells(tmp_path, None, *MATRIX))
    todo = [(cell.name, stage.id) for cell in planned for stage in cell.stages if stage.state == "to do"]
    teachers = [name for name, id in todo if id == "teacher"]
    assert len(planned) == 8 and len(teachers) == 4  # characters x scales, whatever the students
    assert len([name for name, id in todo if id == "dpo"]) == 8


def test_a_stage_before_from_must_be_done(tmp_path: Path) -> None:
    (cell,) = plan(cells(tmp_path, Selection(first="dpo")))
    assert [stage.state for stage in cell.stages[:4]] == ["missing"] * 4


def test_after_a_scale_only_cells_that_passed_there_go_on(smoke: FinishedRun, tmp_path: Path) -> None:
    bigger = cells(smoke.runs_dir, None, "scales=[micro]")
    with pytest.raises(StageFailed, match="did not pass at scale 'smoke'"):
        passed_cells(bigger, "smoke")  # one DPO step changes no answer
    with pytest.raises(StageFailed, match="not there yet"):
        passed_cells(cells(tmp_path, None, "scales=[micro]"), "smoke")
    with pytest.raises(UsageProblem, match="no such scale"):
        passed_cells(bigger, "smokey")
    assert passed_cells(cells(smoke.runs_dir), "smoke")[1] == []


def test_an_evaluation_that_passed_lets_the_next_scale_go_on(smoke: FinishedRun, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(smoke.runs_dir, runs)
    run = find_run(runs, "pirate-smoke")
    publish_instead(run, "evaluate", "evaluation", [{**run.cells[0].rows("evaluation")[0], "passed": True}])
    kept, left = passed_cells(cells(runs, None, "scales=[micro]"), "smoke")
    assert [cell.scale.name for cell in kept] == ["micro"] and left == []


class Forced:
    """The finished run's DPO stage, made anew with JSON events, in a copy of its folder."""

    def __init__(self, smoke: FinishedRun, folder: Path) -> None:
        self.runs = folder / "runs"
        shutil.copytree(smoke.runs_dir, self.runs)
        self.before = self.stage_files()
        self.outcome = charrun(
            "run", SMOKE, "--runs-dir", self.runs, "--from", "pairs", "--until", "dpo", "--force", "dpo", "--json"
        )

    def stage_files(self) -> set[str]:
        return {path.name for path in next((self.runs / "store").glob("dpo-*")).iterdir()}

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.outcome.out.splitlines()]


@pytest.fixture(scope="module")
def forced(smoke: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Forced:
    made = Forced(smoke, tmp_path_factory.mktemp("forced"))
    assert made.outcome.code == 0, made.outcome.text
    return made


def test_a_forced_stage_is_made_anew_and_the_old_one_is_kept_aside(forced: Forced) -> None:
    finished = {e["stage"]: e["cached"] for e in forced.events if e["event"] == "stage_finished"}
    assert finished == {"prompts": True, "teacher": True, "student": True, "pairs": True, "dpo": False}
    assert forced.stage_files() - forced.before >= {"done.aside-1"}


def test_every_json_line_keeps_to_the_schema_and_begins_and_ends_with_the_run(forced: Forced) -> None:
    validator = Draft7Validator(event_schema())
    for event in forced.events:
        validator.validate(event)
    assert [forced.events[0]["event"], forced.events[-1]["event"]] == ["run_started", "run_finished"]


def test_metrics_of_every_step_are_kept_with_the_run(forced: Forced) -> None:
    lines = (forced.runs / "pirate-smoke" / "1" / "metrics.jsonl").read_text().splitlines()
    steps = [line for line in map(json.loads, lines) if "step" in line]
    assert steps[-1]["stage"] == "dpo" and "dpo_loss" in steps[-1]


def test_only_and_until_exclude_each_other() -> None:
    outcome = charrun("run", SMOKE, "--only", "dpo", "--until", "sft")
    assert outcome.code == 2 and "--only cannot be used with" in outcome.err


def test_what_from_leaves_out_is_not_made_on_the_quiet(tmp_path: Path) -> None:
    outcome = charrun("run", SMOKE, "--runs-dir", tmp_path, "--from", "teacher")
    assert outcome.code == 1
    assert "prompts is not done, and --from leaves it out" in outcome.err and "Traceback" not in outcome.text


def test_a_scale_that_the_spec_does_not_list_takes_the_place_of_those_that_it_lists(tmp_path: Path) -> None:
    outcome = charrun("plan", SMOKE, "--runs-dir", tmp_path, "--scale", "micro", "--scale", "smoke", "--json")
    assert outcome.code == 0
    assert [cell["name"] for cell in json.loads(outcome.out)["cells"]] == [
        "pirate-qwen3-30b-a3b-micro",
        "pirate-qwen3-30b-a3b-smoke",
    ]
    wrong = charrun("plan", SMOKE, "--runs-dir", tmp_path, "--scale", "smokey")
    assert wrong.code == 2 and "did you mean 'smoke'?" in wrong.err
