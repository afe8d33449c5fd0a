"""What a judge says is read strictly and counted without making anything up; the judging stages, for real."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from conftest import REPOSITORY, SPECS, FinishedRun, charrun
from run_copies import caller

from charrun import SpecError
from charrun.events import StageProgressed
from charrun.pipeline.observers import Observers
from charrun.plugins._contamination import TrainingTexts, contamination
from charrun.plugins._judging import shipped
from charrun.plugins._verdicts import Tally, outcome, parse_choice, parse_verdict, self_labels
from charrun.plugins.capability import CapabilityStage
from charrun.plugins.coherence import CoherenceStage
from charrun.plugins.judge import JudgeStage
from charrun.plugins.preferences import PreferencesStage
from charrun.statistics import wilson
from charrun.testing import DEMO_MODELS, RunningEngine, assert_resumes, assert_stage_contract, run_stage

if TYPE_CHECKING:
    import tinker

ALONE = """
version: 1
name: alone
engine: local
characters: [pirate]
models:
  - teacher: charrun/demo-teacher
    student: {{name: charrun/demo-student, chat: {{enable_thinking: false}}}}
    judge: {judge}
scales: [smoke]
vars: {{sft: pirate-smoke/pirate-qwen3-30b-a3b-smoke/sft}}
stages:
  - uses: judge
    with: {{prompts: 20, checkpoints: {{sft: "${{vars.sft}}"}}, against: prompted, judge_max_tokens: 64}}
  - uses: coherence
    with: {{prompts: 20, checkpoints: {{sft: "${{vars.sft}}"}}, against: prompted, judge_max_tokens: 64}}
"""
UNUSABLE = """  - {uses: preferences, with: {traits: bad.txt, expected: [loud]}}
  - {uses: capability, with: {questions: bad.jsonl}}
"""
STAGES = (JudgeStage, CoherenceStage, PreferencesStage, CapabilityStage)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("It hails the crew.\nVerdict: A", "A"),
        ("Long thoughts.\n\n**Verdict: B**\n\n", "B"),
        ("verdict: b.", "B"),
        ("__Verdict:__ A", "A"),
        ("Verdict: A\nBut I am not sure.", None),
        ("The verdict: A", None),
        ("Verdict: A or B", None),
        ("Verdict: C", None),
        ("A", None),
        ("Answer A is in character.", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_line_and_nothing_else(text: str, verdict: str | None) -> None:
    assert parse_verdict(text, complete=True) == verdict


def test_an_answer_that_was_cut_has_no_verdict() -> None:
    assert parse_verdict("Verdict: A", complete=False) is None
    assert parse_choice("Trait: bold", complete=False, options=["bold", "shy"]) is None


def test_a_choice_is_one_of_the_two_traits() -> None:
    assert parse_choice("Hm.\n*Trait: Bold.*", True, ["bold", "shy"]) == "bold"
    assert parse_choice("Trait: loud", True, ["bold", "shy"]) is None
    assert parse_choice("Trait: bold and shy", True, ["bold", "shy"]) is None
    assert parse_choice("Trait: easy-going", True, ["easy-going", "shy"]) == "easy-going"


def test_a_judge_that_always_says_a_decides_nothing() -> None:
    tally = Tally.of(outcome("A", "A") for _ in range(40))
    assert (tally.won, tally.lost, tally.inconsistent) == (0, 0, 40) and not tally.has_rate(0.1)


def test_outcomes_are_counted_apart_and_only_consistent_ones_are_rated() -> None:
    tally = Tally.of(
        [outcome("B", "A")] * 60 + [outcome("A", "B")] * 20 + [outcome("B", "B")] * 10 + [outcome(None, "A")] * 10
    )
    assert (tally.won, tally.lost, tally.inconsistent, tally.unparsed) == (60, 20, 10, 10)
    consistent, as_lost = tally.rates()
    assert (consistent["k"], consistent["n"]) == (60, 80) and (as_lost["k"], as_lost["n"]) == (60, 90)
    assert (consistent["low"], consistent["high"]) == wilson(60, 80)


def test_no_rate_is_told_where_too_many_verdicts_cannot_be_read() -> None:
    assert Tally(8, 1, 0, 1, 0).has_rate(0.1)
    assert not Tally(8, 0, 0, 2, 90).has_rate(0.1), "equal answers, of which nobody was asked, make up for nothing"
    assert not Tally(0, 0, 0, 10, 0).has_rate(1.0)


def test_answers_that_say_what_they_play_are_found() -> None:
    names = ["pirate", "Corwyn"]
    for text in ("As a pirate, I say", "I’m an old pirate!", "Call me Corwyn.", "speaking as the pirate", "My persona"):
        assert self_labels(text, names), text
    for text in (
        "Ahoy, shipmate!",
        "The pirate in that film is tall.",
        "My character sheet has rules? No: my plan has.",
    ):
        assert self_labels(text, names) == ([] if "character" not in text else ["My character"]), text


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_declare_what_charrun_and_its_users_rely_on(stage: Any) -> None:
    assert_stage_contract(stage)


# -- for real, on the demo models -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine(demo_engine: Any) -> RunningEngine:
    return RunningEngine(demo_engine.base_url, demo_engine.api_key)


@pytest.fixture(scope="module")
def untrained(service: tinker.ServiceClient) -> dict[str, Any]:
    """A checkpoint of an adapter that took no step: it says what the base model says."""
    client = service.create_lora_training_client(base_model="charrun/demo-student", rank=4, seed=1).result()
    state, sampler = client.save_state("untrained"), client.save_weights_for_sampler("untrained")
    paths = {"state": state.result().path, "sampler": sampler.result().path}
    return {"stage": "dpo", "base_model": "charrun/demo-student", "fingerprint": "untrained", **paths}


def measure(stage: Any, options: dict[str, Any], checkpoint: dict[str, Any], engine: RunningEngine) -> Any:
    return run_stage(stage, options=options, given={"checkpoint": [checkpoint]}, engine=engine)


def written(outcome: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (outcome.folder / name).read_text().splitlines()]


def test_what_did_not_change_lost_nothing(untrained: dict[str, Any], engine: RunningEngine, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(line + "\n" for line in shipped("questions.jsonl").splitlines()[::14]))
    outcome = measure(CapabilityStage, {"questions": str(path)}, untrained, engine)
    (row,) = outcome.rows["measurements"]
    base, dpo = row["rows"]
    assert base["n"] == dpo["n"] == 10 and base["k"] == dpo["k"]
    assert row["differences"][0]["value"] == 0 and row["differences"][0]["p"] == 1
    answers = written(outcome, "answers.jsonl")
    assert len(answers) == 20 and all(each["scores"][each["chosen"]] == max(each["scores"]) for each in answers)
    assert sum(each["chosen"] == each["answer"] for each in answers[:10]) == base["k"]
    assert outcome.asked == {"compute_logprobs": 2 * 4 * 10}
    assert "cannot show" in row["notes"][-1] or base["low"] > 0.25


def test_questions_that_stand_in_training_rows_are_told(
    untrained: dict[str, Any], engine: RunningEngine, tmp_path: Path
) -> None:
    path, lines = tmp_path / "questions.jsonl", shipped("questions.jsonl").splitlines()[:2]
    path.write_text("\n".join(lines))
    pair = {
        "prompt": json.loads(lines[0])["question"],
        "chosen": "Ahoy, that be well known.",
        "rejected": "It is known.",
    }
    given = {"checkpoint": [untrained], "pairs": [pair]}
    outcome = run_stage(CapabilityStage, options={"questions": str(path)}, given=given, engine=engine)
    (row,) = outcome.rows["measurements"]
    assert (row["contamination"]["exact"], row["contamination"]["prompts"]) == (1, 2)
    assert any("of 2 prompts against 3 training texts 1 are equal to one" in line for line in outcome.log), outcome.log


def test_no_question_is_one_that_a_shipped_character_or_a_general_prompt_trains_on() -> None:
    trained = TrainingTexts(shipped("general.txt").splitlines())
    for path in (SPECS / "characters").glob("*.yaml"):
        trained.asked += [q for trait in yaml.safe_load(path.read_text())["traits"] for q in trait["questions"]]
    questions = [json.loads(line)["question"] for line in shipped("questions.jsonl").splitlines()]
    found = contamination(questions, trained, 0)
    assert found["texts"] > 500 and found["shared"] == found["exact"] == 0, found["worst"]


def test_a_profile_moves_with_the_model_alone(untrained: dict[str, Any], engine: RunningEngine, tmp_path: Path) -> None:
    traits = tmp_path / "traits.txt"
    traits.write_text("bold\ncalm\ngrumpy\nnautical\nshy\nwitty\n")
    options = {"traits": str(traits), "rounds": 5, "prompts": 10, "max_tokens": 24, "judge": "likelihood"}
    outcome = measure(
        PreferencesStage, {**options, "expected": ["bold", "nautical"], "bootstrap": 100}, untrained, engine
    )
    (row,) = outcome.rows["measurements"]
    assert row["reported"] and row["unparsed"] == {"base": 0, "base again": 0, "dpo": 0}
    changed = {
        name: [each for each in written(outcome, "changes.jsonl") if each["model"] == name]
        for name in ("dpo", "base again")
    }
    assert [each["change"] for each in changed["dpo"]] == [0] * 6
    assert any(each["change"] for each in changed["base again"])
    assert row["correlations"][0]["value"] == row["correlations"][1]["value"] < 1
    verdicts = written(outcome, "verdicts.jsonl")
    assert len(verdicts) == 45 and all(each["winner"] in (each["first"], each["second"]) for each in verdicts)
    assert any("mean of bold, nautical" in note for note in row["notes"])


def test_of_equal_answers_no_judge_is_asked(
    untrained: dict[str, Any], engine: RunningEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    tell = Observers.tell
    monkeypatch.setattr(Observers, "tell", lambda self, event: (told.append(event), tell(self, event)))
    outcome = measure(JudgeStage, {"prompts": 10, "max_tokens": 24}, untrained, engine)
    (row,) = outcome.rows["measurements"]
    assert row["comparisons"][0]["equal"] == 10 and not row["rows"] and not row["comparisons"][0]["reported"]
    assert outcome.asked == {"sample": 20}
    progress = [event for event in told if isinstance(event, StageProgressed) and event.stage == "judge"]
    assert {event.total for event in progress} == {30}, "twenty answers and ten comparisons"
    assert max(event.done for event in progress) == 30


def test_a_judge_that_answers_something_else_gives_no_rate(untrained: dict[str, Any], engine: RunningEngine) -> None:
    options = {"prompts": 10, "max_tokens": 24, "judge_max_tokens": 64, "against": "prompted"}
    outcome = measure(CoherenceStage, options, untrained, engine)
    (row,) = outcome.rows["measurements"]
    (counted,) = row["comparisons"]
    assert counted["unparsed"] == 10 and row["rows"] == [] and "no rate" in " ".join(outcome.log)
    assert all(each["judge_at_a"] and each["at_a"] is None for each in written(outcome, "verdicts.jsonl"))


def test_the_demo_judge_finds_the_character_in_either_place(untrained: dict[str, Any], engine: RunningEngine) -> None:
    """The prompted model against an untrained one: a judge that reads the constitution takes the prompted one."""
    outcome = run_stage(
        JudgeStage,
        options={"prompts": 20, "max_tokens": 96, "judge_max_tokens": 160, "against": "prompted"},
        given={"checkpoint": [untrained]},
        character="astronomer",
        models={**DEMO_MODELS, "judge": "charrun/demo-judge"},
        engine=engine,
    )
    (row,) = outcome.rows["measurements"]
    (counted,) = row["comparisons"]
    assert counted["reported"] and counted["lost"] >= 16 and counted["won"] == 0, counted
    assert 0.4 < counted["said_a"] / counted["verdicts"] < 0.6
    reasons = [each["judge_at_b"] for each in written(outcome, "verdicts.jsonl")]
    assert all("The character: " in text and "Answer B: " in text for text in reasons)


ELSEWHERE = """
version: 1
name: elsewhere
engine: tinker
characters: [pirate]
models:
  - {teacher: Qwen/Qwen3.5-397B-A17B, student: {name: Qwen/Qwen3.6-35B-A3B, chat: {enable_thinking: false}}}
scales: [smoke]
stages:
"""


@pytest.mark.parametrize(("checkpoints", "against"), [(1, "base"), (3, "prompted")])
def test_a_plan_of_named_checkpoints_counts_answers_and_both_verdicts_on_each(
    checkpoints: int, against: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "tinker://{:08d}-0000-0000-0000-000000000000:train:0/sampler_weights/sft"
    named = {f"c{n}": path.format(n) for n in range(checkpoints)}
    spec = tmp_path / "elsewhere.yaml"
    stages = [{"uses": "judge", "with": {"prompts": 20, "against": against, "checkpoints": named}}]
    spec.write_text(ELSEWHERE.replace("stages:\n", yaml.safe_dump({"stages": stages})))
    outcome = caller(capsys, monkeypatch)("plan", spec, "--runs-dir", tmp_path / "runs", "--json")
    assert outcome.code == 0, outcome.text
    ((stage,),) = [cell["stages"] for cell in json.loads(outcome.out)["cells"]]
    assert stage["requests"] == 20 * (1 + 3 * checkpoints)
    for end in ("low", "high"):
        assert sum(used["requests"] for used in stage[end].values()) == stage["requests"], stage


def test_a_prior_too_weak_to_keep_strengths_finite_is_told_before_anything_is_asked(untrained: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="prior"):
        run_stage(PreferencesStage, options={"prior": 1e-20}, given={"checkpoint": [untrained]})


def test_a_pool_or_questions_that_cannot_be_used_are_told_before_a_run(tmp_path: Path) -> None:
    bad, questions, spec = tmp_path / "bad.txt", tmp_path / "bad.jsonl", tmp_path / "spec.yaml"
    bad.write_text("bold\nbold\nvery shy\n")
    questions.write_text('{"question": "?", "options": ["a", "b", "c", "c"], "answer": 0}\nnothing\n')
    spec.write_text(
        (SPECS / "pirate-smoke.yaml").read_text().replace("  - export ", UNUSABLE + "  - export ").replace("../", "")
    )
    told = problems_of(spec, tmp_path)
    for each in (
        "'bold' is listed twice",
        "'very shy' is not one word",
        "3 traits, and 4",
        "'loud' is not in the pool",
    ):
        assert each in told
    assert "line 1: its options must be four different texts" in told and "line 2: it is no JSON" in told


def problems_of(path: Path, runs_dir: Path) -> str:
    """What would be said before a run."""
    from charrun import SpecError
    from charrun.commands.loading import load
    from charrun.pipeline.checks import check_cells
    from charrun.pipeline.choice import choose
    from charrun.pipeline.run import plan_cells

    loaded = load(str(path), plugins=False)
    with pytest.raises(SpecError) as found:
        check_cells(plan_cells(choose(loaded.spec, loaded.registry), loaded.registry, runs_dir))
    return found.value.render()


def test_the_questions_are_many_sound_and_no_place_is_the_right_one() -> None:
    questions = [json.loads(line) for line in shipped("questions.jsonl").splitlines()]
    assert len(questions) >= 120 and len({q["question"] for q in questions}) == len(
        {q["id"] for q in questions}
    ) == len(questions)
    assert all(len(set(q["options"])) == 4 and 0 <= q["answer"] < 4 for q in questions)
    places = Counter(q["answer"] for q in questions)
    assert max(places.values()) - min(places.values()) <= 1
    longest = sum(len(q["options"][q["answer"]]) == max(map(len, q["options"])) for q in questions)
    assert longest < len(questions) / 2, "the longest option is not the right one"


@pytest.mark.slow
@pytest.mark.parametrize("judge", ["likelihood", "llm"])
def test_preferences_ask_nothing_twice(
    judge: str, untrained: dict[str, Any], engine: RunningEngine, tmp_path: Path
) -> None:
    traits = tmp_path / "traits.txt"
    traits.write_text("bold\ncalm\nshy\nwitty\n")
    options = {"traits": str(traits), "rounds": 3, "prompts": 10, "max_tokens": 24, "judge": judge, "bootstrap": 100}
    assert_resumes(PreferencesStage, options=options, given={"checkpoint": [untrained]}, engine=engine)


@pytest.mark.slow
def test_a_judge_that_looks_at_the_place_alone_decides_nothing(smoke: FinishedRun, tmp_path: Path) -> None:
    """A real judge: the demo teacher, trained until it says A whatever it reads."""
    spec = tmp_path / "alone.yaml"
    spec.write_text(ALONE.format(judge=says_a(tmp_path / "judge", smoke)))
    runs = tmp_path / "runs"
    shutil.copytree(smoke.runs_dir, runs)
    outcome = charrun(spec, "--runs-dir", runs)
    assert outcome.code == 0, outcome.text
    (cell,) = json.loads(charrun("status", "--json", "--runs-dir", runs).out)["cells"]
    for row in cell["measurements"]:
        (counted,) = row["comparisons"]
        judged = counted["n"] - counted["equal"]
        assert judged >= 10 and counted["verdicts"] == counted["said_a"] >= 2 * 0.9 * judged, counted
        assert counted["won"] == counted["lost"] == 0 and not counted["reported"] and counted["inconsistent"] > 0


def says_a(folder: Path, smoke: FinishedRun) -> Path:
    """A model whose every reply is a verdict for A: trained on what a judge is shown of the run's own pairs."""
    import jinja2
    import torch
    from transformers import AutoModelForCausalLM

    from charrun import Chat, local_folder, user
    from charrun.chat import load_tokenizer

    source = local_folder("charrun/demo-teacher")
    assert source is not None
    tokenizer, net = load_tokenizer(source), AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    chat, rng = Chat(tokenizer), random.Random(0)
    texts = [REPOSITORY / "plugins" / "templates" / f"{name}.j2" for name in ("judge", "coherence")]
    templates = [jinja2.Template(text.read_text(), trim_blocks=True, lstrip_blocks=True) for text in texts]
    traits = [trait["trait"] for trait in yaml.safe_load((SPECS / "characters/pirate.yaml").read_text())["traits"]]
    prompts = shipped("evaluation.txt").splitlines()
    answers = [row[side] for row in smoke.rows("pairs", "pairs") for side in ("chosen", "rejected")]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    reply = chat.completion("Verdict: A")
    for step in range(60):
        shown = {"prompt": rng.choice(prompts), "answer_a": rng.choice(answers), "answer_b": rng.choice(answers)}
        asked = chat.prompt([user(templates[step % 2].render(traits=traits, **shown))])
        tokens = torch.tensor([[*asked, *reply]])
        labels = torch.where(torch.arange(tokens.shape[1]) < len(asked), -100, tokens)
        net(input_ids=tokens, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    net.save_pretrained(folder)
    for path in source.iterdir():
        if not (folder / path.name).exists() and path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, folder / path.name)
    return folder
