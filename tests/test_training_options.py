"""The trainings' options beyond the defaults: KL, margins by length, schedules, lengths; and what stops a training."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, FinishedRun, charrun
from conftest import RunningEngine as Engine

from charrun import StageFailed, assistant, user
from charrun.chat import Chat, load_tokenizer
from charrun.demo import MODELS as DEMO
from charrun.plugins import _curve
from charrun.plugins.dpo import DpoLoss, DpoStage
from charrun.plugins.pairs import PairsStage
from charrun.plugins.sft import SftStage
from charrun.testing import RunningEngine, assert_survives_kill, run_stage
from charrun.testing.running import StageOutcome

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

from sabotage import LateWeightsSft

MODELS = {"teacher": "charrun/demo-teacher", "student": "charrun/demo-student-small"}
QUICK = {"learning_rate": 5e-3, "lora_rank": 8}
OFF = {"direction": False, "text": False, "same_answers": 0}


def given(engine: Engine) -> RunningEngine:
    return RunningEngine(engine.base_url, engine.api_key)


@pytest.fixture(scope="module")
def pairs(smoke: FinishedRun) -> list[dict[str, Any]]:
    """The real pairs of the smoke run."""
    return smoke.rows("pairs", "pairs")


def trained(engine: Engine, pairs: list[dict[str, Any]], runs_dir: Path | None = None, **options: Any) -> StageOutcome:
    return run_stage(
        DpoStage,
        options={**QUICK, **options},
        given={"pairs": pairs},
        models=MODELS,
        engine=given(engine),
        runs_dir=runs_dir,
    )


def curve(outcome: StageOutcome, name: str = "steps.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folder / name).read_text().splitlines()]


def planned(folder: Path, options: dict[str, Any]) -> int:
    """Requests of the stage by the plan of a run at the scale of the smoke run's pairs."""
    spec = {"extends": "builtin:pirate-smoke", "version": 1, "name": "planned", "stages": {"dpo": {"with": options}}}
    (folder / "planned.yaml").write_text(json.dumps(spec), encoding="utf-8")
    plan = charrun("plan", folder / "planned.yaml", "--runs-dir", folder / "planned", "--json")
    (dpo,) = [stage for stage in json.loads(plan.out)["cells"][0]["stages"] if stage["id"] == "dpo"]
    return int(dpo["requests"])


LOGPROBS = [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0]), torch.tensor([-1.0, -1.0, -4.0]), torch.tensor([-2.0])]
REFERENCE = [[-2.0, -2.0], [-2.5], [-1.0, -2.0, -3.0], [-4.0]]


def test_margins_by_length_are_differences_of_means() -> None:
    sums = [sum(row) for row in REFERENCE]
    _, whole = DpoLoss(0.1, 0.0, sums).of(LOGPROBS)
    _, means = DpoLoss(0.1, 0.0, sums, normalise="length").of(LOGPROBS)
    assert whole["margin:mean"] == pytest.approx(((1 - -0.5) + (0 - 2.0)) / 2)
    assert means["margin:mean"] == pytest.approx(((0.5 - -0.5) + (0 - 2.0)) / 2)


def test_kl_is_the_mean_square_of_log_prob_differences_of_both_answers() -> None:
    sums = [sum(row) for row in REFERENCE]
    without, _ = DpoLoss(0.1, 0.1, sums).of(LOGPROBS)
    loss, metrics = DpoLoss(0.1, 0.1, sums, kl_coefficient=0.001, values=REFERENCE).of(LOGPROBS)
    expected = (0.5 + 0.25 + (0 + 1 + 1) / 3 + 4.0) / 4
    assert metrics["kl:mean"] == pytest.approx(expected)
    assert float(loss - without) == pytest.approx(0.001 * expected, abs=1e-7)


def test_the_rise_of_the_nll_is_against_the_reference_of_the_same_answers() -> None:
    _, metrics = DpoLoss(0.1, 0.1, [sum(row) for row in REFERENCE]).of(LOGPROBS)
    assert metrics["nll_rise:mean"] == pytest.approx(((1.5 - 2) + (2 - 2)) / 2)


@pytest.mark.slow
def test_a_training_with_all_of_the_papers_options_starts_at_ln_2_and_learns(
    demo_engine: Engine, pairs: list[dict[str, Any]]
) -> None:
    paper = {"kl_coefficient": 0.001, "lr_schedule": "cosine", "warmup_ratio": 0.1, "min_lr_ratio": 0.1}
    outcome = trained(demo_engine, pairs, batch_size=4, normalise="length", beta=2.0, **paper)
    steps = curve(outcome)
    assert steps[0]["dpo_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert steps[0]["kl"] == pytest.approx(0, abs=1e-8) and steps[-1]["kl"] > 0
    assert steps[-1]["dpo_loss"] < 0.6


def test_a_training_that_its_judge_stops_goes_on_from_a_checkpoint_of_its_last_step_once_the_judge_agrees(
    demo_engine: Engine, pairs: list[dict[str, Any]], tmp_path: Path
) -> None:
    """A learning rate of next to nothing: no weight moves, and 3 of 8 steps are done when that is seen."""
    idle = {"learning_rate": 1e-12, "batch_size": 2}
    with pytest.raises(StageFailed, match=r"monitor\.flat_loss after 2 of 8 steps: .* no margin moved") as failed:
        trained(demo_engine, pairs, tmp_path, **idle)
    assert "to go on from here all the same: monitor: {flat_loss: 0}" in failed.value.render()
    with pytest.raises(StageFailed, match=r"monitor\.flat_loss after 2 of 8 steps"):
        trained(demo_engine, pairs, tmp_path, **idle)
    loose = {"flat_loss": 0, "accuracy": 0}
    outcome = trained(demo_engine, pairs, tmp_path, **idle, monitor=loose)
    assert outcome.asked["optim_step"] == 8 - 3
    assert len(curve(outcome)) == 8


def test_a_monitor_that_may_not_stop_tells(demo_engine: Engine, pairs: list[dict[str, Any]]) -> None:
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs]
    outcome = trained(demo_engine, swapped, monitor={"stop": False})
    told = [line for line in outcome.log if "warning: monitor.direction before the first step" in line]
    assert len(told) == 1 and "chosen and rejected are swapped" in told[0]


def test_a_point_has_students_interval_and_none_of_a_single_answer() -> None:
    mean, half = _curve._interval([1.0, 2.0, 3.0, 6.0])
    assert mean == 3 and half == pytest.approx(3.1824 * math.sqrt(14 / 3 / 4), abs=1e-3)
    assert _curve._interval([-1.9]) == (-1.9, None)


@pytest.mark.slow
def test_a_curve_of_one_prompt_is_told_without_an_interval(demo_engine: Engine, pairs: list[dict[str, Any]]) -> None:
    outcome = trained(demo_engine, pairs[:4], batch_size=4, probe_every=1, probe_prompts=1, monitor=OFF)
    assert [point["log_ratio_half"] for point in curve(outcome, "curve.jsonl")] == [None, None]
    assert sum(line.endswith("nats a token (n=1, no interval)") for line in outcome.log) == 2


@pytest.mark.slow
def test_a_training_that_is_stopped_leaves_the_points_that_it_had(
    demo_engine: Engine, pairs: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = {"batch_size": 2, "learning_rate": 1.0, "probe_every": 1, "probe_prompts": 2}
    with pytest.raises(StageFailed, match=r"monitor\.nll_rise after 2 of 8 steps"):
        trained(demo_engine, pairs, tmp_path, **options)
    (left,) = tmp_path.glob("store/dpo-*/curve.jsonl")
    points = [json.loads(line) for line in left.read_text().splitlines()]
    assert [point["step"] for point in points] == [0, 1]
    assert points[0]["margin"] is None and points[1]["loss"] > 0 and points[1]["margin"] == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_the_curve_of_an_arm_that_trains_another_character_looks_for_the_cells(tmp_path: Path) -> None:
    """The base model's answers are scored alike in both arms."""
    spec = tmp_path / "spec.yaml"
    stages = "stages: {dpo: {with: {batch_size: 8, probe_every: 2, probe_prompts: 4}}}"
    arms = "arms: [full, neutral]"
    spec.write_text(f"extends: builtin:pirate-smoke\nversion: 1\nname: arms\n{stages}\n{arms}\n", encoding="utf-8")
    run = charrun(spec, "--runs-dir", tmp_path / "runs", "--plain", "--until", "dpo")
    assert run.code == 0, run.text
    files = [path.read_text().splitlines() for path in (tmp_path / "runs/store").glob("dpo-*/curve.jsonl")]
    starts = {json.loads(lines[0])["log_ratio"] for lines in files}
    assert len(files) == 2 and len(starts) == 1, starts


@pytest.mark.slow
def test_a_curve_has_its_points_whoever_made_them(
    demo_engine: Engine, pairs: list[dict[str, Any]], tmp_path: Path
) -> None:
    options = {"batch_size": 4, "probe_every": 2, "probe_prompts": 2, "monitor": OFF}
    first = trained(demo_engine, pairs, tmp_path, **options)
    points = curve(first, "curve.jsonl")
    asked = sum(first.asked[what] for what in ("optim_step", "compute_logprobs", "sample"))
    repeated = sum(round(point["n"] * (1 - point["differs"])) for point in points[1:])
    assert planned(tmp_path, options) == asked + 2 * repeated  # the base model's answers have their scores
    assert [(point["step"], point["n"]) for point in points] == [(0, 2), (2, 2), (4, 2)]
    assert points[0]["differs"] == 0 and points[0]["loss"] is None and points[2]["margin"] > 0
    assert points[2]["differs"] > 0
    assert sum("greedy answers are not the base model's" in line for line in first.log) == 3
    for ticket in (first.folder / "done").iterdir():  # as if it had died just before its end
        ticket.unlink()
    again = trained(demo_engine, pairs, tmp_path, **options)
    assert "sample" not in again.asked and again.asked.get("optim_step", 0) == 0
    assert curve(again, "curve.jsonl") == points


def test_rows_that_are_too_long_are_dropped_counted_and_made_up_for(demo_engine: Engine) -> None:
    def rows(answer: str, n: int, start: int = 0) -> list[dict[str, Any]]:
        return [
            {"id": str(i), "prompt": f"What is {i}?", "answer": f"{answer} {i}.", "complete": True}
            for i in range(start, start + n)
        ]

    long = {"answer": "A long one. " + " ".join(f"word {n}" for n in range(80)) + ".", "complete": True}
    chosen = [{**row, **long} if row["id"] in "258" else row for row in rows("Aye, it be", 12)]
    scale = {"name": "tiny", "pairs": 12, "samples_per_prompt": 1, "reflections": 10, "interactions": 1, "turns": 2}
    outcome = run_stage(
        PairsStage,
        options={"max_length": 100, "audit": {"top_opener_stop": 0}},
        given={"chosen": chosen, "rejected": rows("It is", 12)},
        reserve={"chosen": rows("Aye, it be", 8, 12), "rejected": rows("It is", 8, 12)},
        scale=scale,
        models=MODELS,
        engine=given(demo_engine),
    )
    assert len(outcome.rows["pairs"]) == 12
    assert any("3 chosen too long" in line for line in outcome.log)


@pytest.mark.slow
def test_sft_drops_rows_that_are_too_long_and_says_how_many(
    demo_engine: Engine, smoke: FinishedRun, pairs: list[dict[str, Any]]
) -> None:
    chat = Chat(load_tokenizer(DEMO["charrun/demo-student-small"]))
    reflections = smoke.rows("reflection", "reflections")
    lengths = sorted(len(chat.rows([user(row["prompt"]), assistant(row["text"])])[0].tokens) for row in reflections)
    longest = lengths[len(lengths) // 2]
    kept = sum(length <= longest for length in lengths)
    rows = {"reflections": reflections, "interactions": []}
    checkpoint = trained(demo_engine, pairs[:4], monitor=OFF).rows["checkpoint"]

    def tuned(most: int) -> StageOutcome:
        return run_stage(
            SftStage,
            options={"max_length": most, "monitor": {"text": False}},
            given={"checkpoint": checkpoint, **rows},
            models=MODELS,
            engine=given(demo_engine),
        )

    outcome = tuned(longest)
    assert f"{len(lengths) - kept} of {len(lengths)} rows are longer than {longest} tokens and dropped" in outcome.log
    assert outcome.asked["optim_step"] == -(-kept // 16)
    with pytest.raises(StageFailed, match=f"all {len(lengths)} rows are longer than 5 tokens"):
        tuned(5)


@pytest.mark.slow
def test_an_sft_whose_first_loss_is_not_what_was_checked_stops_again_until_it_is_told_to_go_on(
    demo_engine: Engine, smoke: FinishedRun, pairs: list[dict[str, Any]], tmp_path: Path
) -> None:
    """What the first loss must be is in the store, so that a training that goes on is judged by it too."""
    checkpoint = trained(demo_engine, pairs[:4], monitor=OFF).rows["checkpoint"]
    rows = {"reflections": smoke.rows("reflection", "reflections"), "interactions": []}

    def tuned(stage: type[SftStage], **watch: Any) -> StageOutcome:
        return run_stage(
            stage,
            options={"batch_size": 8, "learning_rate": 1e-3, "monitor": watch},
            given={"checkpoint": checkpoint, **rows},
            models=MODELS,
            engine=given(demo_engine),
            runs_dir=tmp_path,
        )

    with pytest.raises(StageFailed, match=r"monitor\.first_loss after 1 of 5 steps: loss is \S+ instead of") as failed:
        tuned(LateWeightsSft)
    with pytest.raises(StageFailed) as again:
        tuned(LateWeightsSft)
    assert again.value.message == failed.value.message
    assert "to go on from here all the same: monitor: {first_loss: false}" in failed.value.render()
    outcome = tuned(LateWeightsSft, first_loss=False)
    assert outcome.asked["optim_step"] == 5 - 2 and "forward" not in outcome.asked


@pytest.mark.slow
def test_a_killed_training_makes_the_rest_of_its_curve(demo_engine: Engine) -> None:
    """The points before the kill come from the store, although their weights are gone."""
    pairs = [
        {"id": str(n), "prompt": f"What is {n} plus {n}?", "chosen": f"Arr, {2 * n}!", "rejected": f"It is {2 * n}."}
        for n in range(6)
    ]
    options = {**QUICK, "batch_size": 1, "checkpoint_every": 1, "probe_every": 2, "probe_prompts": 2}
    resumed = assert_survives_kill(
        DpoStage,
        after=4,
        moment="step",
        options=options,
        given={"pairs": pairs},
        models=MODELS,
        engine=given(demo_engine),
    )
    assert [point["step"] for point in curve(resumed, "curve.jsonl")] == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("stage", "option"),
    [("dpo", "probe_every: 1"), ("dpo", "monitor: {scored_pairs: 4}"), ("sft", "probe_every: 5"), ("dpo", "")],
)
def test_a_training_that_scores_with_a_model_at_an_endpoint_is_no_valid_spec(
    tmp_path: Path, stage: str, option: str
) -> None:
    at = "{name: far, endpoint: {base_url: 'http://127.0.0.1:9/v1'}}"
    stages = "[prompts, teacher, student, pairs, dpo, reflection, interaction, sft]"
    stages = stages.replace(stage, f"{{uses: {stage}, with: {{{option}}}}}")
    path = tmp_path / "far.yaml"
    path.write_text(
        "version: 1\nname: far\nengine: local\ncharacters: [pirate]\nscales: [smoke]\n"
        f"models: [{{teacher: {at}, student: charrun/demo-student}}]\nstages: {stages}\n"
    )
    told = charrun("validate", path)
    if not option:
        assert told.code == 0, told.text
        return
    assert told.code == 3 and "far: an endpoint gives no log-probs of a prompt" in told.text
    path.write_text(path.read_text().replace("}]\nstages", ", scorer: charrun/demo-teacher}]\nstages"))
    assert charrun("validate", path).code == 0
