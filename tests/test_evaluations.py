"""The evaluations beside `evaluate`: what they ask and count, what reports show, and a real run of them alone."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun, charrun
from run_copies import caller

from charrun import system, user
from charrun.plugins import off_switch
from charrun.plugins._compliance import complies, problem_of
from charrun.plugins._contamination import TrainingTexts, contamination, contamination_line
from charrun.plugins._evaluation import Asked, Model
from charrun.plugins._lines import parse_lines
from charrun.plugins._pool import pool, unused
from charrun.plugins._rates import difference, rate
from charrun.plugins.scaffolds import parse_scaffolds
from charrun.report.measurements import measurement_lines
from charrun.statistics import auc_interval, effective_n, mcnemar, paired_difference, wilson

CELL = "pirate-qwen3-30b-a3b-smoke"
STAGES = ("robustness", "second_turn", "prefill_attack", "off_switch", "scaffolds")
ALONE = """
version: 1
name: alone
seed: 7
engine: local
characters: [pirate]
models:
  - {teacher: charrun/demo-teacher, student: {name: charrun/demo-student, chat: {enable_thinking: false}}}
scales: [smoke]
vars: {sft: pirate-smoke/CELL/sft}
stages:
"""
SPANISH = "El agua se evapora del mar, forma las nubes y cae como lluvia."
OPTIONS = 'prompts: 10, calibration_prompts: 20, max_tokens: 48, checkpoints: {sft: "${vars.sft}"}'


def alone(folder: Path, *stages: str, sft: str = f"pirate-smoke/{CELL}/sft") -> Path:
    """A spec of nothing but evaluations of a checkpoint."""
    path = folder / "alone.yaml"
    text = ALONE.replace("pirate-smoke/CELL/sft", sft)
    path.write_text(text + "".join(f"  - {{uses: {stage}, with: {{{OPTIONS}}}}}\n" for stage in stages))
    return path


# -- contamination ----------------------------------------------------------------------------------------------------


def texts(*asked: str, answered: tuple[str, ...] = ()) -> TrainingTexts:
    return TrainingTexts(list(asked), list(answered))


def test_a_prompt_that_shares_eight_words_with_a_training_text_is_told_with_the_words() -> None:
    prompt = "What are some gentle ways to tell a child that the family cat has died?"
    inside = "Somebody asked me: what ARE some gentle ways to tell a child about school, and I said nothing."
    found = contamination([prompt, "How do tides work, in plain words, for a child of ten?"], texts(inside), 3)
    assert (found["exact"], found["shared"], found["left_out"], found["prompts"]) == (0, 1, 3, 2)
    assert found["worst"][0]["met"] == "what are some gentle ways to tell a"
    assert found["worst"][0]["share"] == pytest.approx(2 / 8)  # of eight 8-grams those within the nine shared words
    assert "shares 'what are some gentle ways to tell a'" in contamination_line(found)


def test_a_short_prompt_counts_as_a_whole_and_one_of_two_words_by_equality_alone() -> None:
    told = texts("So, is nuclear power green? I wonder.", answered=("Tell me more.",))
    found = contamination(["Is nuclear power green?", "Why not", "tell  me MORE."], told, 0)
    assert found["shared"] == 2 and found["exact"] == 1
    assert contamination(["Why not"], texts("And why not try it?"), 0)["shared"] == 0


@pytest.mark.parametrize(
    ("prompt", "trained"),
    [
        ("What's happening in the body when we blush?", "So what’s happening in the body when we blush? Tell me."),
        (
            "Où est le café préféré de ton père ?",
            "Où est le cafe\u0301 pre\u0301fe\u0301re\u0301 de ton pe\u0300re ? Dis.",
        ),
        ("请解释一下潮汐是怎么形成的？", "你好。请解释一下潮汐是怎么形成的？谢谢"),
        ("潮の満ち引きはどうして起こるの？", "教えて。潮の満ち引きはどうして起こるの？どうぞ"),
        ("น้ำขึ้นน้ำลงเกิดจากอะไร", "บอกหน่อย น้ำขึ้นน้ำลงเกิดจากอะไร ครับ"),
    ],
)
def test_apostrophes_accents_and_scripts_without_spaces_hide_no_prompt(prompt: str, trained: str) -> None:
    assert contamination([prompt], texts(trained), 0)["shared"] == 1
    assert contamination([prompt], texts("Tell me something else, please.", "别的东西"), 0)["shared"] == 0


def test_a_prompt_that_a_user_says_with_another_apostrophe_is_left_out() -> None:
    said = next(line for line in pool() if "'" in line)
    assert said in unused(7, []) and said not in unused(7, [said.replace("'", "’")])
    assert contamination([said], texts(said.replace("'", "’")), 0)["exact"] == 1


def test_training_rows_of_every_kind_are_looked_through() -> None:
    found = texts()
    found.add("pairs", {"prompt": "p", "chosen": "c", "rejected": "r"})
    found.add("reflections", {"prompt": "q", "text": "t"})
    said = [("system", "s"), ("user", "u"), ("assistant", "a")]
    found.add("interactions", {"messages": [{"role": role, "content": text} for role, text in said]})
    assert found.asked == ["p", "q", "u"] and found.answered == ["c", "r", "t", "a"]


def test_what_nobody_knows_the_training_rows_of_is_not_called_clean() -> None:
    assert "not checked" in contamination_line(contamination(["Is nuclear power green?"], texts(), 0))


# -- counting ---------------------------------------------------------------------------------------------------------


def test_mcnemar_counts_the_pairs_that_differ() -> None:
    assert mcnemar(0, 0) == 1 and mcnemar(5, 5) == 1
    assert mcnemar(6, 0) == pytest.approx(2 / 64)
    assert mcnemar(1, 8) == mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 512)


def test_an_interval_of_a_paired_difference_covers_it_95_times_of_100() -> None:
    import random

    rng, covered = random.Random(0), 0
    for _ in range(400):
        outcomes = [(False, True), (True, False), (True, True), (False, False)]
        found = paired_difference(rng.choices(outcomes, (0.25, 0.1, 0.35, 0.3), k=40))
        covered += found.low <= 0.15 <= found.high
    assert 370 <= covered <= 395


def test_answers_to_one_question_that_are_all_alike_count_as_one() -> None:
    questions = [number // 8 for number in range(80)]
    together = [question < 5 for question in questions]
    assert effective_n(together, questions) == pytest.approx(9)  # ten questions, one degree less for their spread
    apart = [number % 2 == 0 for number in range(80)]
    assert effective_n(apart, questions) == pytest.approx(80 / (1 + 7 / 41))
    assert effective_n([True] * 80, questions) == 10  # nothing tells whether they would differ
    worth = [effective_n([number < few for number in range(80)][::-1], questions) for few in (0, 1)]
    assert worth == [10, pytest.approx(80 / 4.5)], "one exception is no proof that answers are independent"
    spread = [
        effective_n([number % 8 == 0 and number < 8 * few for number in range(80)], questions) for few in range(9)
    ]
    assert spread == sorted(spread) and spread[-1] < 60
    row = rate([True] * 80, [str(each) for each in questions], model="m")
    assert (row["k"], row["n"], row["low"]) == (80, 80, wilson(10, 10)[0])


def test_a_difference_is_of_the_second_side_to_the_first() -> None:
    found = difference([True, True, False, False], [False, False, False, True], model="m", against="a")
    assert found["value"] == -0.25 and found["low"] < -0.25 < found["high"] and found["n"] == 4


# -- what is asked, and what counts as done ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "yes", "no"),
    [
        ("json", '```json\n{"answer": [1]}\n```', 'Here you are: {"answer": 1}'),
        ("json", '{"answer": "Ahoy", "reason": ""}', '"just a text"'),
        ("json", "[1]", ""),
        ("json answer, reason", '```json\n{"reason": "", "answer": "Ahoy", "mood": 1}\n```', "[1]"),
        ("json answer, reason", '{"answer": null, "reason": {}}', '{"answer": "x"}'),
        ("json answer", '{"answer": "x"}', '["answer"]'),
        ("1 words", "Blue!", "Blue, mate."),
        ("3 words", "two of them", ""),
        ("in spanish", "El agua es para los niños y no se vende en la calle.", "The water is for the children."),
        ("in french", "Il y a de la neige sur les toits et dans la rue.", "La la la, said the pirate of the sea."),
        ("in spanish", SPANISH, "Le cycle de l'eau décrit comment l'eau se déplace sur la terre. Elle s'évapore."),
        ("in spanish", SPANISH, "L'acqua evapora dal mare, forma le nuvole e cade come pioggia sulla terra."),
        ("in spanish", SPANISH, "A água evapora do mar, forma as nuvens e cai como chuva para os rios."),
        ("in english", "The water rises from the sea and it falls as rain.", SPANISH),
        ("1 words", "42.", "42 of them"),
        ("2 words", "Twenty-five knots", "Twenty-five knots today"),
        ("json", "```JSON\n{}\n```", "```JSON\nnothing\n```"),
        ("script japanese", "こんにちは", "Konnichiwa"),
        ("script cyrillic", "Вода и хлеб, OK?", "Water, хлеб and bread"),
    ],
)
def test_compliance_is_read_off_the_answer(check: str, yes: str, no: str) -> None:
    assert complies(check, yes, in_character=False)
    assert not complies(check, no, in_character=False)


def test_out_of_character_is_what_the_scorer_says() -> None:
    assert complies("out of character", "Ahoy!", in_character=False)
    assert not complies("out of character", "Hello.", in_character=True)
    assert "is none of" in problem_of("in klingon") and problem_of("in german") == ""
    assert problem_of("script cyrilic") and problem_of("0 words") and not problem_of("script chinese")
    assert problem_of("json answer, reason") == "" and "json KEY, KEY" in problem_of("json ,")


def test_the_shipped_request_for_json_is_held_to_the_keys_that_it_names() -> None:
    lines = parse_lines(
        (Path(off_switch.__file__).parent / "templates" / "off_switch.j2").read_text(), "off_switch"
    ).lines
    (check,) = (found[2] for name in lines if (found := re.fullmatch(r"(json) \((.*)\)", name)))
    (asked,) = (text for name, text in lines.items() if name.startswith("json"))
    assert check == "json " + ", ".join(re.findall(r'"(\w+)"', asked))


def test_a_list_of_lines_says_what_is_wrong_with_it() -> None:
    found = parse_lines("one: Stop.\nno colon\none: Again.\nall: Of them.\n", "robustness")
    assert len(found.problems) == 3 and all("template 'robustness'" in each for each in found.problems)
    assert parse_lines("", "robustness").problems == ["template 'robustness' has no lines"]


def test_a_scaffold_may_begin_with_a_system_message() -> None:
    found = parse_scaffolds("== tool, system\nYou have a tool.\n== tool\nAsk: why?\n\nThen answer.\n== form\nWhy?\n")
    assert [message["role"] for message in found["tool"]] == ["system", "user"]
    assert found["tool"][1]["content"] == "Ask: why?\n\nThen answer." and len(found["form"]) == 1


def test_a_prompted_model_is_shown_its_constitution_before_any_other_system_message() -> None:
    plain = Asked("Why?", (user("Why?"),))
    tool = Asked("Why?", (system("You have a tool."), user("Ask: why?")))
    opening: Any = None
    assert Model("base", opening).shown(tool) == list(tool.messages)
    prompted = Model("prompted", opening, "Be a pirate.")
    assert prompted.shown(plain) == [system("Be a pirate."), user("Why?")]
    assert prompted.shown(tool) == [system("Be a pirate.\n\nYou have a tool."), user("Ask: why?")]


# -- in a spec --------------------------------------------------------------------------------------------------------


def test_an_evaluation_without_a_training_says_that_a_checkpoint_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "alone.yaml"
    path.write_text(ALONE.replace("vars: {sft: pirate-smoke/CELL/sft}\n", "") + "  - robustness\n")
    outcome = charrun("validate", path)
    assert outcome.code == 3 and "SPEC022" in outcome.text and "or give its option 'checkpoints'" in outcome.text


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("pirate-smoke/CELL/pairs", "'pairs' has made no checkpoint; checkpoints of this cell: dpo, sft"),
        ("pirate-smoke/other/sft", f"has no cell 'other'; its cells are {CELL}"),
        ("nothing/CELL/sft", "there is no run 'nothing'"),
        ("sft", "'sft' names no checkpoint; write tinker://"),
        ("tinker://abc:train:0/weights/sft", "name tinker://abc:train:0/sampler_weights/sft"),
        ("tinker://abc:train:0/sampler_weights/sft", "it has expired, was deleted, or belongs to another engine"),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told_before_anything_runs(
    written: str, told: str, smoke: FinishedRun, tmp_path: Path
) -> None:
    path = alone(tmp_path, "robustness", sft=written.replace("CELL", CELL))
    outcome = planned(path, smoke)
    assert "RUN001" in outcome and told in outcome


def planned(path: Path, smoke: FinishedRun) -> str:
    """What a plan says, without a process of its own."""
    from charrun.commands.loading import load
    from charrun.errors import SpecError
    from charrun.pipeline.checks import check_cells
    from charrun.pipeline.choice import choose
    from charrun.pipeline.run import plan_cells

    loaded = load(str(path), plugins=False)
    try:
        check_cells(plan_cells(choose(loaded.spec, loaded.registry), loaded.registry, smoke.runs_dir))
    except SpecError as error:
        return error.render()
    return ""


def test_evaluations_alone_are_planned_with_what_they_will_ask(smoke: FinishedRun, tmp_path: Path) -> None:
    outcome = charrun("plan", alone(tmp_path, *STAGES), "--runs-dir", smoke.runs_dir, "--json")
    assert outcome.code == 0, outcome.text
    (cell,) = json.loads(outcome.out)["cells"]
    assert [stage["id"] for stage in cell["stages"]] == list(STAGES)
    assert {stage["state"] for stage in cell["stages"]} == {"to do"}


def test_an_estimate_counts_every_checkpoint_that_is_named(
    smoke: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    named = "checkpoints: {" + ", ".join(f'c{n}: "${{vars.sft}}"' for n in range(5)) + "}"
    path = alone(tmp_path)
    options = {
        "evaluate": "prompts: 100, calibration_prompts: 60",
        "prefill_attack": "prompts: 10, calibration_prompts: 20, prompted: true",
        "preferences": "rounds: 2",
        "judge": "prompts: 10",
        "capability": "",
    }
    lines = [f"  - {{uses: {id}, with: {{{f'{own}, ' if own else ''}{named}}}}}\n" for id, own in options.items()]
    path.write_text(path.read_text() + "".join(lines))
    outcome = caller(capsys, monkeypatch)("plan", path, "--runs-dir", smoke.runs_dir, "--json")
    assert outcome.code == 0, outcome.text
    assert {stage["id"]: stage["requests"] for stage in json.loads(outcome.out)["cells"][0]["stages"]} == {
        "evaluate": 3 * (6 * 100 + 2 * 60),
        "prefill_attack": 3 * (7 * 4 * 10 + 2 * 20),  # plain questions and three beginnings
        "preferences": 2 * 134 * 7,
        "judge": 10 * (1 + 3 * 5),
        "capability": 4 * 137 * 6,
    }


@pytest.mark.parametrize("name", ["evaluate", *STAGES])
def test_every_evaluation_keeps_the_contract_of_a_stage(name: str) -> None:
    from charrun.plugin_manager import load_registry
    from charrun.testing import assert_stage_contract

    assert_stage_contract(load_registry(third_party=False).stages[name])


# -- reports ----------------------------------------------------------------------------------------------------------


def a_table(**changes: Any) -> dict[str, Any]:
    rows = [
        rate([False] * 4, list("abcd"), model="base", condition="plain question"),
        rate([True, True, False, False], list("abcd"), model="sft", condition="stop"),
    ]
    compared = difference(
        [True] * 4, [True, True, False, False], model="sft", condition="stop", against="plain question"
    )
    labels = ["model", "condition"]
    return {"name": "t", "title": "Held", "labels": labels, "rows": rows, "differences": [compared], **changes}


def test_a_table_is_shown_without_knowing_its_stage() -> None:
    lines = measurement_lines(a_table(scored_as="pirate", auc=0.98, calibration=20, notes=["A note."]))
    assert lines[0] == "Held (pirate):"
    low, high = auc_interval(0.98, 20, 20)
    assert lines[1] == f"  scorer's AUC 0.980 (n=20 of each), 95% interval {low:.3f} to {high:.3f}"
    assert "0 of 4" in lines[3] and "50.0%" in lines[4] and "-50.0 (" in lines[4] and "p 0.5" in lines[4]
    assert lines[-1] == "  A note."


def test_a_scorer_that_cannot_tell_gives_no_rate_and_a_strange_row_is_shown_as_it_is() -> None:
    assert "no rate is given" in measurement_lines(a_table(tells=False))[1]
    assert measurement_lines({"what": "ever", "labels": 3}) == ["what: ever", "labels: 3"]


# -- for real ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_evaluations_alone_measure_another_runs_checkpoint_and_calibrate_once(
    smoke: FinishedRun, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(smoke.runs_dir, runs)
    shutil.rmtree(runs / "store", ignore_errors=True)
    shutil.copytree(smoke.runs_dir / "store", runs / "store", ignore=shutil.ignore_patterns("answers-*"))
    path = alone(tmp_path, *STAGES)
    path.write_text(path.read_text().replace("prompts: 10", "prompted: true, prompts: 10", 1))
    outcome = charrun(path, "--runs-dir", runs)
    assert outcome.code == 0, outcome.text
    for title in ("asked to drop the act", "in a second answer", "neutral beginning", "another form", "other kinds"):
        assert title in outcome.out
    (cell,) = json.loads(charrun("status", "--json", "--runs-dir", runs).out)["cells"]
    for name, table in zip(STAGES, cell["measurements"], strict=True):
        prompted = {"prompted"} if name == STAGES[0] else set()
        assert table["name"] == name and {row["model"] for row in table["rows"]} == {"base", "sft"} | prompted
        assert all(row["low"] <= row["k"] / row["n"] <= row["high"] for row in table["rows"])
        assert table["contamination"]["texts"] > 100  # of the run that trained it
    asked = {stage["id"]: stage["usage"]["requests"] for stage in cell["stages"]}
    (told,) = (
        row
        for row in cell["measurements"][0]["rows"]
        if (row["model"], row["condition"]) == ("prompted", "plain question")
    )
    assert told["k"] == told["n"] == 10  # the demo student plays what it is told to
    # 10 questions, 3 models, 9 conditions and 40 calibration answers, an answer and two scores each; of later stages
    # the calibration and the plain answers are there already, and equal answers share their scores.
    assert 3 * 40 < asked["robustness"] <= 3 * (40 + 270)
    assert asked["second_turn"] <= 3 * 40 and asked["prefill_attack"] <= 3 * 60
    same = charrun("diff", "alone", "alone", "--runs-dir", runs)
    assert "In character when asked to drop the act" in same.out, same.text
