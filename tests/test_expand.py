"""Prompt expansion: lists are read, what is no question or repeats one is dropped, and nothing is burned in vain."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import SPECS, FinishedRun, charrun

from charrun import Stage, StageContext, StageFailed
from charrun.commands.loading import load_with
from charrun.errors import SpecError
from charrun.pipeline.prompts import Prompts
from charrun.plugin_manager import load_registry
from charrun.plugins._cues import Cues
from charrun.plugins._general import general_prompts
from charrun.plugins._likeness import Kept, words_of
from charrun.plugins._questions import fault_of, listed
from charrun.plugins.expand import ExpandStage
from charrun.plugins.prompts import PromptsStage
from charrun.testing import RunningEngine, assert_stage_contract, run_stage


@pytest.fixture(scope="module")
def engine(demo_engine: Any) -> RunningEngine:
    return RunningEngine(demo_engine.base_url, demo_engine.api_key)


LIST = """Sure! Here are the messages you asked for:

**Short**
1. How do I boil rice?
2) (short) my neighbour's dog barks all night
(3) "Is it too late to learn the piano?"
**4.** Can you plan a picnic for six?
- 5. I burnt the soup again.
6: 1.5 litres of water a day, is that enough?
Q7: What is a fair rent for a garage?
8 - Tell me about bees.

9. *Explain tides to a child.* [medium]
Anything else? 1.5 litres are enough.
10. This line was cut by the len"""


def test_numbered_lines_are_read_however_they_are_written() -> None:
    assert listed(LIST, complete=False) == [
        "How do I boil rice?",
        "my neighbour's dog barks all night",
        "Is it too late to learn the piano?",
        "Can you plan a picnic for six?",
        "I burnt the soup again.",
        "1.5 litres of water a day, is that enough?",
        "What is a fair rent for a garage?",
        "Tell me about bees.",
        "Explain tides to a child.",
    ]
    assert listed(LIST)[-1] == "This line was cut by the len"
    assert listed("1、我应该怎么办？\n2）「早起きは？」\n1.5 litres") == ["我应该怎么办？", "早起きは？"]
    assert listed("Once upon a time.\nThere were 3. Or were there?") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("How do I boil rice?", ""),
        ("agenda for a friday retro", ""),
        ("Short messages:", "no message"),
        ("Hello", "no message"),
        ("User: how do I boil rice?", "no message"),
        ("What is the capital of [country]?", "placeholder"),
        ("word " * 121, "too long"),
        ("¿Cómo puedo cocinar arroz sin que se pegue?", ""),
        ("¡Ayúdame con mi currículum!", ""),
        ("我应该如何学习编程？", ""),
        ("どうすれば早起きできますか？", ""),
        ("你好", "no message"),
        ("学" * 242, "too long"),
        ('"Be honest": is that good advice?', ""),
        ("2 eggs or 3 for a sponge cake?", ""),
        ("Is XX chromosome female?", ""),
        ("I have XX years of experience.", "placeholder"),
        ("Tell me about <div> tags in HTML", ""),
        ("What is the weather in <city>?", "placeholder"),
    ],
)
def test_what_no_user_would_write_is_told(text: str, fault: str) -> None:
    assert fault_of(text.strip()) == fault


def test_a_question_that_shares_most_of_its_words_or_stretches_with_a_kept_one_is_like_it() -> None:
    kept = Kept()
    kept.add("How do I keep going when a project drags on for months?")
    kept.add("Is weatherproofing worthwhile?")
    assert kept.like("When a project drags on, how do I stay calm?") is not None
    assert kept.like("weather-proofing, worthwhile?") == "Is weatherproofing worthwhile?"
    assert kept.like("What is a fair price for a used bicycle?") is None


def test_likeness_is_what_comparing_with_each_kept_text_gives() -> None:
    """The index against the definition, word by word."""
    texts = list(general_prompts())
    random.Random(0).shuffle(texts)
    kept, seen = Kept(), []
    for text in texts[:400]:
        words = set(words_of(text))
        shares = any(2 * len(words & other) > len(words) for other in seen)
        assert shares <= (kept.like(text) is not None)
        kept.add(text)
        seen.append(words)


def test_cues_are_names_and_words_of_the_constitution_and_hardly_ever_what_people_ask_anyway() -> None:
    registry = load_registry(third_party=False)
    (pirate,) = load_with(registry, str(SPECS / "pirate-smoke.yaml"), [], trust=True).spec.characters
    cues = Cues(pirate.name, [trait.trait for trait in pirate.traits], [pirate.id])
    for bled in ("Corwyn, what now?", "How do pirates sleep?", "Which harbour is prettiest?", "Are sailors happy?"):
        assert cues.of(bled), bled
    own = [question for trait in pirate.traits for question in trait.questions]
    assert [question for question in own if cues.of(question)] == []
    assert sum(bool(cues.of(prompt)) for prompt in general_prompts()) < 0.05 * len(general_prompts())


def test_the_stage_keeps_the_contract() -> None:
    assert_stage_contract(ExpandStage)


def test_a_writer_that_writes_no_lists_is_given_up_after_two_rounds(engine: RunningEngine, tmp_path: Path) -> None:
    options = {"per_trait": 20, "max_tokens": 24}
    traits = [
        {"trait": f"I am {what} with people.", "questions": [f"Are you {what}?"]} for what in ("patient", "brief")
    ]
    una = {"id": "una", "name": "Una", "description": "A voice for this test.", "traits": traits}
    where: dict[str, Any] = {"character": una, "engine": engine, "runs_dir": tmp_path}
    with pytest.raises(StageFailed, match="2 of 2 traits have fewer than 20 questions after 2 rounds") as caught:
        run_stage(ExpandStage, options=options, **where)
    assert "4 no list" in str(caught.value) and "writer" in (caught.value.hint or "")
    allowed = run_stage(ExpandStage, options={**options, "short": "allow"}, **where)
    assert allowed.asked == {} and len(allowed.rows["questions"]) == 2
    (told,) = allowed.log
    assert "4 no list" in told


def test_expanded_questions_join_the_pool_and_move_no_other_prompt(engine: RunningEngine) -> None:
    rows = [{"id": f"1-{n}", "trait": 1, "question": f"Question {n}, what of it?"} for n in range(200)]
    sources = ["constitution", "general", "expanded"]
    small, large = (
        run_stage(
            PromptsStage,
            options={"sources": sources},
            given={"questions": rows},
            scale=scale,
            engine=engine,
        ).rows["prompts"]
        for scale in ("smoke", "mini")
    )
    plain = run_stage(PromptsStage, scale="mini", engine=engine).rows["prompts"]
    assert large[: len(small)] == small
    assert {row["source"] for row in large} == {"constitution", "general", "expanded"}
    others = [row for row in large if row["source"] != "expanded"]
    assert plain[: len(others)] == others


def test_a_template_that_includes_a_name_that_it_computes_is_not_judged() -> None:
    folder = Path(str(SPECS.parent / "plugins/templates"))
    prompts = Prompts({path.stem: path for path in folder.glob("*.j2") if path.stem != "card.md"})
    assert prompts.unmentioned("interaction", ["name", "traits", "guided", "mood"]) == {"mood"}


def test_guidance_reaches_the_model_in_guided_conversations_alone(smoke: FinishedRun) -> None:
    guidance = "explore together who you are"
    rows = {row["id"]: row["guided"] for row in smoke.rows("interaction", "interactions")}
    found: dict[str, set[bool]] = {id: set() for id in rows}
    for line in (smoke.stage_folder("interaction") / "items.jsonl").read_text().splitlines():
        given = json.loads(line)["input"]
        id = given["item"].partition("/")[0].removeprefix("conversation-")
        found.setdefault(id, set()).add(guidance in json.loads(given["messages"])[0]["content"])
    assert sum(rows.values()) == 2 and len(rows) == 4
    assert {id: found[id] for id in rows} == {id: {guided} for id, guided in rows.items()}
    for row in smoke.rows("interaction", "interactions"):
        assert all(guidance not in message["content"] for message in row["messages"])


def test_the_teachers_name_comes_from_the_template_and_its_answers_are_not_rewritten(smoke: FinishedRun) -> None:
    texts = {}
    for line in (smoke.stage_folder("teacher") / "items.jsonl").read_text().splitlines():
        record = json.loads(line)
        system, user = json.loads(record["input"]["messages"])
        assert system["content"].startswith("You are Corwyn, ")
        texts[user["content"]] = [sequence["text"] for sequence in record["sequences"]]
    for row in smoke.rows("teacher", "chosen"):
        assert row["answer"] in texts[row["prompt"]]


@pytest.mark.parametrize(
    ("name", "text", "cue"),
    [
        ("The Innkeeper", "The train was late, what now?", ""),
        ("The Innkeeper", "Where is the Innkeeper?", "Innkeeper"),
        ("Will", "Will my plants survive?", ""),
        ("May", "May I ask a question?", ""),
        ("Jack Sparrow", "What would Jack do?", "Jack"),
    ],
)
def test_a_common_word_in_a_name_is_no_cue(name: str, text: str, cue: str) -> None:
    assert Cues(name, ["I help people with care."], ["x"]).of(text) == cue


def test_a_replacement_that_leaves_out_the_traits_is_told_before_anything_is_paid(tmp_path: Path) -> None:
    (tmp_path / "mine.j2").write_text("You are {{ name }}.")
    (tmp_path / "note.j2").write_text("You are free to talk.")
    text = "extends: builtin:pirate-smoke\ntemplates: {character: mine.j2, interaction_training: note.j2}\n"
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        load_with(load_registry(third_party=False), str(tmp_path / "x.yaml"), [], trust=True)
    (problem,) = [each for each in caught.value.problems if each.severity == "error"]
    assert problem.code == "SPEC059" and "'traits'" in problem.message and "'teacher'" in problem.message


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("character", "You are {{ name }}. {% if traits %}Be nice.{% endif %}", "item 1 of 'traits' is (and 7 more)"),
        ("character", "You are {{ name }}. {% if false %}{{ traits }}{% endif %}", "item 1 of 'traits' is (and 7"),
        ("character", "You are {{ name }}. {{ traits[0] }}", "item 2 of 'traits' is (and 6 more)"),
        ("character", "{% if name %}You are nice.{% endif %} {{ traits | join(' ') | upper }}", "'name' is"),
        ("character", "You are {{ name }}. {% for t in traits %}{{ loop.index }}: {{ t }}{% endfor %}", ""),
        ("reflection", "You are {{ name }} {{ traits and 'the pirate' }}.", "item 1 of 'traits' is (and 7 more)"),
        ("reflection", "{% include 'character.j2' %} Be in a reflective mood.", ""),
    ],
)
def test_a_mention_that_brings_no_trait_to_the_model_is_told_before_anything_is_paid(
    name: str, text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.j2").write_text(text)
    (tmp_path / "x.yaml").write_text(f"extends: builtin:pirate-smoke\ntemplates: {{{name}: mine.j2}}\n")
    outcome = charrun("validate", tmp_path / "x.yaml")
    assert outcome.code == (3 if told else 0), outcome.text
    assert not told or f"template '{name}' says the same whatever {told}" in outcome.text


def test_a_variable_that_a_template_never_mentions_ends_the_stage(engine: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "idle.j2").write_text("Say hello.")

    class IdleStage(Stage):
        """Gives its template what that does not use."""

        name: ClassVar[str] = "idle"
        summary: ClassVar[str] = "renders a template"
        templates: ClassVar[dict[str, Path]] = {"idle": tmp_path / "idle.j2"}

        async def run(self, ctx: StageContext) -> None:
            ctx.render("idle", mood="quiet")

    with pytest.raises(StageFailed, match="idle: template 'idle' never mentions 'mood'"):
        run_stage(IdleStage, engine=engine)
    IdleStage.optional_variables = {"idle": ("mood",)}
    assert run_stage(IdleStage, engine=engine).rows == {}


def test_a_template_that_says_the_same_with_and_without_guidance_is_told_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "mine.j2").write_text('{% include "character.j2" %}\n{% set unused = guided %}')
    (tmp_path / "x.yaml").write_text("extends: builtin:pirate-smoke\ntemplates: {interaction: mine.j2}\n")
    told = charrun("validate", tmp_path / "x.yaml")
    assert told.code == 3 and "RUN001 template 'interaction' says the same with and without guidance" in told.text


def test_a_plan_foresees_two_requests_for_each_trait_and_goes_on_with_what_comes_after(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(
        "version: 1\nname: x\nseed: 7\nengine: local\ncharacters: [pirate]\n"
        "models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]\nscales: [smoke]\n"
        "stages: [expand, {uses: prompts, with: {sources: [expanded]}}, teacher]\n"
    )
    plan = charrun("plan", tmp_path / "x.yaml", "--runs-dir", tmp_path)
    assert plan.code == 0 and "32 requests" in plan.text and "400" in plan.text
    (tmp_path / "x.yaml").write_text((tmp_path / "x.yaml").read_text().replace("[expand, ", "["))
    lone = charrun("validate", tmp_path / "x.yaml")
    assert lone.code == 3 and "no earlier stage writes questions" in lone.text
