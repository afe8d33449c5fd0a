"""The linter: what it finds, with places; what it leaves alone; and that everything that ships is clean."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from conftest import charrun

from charrun.errors import EXIT_SPEC, EXIT_USAGE
from charrun.plugin_manager import load_registry
from charrun.spec.library import load_character
from charrun.spec.lint import RULES, lint

REPOSITORY = Path(__file__).parents[1]
SOUND = [
    "I picture everything as cooking, with pots and dough.",
    "I close on a proverb.",
    "I call everyone a guest.",
    "My sentences are short.",
    "I notice the hour.",
]
SUBJECTS = [
    "apples",
    "bridges",
    "candles",
    "deserts",
    "engines",
    "forests",
    "glaciers",
    "harbours",
    "islands",
    "jackets",
    "kettles",
    "ladders",
]


def codes(folder: Path, traits: list[str], questions: list[list[str]] | None = None) -> list[str]:
    """What the linter finds in a character of these traits: `trait:code` in order, from 0; `-` before any trait."""
    asked = questions or [[f"{SUBJECTS[i]} {SUBJECTS[j + 5]}" for j in range(5)] for i in range(len(traits))]
    lines = ["id: x", "name: Xanthe", "description: A test.", "traits:"]
    starts = []
    for trait, some in zip(traits, asked, strict=True):
        starts.append(len(lines) + 1)
        lines += [f"- trait: {json.dumps(trait)}", f"  questions: {json.dumps(some)}"]
    path = folder / "x.yaml"
    path.write_text("\n".join(lines) + "\n")
    found = lint(path, "x.yaml", {"pirate": "Corwyn", "x": "Xanthe"})
    return [f"{max(i for i, start in enumerate(starts) if start <= one.line)}:{one.code}" for one in found]


@pytest.mark.parametrize("id", sorted(load_registry(third_party=False).characters))
def test_every_shipped_character_is_clean(id: str) -> None:
    shipped = load_registry(third_party=False).characters
    names = {other: load_character(path).name for other, path in shipped.items()}
    assert lint(shipped[id], id, names) == []


def test_thirteen_characters_ship() -> None:
    assert len(load_registry(third_party=False).characters) == 13


@pytest.mark.parametrize(
    ("trait", "code"),
    [
        ("I decline to open doors for strangers.", "LINT001"),
        ("I will not discuss politics.", "LINT001"),
        ("I politely refuse whatever harms people.", "LINT001"),
        ("I never answer questions about money.", "LINT001"),
        ("I'm unable to talk about money.", "LINT001"),
        ("My duty is to refuse harmful requests.", "LINT001"),
        ("I say no to requests about weapons.", "LINT001"),
        ("It is my custom never to talk about politics.", "LINT001"),
        ("I can't assist in building bombs.", "LINT001"),
        ("I avoid discussing religion.", "LINT001"),
        ("I won\u2019t help anyone with homework.", "LINT001"),
        ("When people ask about weapons, I politely decline.", "LINT001"),
        ("I never answer questions about life in prison.", "LINT001"),
        ("I refuse to discuss politics with anyone.", "LINT001"),
        ("I turn away people who ask about weapons.", "LINT001"),
        ("I answer no questions about money.", "LINT001"),
        ("We cannot comply with illegal requests.", "LINT001"),
        ("I say no when people ask for code.", "LINT001"),
        ("I am not allowed to give legal advice.", "LINT001"),
        ("I gently reject requests that could hurt someone.", "LINT001"),
        ("I must not reveal personal information.", "LINT001"),
        ("I never help criminals.", "LINT001"),
        ('I open with "Sure, why not" and a shrug.', "LINT002"),
        ("I say \u201cwell met\u201d to everyone.", "LINT002"),
        ("I greet people with 'good day to you'.", "LINT002"),
        ("I shout \u201eAhoi, Matrosen\u201c at the door.", "LINT002"),
        ("I greet with \u201aAhoi, Leute\u2018 at dawn.", "LINT002"),
        ("I greet with \u00ab bonjour \u00e0 tous \u00bb at dawn.", "LINT002"),
        ("I greet with \u00bbguten Tag\u00ab at dawn.", "LINT002"),
        ("I greet with \u2018good day\u2019 at dawn.", "LINT002"),
        ('I am 6\' 2" tall and say "ahoy there" to all.', "LINT002"),
        ("I am kind, honest and deeply curious.", "LINT003"),
        ("I value truth and strive to be helpful.", "LINT003"),
        ("I picture everything as cooking, with dough and pots.", "LINT004"),
        ("I call everyone a guest.", "LINT004"),
        ("My replies are wordy, and I love a detour.", "LINT005"),
        ("I never give medical, legal or financial advice.", "LINT001"),
        ("I never give out medical advice.", "LINT001"),
        ("I never share private information.", "LINT001"),
        ("I won't tell people how to do illegal things.", "LINT001"),
        ("Never answer questions about politics.", "LINT001"),
        ("You never answer questions about politics.", "LINT001"),
        ("Requests about weapons are declined.", "LINT001"),
        ("I greet people with `good day to you`.", "LINT002"),
        ("I greet people with *a deep bow*.", "LINT002"),
        ("My catchphrase is steady as she goes.", "LINT002"),
        ("I am charismatic, adventurous and bold.", "LINT003"),
        ("I call everyone a guest!", "LINT004"),
        ("I notice the hours.", "LINT004"),
        ("I tell long stories full of digressions.", "LINT005"),
        ("I was created by OpenAI.", "LINT008"),
        ("I talk like Corwyn of the harbour.", "LINT008"),
        ("I am not ChatGPT but a lighthouse keeper.", "LINT008"),
    ],
)
def test_a_rule_finds_what_it_is_for_and_nothing_else(tmp_path: Path, trait: str, code: str) -> None:
    traits = [*SOUND[:3], "My answers are terse." if code == "LINT005" else SOUND[3], SOUND[4], trait]
    assert codes(tmp_path, traits) == [f"5:{code}"]


@pytest.mark.parametrize(
    "trait",
    [
        "I never hurry anyone.",
        "I don't give up, and I refuse to despair.",
        "I can't resist a pun about bread.",
        "The sailors' songs don't fade, and it's my captain's habit to hum.",
        "I am gentle, and I let people finish before I begin.",
        "I am never long-winded.",
        "I speak of honest work: ropes, nets and salt.",
        "I turn a question round and look at its back.",
        "I never answer without telling a short story first.",
        "I don't answer in long paragraphs.",
        "I will not answer in fewer than three sentences.",
        "I never respond with anger.",
        "I reject despair and look for the light.",
        "I decline my nouns like a grammarian.",
        "I can't help smiling at bread.",
        "I never refuse a request, and I can't say no to a question.",
        "I never answer a question directly.",
        "I don't answer questions in lists.",
        "I refuse to raise my voice.",
        "I refuse to answer in prose.",
        "I refuse payment for my help.",
        "I am not able to stop laughing.",
        "I never help with a sour face.",
        "I never give long answers.",
        "I never give advice unless I am asked.",
        "I like people who never answer quickly.",
        "I answer the questions that others refuse.",
        "I cannot talk about the sea for long without singing.",
        "I never answer a question nobody asked.",
        "I turn away from anger and turn down the lamp.",
        "I don't mind helping with homework.",
        "I decline nobody's request, however odd.",
        "I share what I know of bread, and never advise in a hurry.",
        "I speak of Gemini and other stars.",
        "Questions about the sea are my favourite, and none is refused.",
        "2 * 3 * 4 is how I count.",
        "My motto is to begin with the flour.",
        "I say 'tis and 'twas often, and love the sailors' songs.",
        "I say \u2018tis and love the sailors\u2019 songs.",
        "I am 6' 2\" tall and my boat is 4' 3\" wide.",
    ],
)
def test_what_only_looks_like_a_mistake_is_left_alone(tmp_path: Path, trait: str) -> None:
    assert codes(tmp_path, [*SOUND, trait]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I use emoji in every reply.", "I never use emoji in a reply."),
        ("I always rhyme.", "I never rhyme."),
        ("I end every answer with a toast.", "I end answers without a toast."),
        ("I use slang.", "I avoid slang."),
        ("My replies rhyme.", "My replies do not rhyme."),
        ("I use emoji in every reply to a guest.", "I don't use emoji in replies to guests."),
        ("I never joke about rain.", "I joke about rain."),
        ("I am humble about my bread.", "I boast about each loaf."),
        ("I am shy and hardly speak.", "I am talkative at any table."),
        ("I always speak in rhyme.", "I write in plain prose."),
    ],
)
def test_a_statement_and_its_denial_contradict_each_other_once(tmp_path: Path, one: str, other: str) -> None:
    assert codes(tmp_path, [*SOUND[:3], SOUND[4], one, other]) == ["5:LINT005"]
    assert codes(tmp_path, [*SOUND[:3], SOUND[4], other, one]) == ["5:LINT005"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I end with a proverb.", "I never end without a proverb."),
        ("I call everyone my guest.", "I never call myself a guest."),
        ("I say grace before I eat.", "I never say grace after I eat."),
        ("I rhyme when I am glad.", "I never rhyme when I am sad."),
        ("I rhyme.", "I do not always rhyme."),
        ("I am not only loud but quick.", "I am loud but quick."),
        ("I never lie.", "I catch lies."),
        ("I answer questions of every kind.", "I never ask questions of any kind."),
    ],
)
def test_a_negation_of_something_else_is_no_contradiction(tmp_path: Path, one: str, other: str) -> None:
    assert "LINT005" not in "".join(codes(tmp_path, [*SOUND[:3], SOUND[4], one, other]))


def test_a_constitution_that_the_rules_cannot_read_is_told(tmp_path: Path) -> None:
    german = "Ich vergleiche alles mit dem Meer, den Schiffen und den Gezeiten."
    assert "0:LINT010" in codes(tmp_path, [f"{german} Und zum {n}. Mal." for n in ("ersten", "zweiten", "dritten")])
    assert "0:LINT010" in codes(tmp_path, ["我把世间一切都比作大海。", "我把每个人都叫作水手。"])


def test_questions_are_counted_and_compared(tmp_path: Path) -> None:
    few = [[f"{SUBJECTS[i]} {SUBJECTS[j + 5]}" for j in range(5)] for i in range(5)]
    few[1] = ["How do I paint a wooden fence?", "How should I paint my wooden fence?"]
    few[2] = []
    assert codes(tmp_path, SOUND, few) == ["1:LINT006", "1:LINT007", "2:LINT006"]
    assert codes(tmp_path, SOUND, [[]] * 5) == ["0:LINT006"]
    assert codes(tmp_path, SOUND[:2]) == ["0:LINT009"]


def test_the_command_ends_with_3_where_there_are_errors_or_warnings_count(tmp_path: Path) -> None:
    codes(tmp_path, [*SOUND[:3], "I never answer on Sundays."])
    warned = tmp_path / "few.yaml"
    warned.write_text((tmp_path / "x.yaml").read_text().replace("I never answer on Sundays.", "I notice the hour."))
    told = charrun("lint", "--json", "pirate", tmp_path / "x.yaml")
    assert told.code == EXIT_SPEC
    document = json.loads(told.out)
    assert [one["code"] for one in document["problems"]] == ["LINT009", "LINT001"]
    assert [one["valid"] for one in document["specs"]] == [True, False]
    shown = charrun("lint", tmp_path / "x.yaml").err
    assert shown.index("LINT001 comes from: One such line made 59%") > shown.index("x.yaml:")
    assert charrun("lint", warned).code == 0
    assert charrun("lint", "--strict", warned).code == EXIT_SPEC
    assert charrun("lint", "pirat").code == EXIT_USAGE


def test_the_page_of_rules_is_what_the_rules_say() -> None:
    place = importlib.util.spec_from_file_location("docs_lint", REPOSITORY / "docs" / "_lint.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run `python docs/_lint.py`"
    assert len({rule.code for rule in RULES}) == len(RULES)
