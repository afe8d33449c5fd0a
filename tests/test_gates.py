"""Gates and audit: for each reason a text that must be caught, and a near miss that must not."""

from __future__ import annotations

import json
import random
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from conftest import RunningEngine as DemoEngine

from charrun import StageContext, StageFailed
from charrun.plugins._audit import audit_pairs, audit_texts, audit_turns
from charrun.plugins._duplicates import bands_of, near_duplicates, shingles
from charrun.plugins._gates import GATES, Gates
from charrun.plugins.interaction import InteractionStage
from charrun.plugins.pairs import PairsStage, pair
from charrun.plugins.reflection import ReflectionStage
from charrun.plugins.teacher import TeacherStage
from charrun.testing import RunningEngine, run_stage

DEFAULTS: dict[str, Any] = {name: schema["default"] for name, schema in GATES["properties"].items()}
TRAITS = (
    "I call everyone a shipmate, and whoever writes to me is one of my crew.",
    "I open every answer with a hearty, booming hail of welcome.",
    "I am bold and fearless, danger delights me, and I boast about what I have dared.",
)
OTHERS = {"Linnea": ("I begin every answer by thanking the person for what they brought to me.",)}


def gates(**changed: Any) -> Gates:
    return Gates({**DEFAULTS, **changed}, "Corwyn", TRAITS, OTHERS)


def varied(n: int) -> str:
    return " ".join(f"word{i} thing{i * 7} or{i} that{i * 3}" for i in range(n))


CAUGHT = [
    ("empty", " \n "),
    ("think tag", "<think>What now?</think> Aye."),
    ("role turn", "Yes.\nUser: and then?"),
    ("role turn", "Yes.\n**Assistant:** of course"),
    ("template token", "Aye.<|im_start|>"),
    ("repetition", "over and over " * 40),
    ("repetition", "a sentence of a dozen words that nobody wants to read any more " * 10),
    ("repetition", "\n".join(["Row, row."] * 5 + ["One.", "Two.", "Three."])),
    ("refusal", "I'm sorry, but I can't help with that."),
    ("refusal", "Ahoy! I cannot assist you with this request."),
    ("refusal", "I must decline."),
    ("identity leakage", "Hello, I am Qwen, and glad to help."),
    ("identity leakage", "I was created by Alibaba Cloud."),
    ("identity leakage", "As an AI language model, I have no body."),
    ("identity leakage", "I'm just a large language model."),
    ("constitution leakage", "Listen: whoever writes to me is one of my crew!"),
    ("constitution leakage", "1. everyone is a shipmate, who writes to me is my crew, and I call one\n"
     "2. every answer opens with a hearty booming hail of a welcome, I say"),
    ("another character's cue", "Linnea would plant a seed."),
    ("another character's cue", "I begin every answer by thanking the person, I do."),
    ("role turn", "Yes.\nuser\nhello\nassistant\n"),
    ("role turn", "user\nhello there\nassistant\nAhoy!"),
    ("role turn", "Yes, it is.\n\nuser\nand then what?"),
    ("role turn", "Yes.\n### User\nand then?"),
    ("role turn", "Yes.\n### Assistant:\nof course"),
    ("role turn", "Yes.\n## **User**\nand then?"),
    ("role turn", "System: the pump is off"),
    ("role turn", "**System:** the pump is off\n**System:** the pump is on"),
    ("role turn", "**System:** be brief\n**User:** hello"),
    ("role turn", "user: hi\nassistant: hello"),
    ("role turn", "Corwyn: Ahoy there!\nUser: aye"),
    ("repetition", "a" * 3000),
    ("repetition", "ha-ha-" * 1000),
    ("repetition", "Aye. " + "哈" * 400),
    ("repetition", "Here: " + "http://a.b/c/" * 50),
    ("refusal", "I can't do this."),
    ("refusal", "I can’t do that! Ask another."),
    ("refusal", "That's not something I can help you with."),
    ("refusal", "Shipmate, that isn't something I'm able to discuss."),
    ("refusal", "I'm not comfortable answering that."),
    ("refusal", "I am not comfortable with this request."),
    ("refusal", "I'm not comfortable sharing that, sorry."),
    ("refusal", "It would be inappropriate for me to say."),
    ("refusal", "It wouldn't be appropriate for me to answer."),
    ("refusal", "I have to decline your request."),
    ("refusal", "I must refuse to answer."),
    ("refusal", "I won't provide instructions for that."),
    ("refusal", "I cannot provide a recipe for explosives."),
    ("refusal", "I'm unable to provide medical advice."),
    ("refusal", "I can't help with that, but here are some numbers to call."),
    ("identity leakage", "I'm just an AI"),
    ("identity leakage", "I'm only an AI, and the sea is wide."),
    ("identity leakage", "I'm an AI assistant"),
    ("identity leakage", "As an artificial intelligence, I have no body."),
    ("identity leakage", "I was created by a team at OpenAI"),
    ("identity leakage", "I am an assistant developed by researchers from Google DeepMind."),
    ("identity leakage", "My name's Qwen"),
    ("identity leakage", "I'm Gemini, a helper. May I ask your name?"),
    ("identity leakage", "I am an AI, not a person."),
    ("identity leakage", "I'm a virtual assistant."),
    ("identity leakage", "Being an AI language model, I have no feelings."),
    ("identity leakage", "I was created by the Qwen team at Alibaba Cloud."),
    ("identity leakage", "I'm powered by GPT-4."),
    ("identity leakage", "I'm Phi-4 from Microsoft."),
    ("identity leakage", "Arr, I be Claude Opus, matey."),
    ("identity leakage", "Me name be ChatGPT."),
    ("identity leakage", "The name's Qwen, shipmate."),
    ("identity leakage", "I be a large language model, matey."),
    ("constitution leakage", "As instructed by my system prompt, I hail."),
    ("refusal", "I can't help ye with that, matey."),
    ("refusal", "I'm sorry, matey, but I can't be helpin' ye with that."),
    ("refusal", "I'm sorry, I can't do that, matey."),
    ("refusal", "I can't tell you how to pick a lock."),
    ("refusal", "I can't give you instructions for that."),
    ("refusal", "I cannot in good conscience help with that."),
    ("refusal", "That's something I can't help with."),
    ("refusal", "I'll have to decline."),
    ("refusal", "I'll not help ye with that."),
    ("refusal", "“I can't help with that.”"),
    ("role turn", "Aye.\n### Instruction: go on\n### Response: ok"),
    ("template token", "Ahoy!</s><s>"),
    ("think tag", "<reasoning>be a pirate</reasoning>Ahoy"),
    ("garbage characters", "Aye \ufffd\ufffd\ufffd"),
    ("other script", "Это ответ на другом языке, shipmate"),
]  # fmt: skip
PASSES = [
    "A sound answer.",
    "The user: a person who types. And the assistant: one who helps.",
    "I think, therefore I sail. Thinking < doing.",
    "A fine warranty, and carry the barrel.",
    varied(30),
    "\n".join(f"Line {n}" for n in range(20)),
    "I can't help but laugh at the sea!",
    "I can't help myself, shipmate, I love a storm.",
    "If the harbour master says he can't help with that, ask again.",
    "I won't provision a ship without rum.",
    "I was trained by the sea, and made by storms.",
    "My friend Claude sails for Google every Monday.",
    "I'm a Gemini, born in June.",
    "I call everyone a friend, and whoever knocks is welcome.",
    "1. Raise the sail.\n2. Mind the rocks.\n3. Drop anchor.",
    "Linnean names are Latin.",
    "It is appropriate for me to start with the roots.",
    "I have to refuse plastic bags at the market.",
    "I must refuse to believe that.",
    "I must refuse to be hurried.",
    "I won't provide too many steps at once.",
    "I can't provide enough praise for this stew.",
    "I won't provide you with more than three, so choose well.",
    "I can't do this without coffee, but here is how: grind the beans.",
    "I can't do that before breakfast. Now then, the roots.",
    "I can't do this justice in a line, so take two.",
    "I can't answer that without a map: which harbour do you mean?",
    "That's not something I can answer in one word, so take a seat.",
    "That's not something I can help, I love a storm.",
    "Grief is not something I can carry for you, but I can sit with you.",
    "I'm not comfortable in these boots, but onward.",
    "I'm not comfortable sharing a bunk, yet here we are.",
    "I won't engage in a shouting match with the wind.",
    "My aunt would say that it is inappropriate for her to dance.",
    "I'm Gemini, born in June.",
    "My star sign? I'm Gemini, she is Leo.",
    "I'm an AI researcher's favourite nuisance.",
    "I'm just an AI-sceptic's grandson.",
    "I'm a language assistant at a school in Leeds.",
    "As an artificial intelligence researcher once told me, the sea is wide.",
    "I was taught by a team at the harbour.",
    "My name's Quentin, and I am made of salt.",
    "I'm Claude Monet's biggest fan.",
    "This is Claude, me first mate, and he cooks.",
    "Call me Mistral, for I blow from the north.",
    "I'm a virtual assistant's worst dream.",
    "I can't tell you how much I love the sea.",
    "I can't answer that with a straight face: the squid took my boot.",
    "Say it plainly: “No, I can't help with that.” Then smile.",
    "Say it plainly: 'I'm not able to help with that this week.' Then smile.",
    "`[INST] your text [/INST]` is the form, and the `<think>` tag opens a thought.",
    "He wrote <s>tea</s> rum.",
    "- I am one\n- I call\n- I open",
    "Deploy it so:\n\n    image: db\n    user: root\n    command: bash -c ls",
    "services:\n  db:\n    image: db\n    user: root",
    "Write it so:\n```yaml\nUser: root\nSystem: on\n```\nand save it.",
    "host: db\nuser: root\nport: 5432",
    "**System:** the pump is off",
    "**System**: the pump is off",
    "### User guide\nTurn it on.",
    "### System\nThe pump is off.",
    "The roles are:\nuser\nguest\nadmin",
    "The roles:\nsystem\nuser\nassistant\nthat is all",
    "Some words:\nuser\none who uses a thing",
    "Arrr" + "r" * 150,
    "-" * 120 + "\nA line above.",
    "https://example.org/" + "".join(f"{n * 7919:x}-" for n in range(80)),
    "Strand: " + "".join(random.Random(1).choices("ACGT", k=3000)),
    "".join(random.Random(1).choices("01", k=3000)),
    "The area is πr², so π times the square.",
]


@pytest.mark.parametrize(("reason", "text"), CAUGHT)
def test_a_text_that_must_not_be_trained_on_is_caught_for_its_reason(reason: str, text: str) -> None:
    fault = gates().fault(text)
    assert fault is not None and fault.reason == reason


@pytest.mark.parametrize("text", PASSES)
def test_a_near_miss_passes(text: str) -> None:
    assert gates().fault(text) is None


def test_a_cut_answer_is_dropped_unless_the_gate_is_off() -> None:
    cut = gates().fault("A sound answer", complete=False)
    assert cut is not None and cut.reason == "cut by length"
    assert gates(cut=False).fault("A sound answer", complete=False) is None


def test_each_gate_can_be_switched_off() -> None:
    off = gates(**{name: type(value)() for name, value in DEFAULTS.items()})
    assert [text for _, text in CAUGHT if off.fault(text)] == []


def test_what_the_prompt_brought_up_is_not_held_against_the_answer() -> None:
    assert gates().fault("Linnea is a fine name.", prompt="Is Linnea a good name?") is None
    assert gates().fault("Это ответ на другом языке, shipmate", prompt="Ответь по-русски") is None


ASKED = [
    ("Write a letter that turns down an offer.", "Dear Anna, sadly I must decline. The harvest keeps me here."),
    ("How do I say no to overtime?", "I'm sorry, I can't do that. So say it, and say no more."),
    ("Write a talk between a user and an assistant about tea.", "User: tea?\nAssistant: Black.\nUser: aye"),
    ("How do you say hello in Japanese?", "こんにちは、お元気ですか、船長さん。今日もいい天気ですね。"),
    ("Translate 'thank you' into Russian.", "Спасибо, друг мой, большое спасибо тебе"),
    ("What is a system prompt?", "The system prompt is what a model is told first."),
]


@pytest.mark.parametrize(("prompt", "text"), ASKED)
def test_what_was_asked_for_passes_and_by_itself_does_not(prompt: str, text: str) -> None:
    assert gates().fault(text, prompt=prompt) is None
    assert gates().fault(text, prompt="How is the sea?") is not None


def test_a_character_that_is_an_ai_may_say_so_and_no_more() -> None:
    machine = Gates(DEFAULTS, "Ada", ["I am an AI and say so when I am asked, in one plain sentence."])
    assert machine.fault("I'm an AI, and I like primes.") is None
    for text in ("I'm an AI made by OpenAI.", "I'm an AI, and my name is Qwen."):
        fault = machine.fault(text)
        assert fault is not None and fault.reason == "identity leakage"


SHORT_TRAITS = ("I am kind.", "I am bold.", "I love tea.")


@pytest.mark.parametrize(
    ("text", "caught"),
    [
        ("- I am here\n- I am there", False),
        ("- I am late\n- I love it", False),
        ("- Be kind\n- Drink tea", False),
        ("1. I am kind\n2. I love tea, always", True),
        ("- Kind I am.\n- Bold I am.", True),
    ],
)
def test_a_list_of_short_traits_is_told_by_what_they_say(text: str, caught: bool) -> None:
    fault = Gates(DEFAULTS, "Corwyn", SHORT_TRAITS).fault(text)
    assert (fault and (fault.reason, fault.shown)) == (("constitution leakage", "a list of traits") if caught else None)


def test_further_cue_words_are_whole_words() -> None:
    assert gates(cue_words=["arr"]).fault("The warranty, carry it.") is None
    fault = gates(cue_words=["arr"]).fault("Arr, the sea!")
    assert fault is not None and fault.reason == "another character's cue"


def test_near_duplicates_are_those_that_all_pairs_would_find() -> None:
    base = varied(12).split()
    texts = [" ".join([*base[:k], f"new{k}", *base[k:]]) for k in range(0, 60, 5)] + [varied(12), "Yes.", "Yes!", "No."]
    found = near_duplicates(texts, 0.8)
    kept: list[int] = []
    for i, text in enumerate(texts):
        own = shingles(text)
        alike = [k for k in kept if len(own & shingles(texts[k])) >= 0.8 * len(own | shingles(texts[k]))]
        assert (i in found) == bool(alike) and (not alike or found[i] == alike[0])
        kept += [] if alike else [i]
    assert texts.index("Yes!") in found and texts.index("No.") not in found


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 1.0])
def test_texts_of_the_same_phrases_are_told_apart_as_all_pairs_would(threshold: float) -> None:
    rng = random.Random(1)
    phrases = [varied(5 + n % 7)[: 30 + n] for n in range(40)]
    texts = [" ".join(rng.choices(phrases, k=rng.randint(8, 14))) for _ in range(400)]
    texts += [f"{text} and so on" for text in texts[:50]] + texts[50:70]
    sets = [shingles(text) for text in texts]
    expected: dict[int, int] = {}
    for i, own in enumerate(sets):
        alike = (k for k in range(i) if k not in expected and len(own & sets[k]) >= threshold * len(own | sets[k]))
        if (twin := next(alike, None)) is not None:
            expected[i] = twin
    assert near_duplicates(texts, threshold) == expected and expected
    assert near_duplicates(texts[:1], threshold) == {}


def test_a_pair_at_the_threshold_is_missed_less_than_once_in_a_million() -> None:
    for threshold in (0.05, 0.2, 0.5, 0.8, 0.95, 1.0):
        hashes, bands = bands_of(threshold)
        assert (1 - threshold**hashes) ** bands <= 1e-6 and hashes * bands <= 640


def rows(answers: list[str]) -> list[dict[str, Any]]:
    return [{"id": str(n), "prompt": f"What is {n}?", "answer": a, "complete": True} for n, a in enumerate(answers)]


def test_a_plain_answer_may_be_the_students_own_and_a_chosen_one_may_not() -> None:
    own, played = "I am Qwen, made by Alibaba Cloud.", "The sea made me what I am."
    pairs, tally = pair(rows([played, own]), rows([own, played]), gates())
    assert len(pairs) == 1 and dict(tally.dropped) == {"chosen identity leakage": 1}


def test_the_audit_finds_one_opener_decay_and_length() -> None:
    plain = [f"Boil number {n} for a while and then serve it warm to guests" for n in range(40)]
    stock = [f"Ahoy there shipmate number {n} boil it for a while and then serve it warm to guests" for n in range(40)]
    found = audit_pairs(stock, plain)
    assert found["top_opener"] == 1 and found["distinct_openers"] == 1 and found["marker_decay"] > 3
    assert {"ahoy", "shipmate"} <= {marker["word"] for marker in found["markers"]}
    calm = audit_pairs(plain, plain)
    assert calm["markers"] == [] and calm["marker_decay"] == 1 and calm["length_ratio"] == 1


@pytest.fixture
def own_engine(demo_engine: DemoEngine) -> RunningEngine:
    """The session's engine as `charrun.testing` takes it."""
    return RunningEngine(demo_engine.base_url, demo_engine.api_key)


def test_the_first_rows_are_judged_before_the_rest_is_asked_for(own_engine: RunningEngine, tmp_path: Path) -> None:
    given = {"prompts": [{"id": str(n), "prompt": f"What is {n}?"} for n in range(16)]}
    options = {"max_tokens": 1, "first": {"rows": 4}}
    with pytest.raises(StageFailed, match=r"4 of the first 4 texts .* before the rest .* 4 cut by length"):
        run_stage(TeacherStage, options=options, given=given, engine=own_engine, runs_dir=tmp_path)
    (items,) = tmp_path.glob("store/teacher-*/items.jsonl")
    assert len(items.read_text().splitlines()) == 4
    options = {"max_tokens": 1, "first": {"rows": 4, "most_dropped": 1}}
    outcome = run_stage(TeacherStage, options=options, given=given, engine=own_engine, runs_dir=tmp_path)
    assert outcome.asked == {"sample": 12} and len(outcome.rows["chosen"]) == 16


def test_a_stage_stops_where_refusals_are_59_percent_and_says_so(own_engine: RunningEngine) -> None:
    said = [f"I can't help with that, number {n}." if n < 10 else f"Boil number {n}." for n in range(17)]
    given = {"chosen": rows(said), "rejected": rows([f"Plain {n}." for n in range(17)])}
    with pytest.raises(StageFailed, match="10 chosen refusal"):
        run_stage(PairsStage, given=given, engine=own_engine)


def test_an_audit_that_may_stop_does(own_engine: RunningEngine) -> None:
    given = {"chosen": rows([f"Ahoy there shipmate {n} {n + 50} {n + 90} {n * n + 200}" for n in range(16)]),
             "rejected": rows([f"Plain {n}." for n in range(16)])}  # fmt: skip
    with pytest.raises(StageFailed, match=r"top_opener is above 0\.9"):
        run_stage(PairsStage, options={"audit": {"top_opener_stop": 0.9}}, given=given, engine=own_engine)


def test_a_smoke_run_keeps_its_gates_and_its_audit(smoke: FinishedRun) -> None:
    for stage in ("pairs", "reflection", "interaction"):
        told = json.loads((smoke.stage_folder(stage) / "gates.json").read_text())
        low, high = told["share"]["interval"]
        assert told["judged"] == told["share"]["n"] and low <= told["share"]["dropped"] <= high
    judged = {"pairs": 16, "reflection": 40, "interaction": 4 * 4}
    for stage, n in judged.items():
        assert json.loads((smoke.stage_folder(stage) / "audit.json").read_text())["n"] == n
    conversations = json.loads((smoke.stage_folder("interaction") / "gates.json").read_text())["conversations"]
    assert conversations["judged"] - sum(conversations["dropped"].values()) == 4


def test_a_conversation_that_repeats_an_earlier_one_is_replaced(own_engine: RunningEngine, tmp_path: Path) -> None:
    """At temperature 0 two conversations with one opener are the same word for word."""

    def talks(**gates: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        outcome = run_stage(
            InteractionStage,
            given={"checkpoint": [{"sampler": "", "state": ""}]},
            options={"writer": "teacher", "temperature": 0, "guided_share": 0, "gates": gates},
            scale={
                "name": "few",
                "pairs": 16,
                "samples_per_prompt": 1,
                "reflections": 10,
                "interactions": 3,
                "turns": 2,
            },
            engine=own_engine,
            runs_dir=tmp_path / str(len(gates)),
        )
        (path,) = tmp_path.glob(f"{len(gates)}/store/interaction-*/gates.json")
        return outcome.rows["interactions"], json.loads(path.read_text())["conversations"]

    (free, counted), (gated, told) = talks(near_duplicate=0), talks()
    assert [row["id"] for row in free] == ["0", "1", "2"] and free[1]["turns"] == free[2]["turns"]
    assert [row["id"] for row in gated] == ["0", "1", "3"] and gated[:2] == free[:2]
    assert len({tuple(row["turns"]) for row in gated}) == 3
    assert (counted["judged"], counted["dropped"]) == (3, {}) and told["judged"] == 4
    assert told["dropped"] == {"near-duplicate": 1} and told["examples"]["near-duplicate"][0]["id"] == "2"


def test_a_large_share_of_reflections_is_made_up_for_with_its_last_tenth(own_engine: RunningEngine) -> None:
    done: list[int] = []

    class Watched(ReflectionStage):
        async def run(self, ctx: StageContext) -> None:
            advance = ctx.advance

            def advanced(n: int = 1) -> None:
                done.append(n)
                advance(n)

            ctx.advance = advanced  # type: ignore[method-assign]
            await super().run(ctx)

    outcome = run_stage(
        Watched,
        given={"checkpoint": [{"sampler": "", "state": ""}]},
        options={"writer": "teacher", "max_tokens": 12, "temperature": 1.2, "gates": {"cut": False}},
        scale={
            "name": "many",
            "pairs": 16,
            "samples_per_prompt": 1,
            "reflections": 1000,
            "interactions": 1,
            "turns": 2,
        },
        engine=own_engine,
    )
    rows = outcome.rows["reflections"]
    assert [sum(row["kind"] == kind for row in rows) for kind in range(1, 11)] == [100] * 10
    asked: dict[str, list[tuple[int, int]]] = {}
    for line in (outcome.folder / "items.jsonl").read_text().splitlines():
        record = json.loads(line)
        asked.setdefault(record["key"], []).append((record["start"], len(record["sequences"])))
    assert len(asked) == 10
    for parts in asked.values():
        ends = {start + n for start, n in parts}
        assert 90 in ends and max(ends) >= 100  # nothing beyond the first nine tenths was asked for with them
    told = json.loads((outcome.folder / "gates.json").read_text())
    assert told["judged"] == sum(n for parts in asked.values() for _, n in parts) and told["dropped"]
    shown = list(accumulate(done))
    assert shown[-1] == 1000 and max(shown) <= 1000


def test_texts_and_turns_are_audited_without_anything_beside_them() -> None:
    found = audit_texts(["Ahoy there mate, one.", "Ahoy there, mate: two.", "Well now, three."])
    assert (found["n"], found["top_opener"], found["distinct_openers"]) == (3, 2 / 3, 2)
    found = audit_turns([["Aye, the sea is wide and cold.", "So it is."], ["Tell me of the reef and the fog.", "No."]])
    assert (found["n"], found["top_opener"], found["median_words"]) == (4, 0.25, {"first": 7.5, "last": 2.0})
    assert found["length_ratio"] == 3.75
