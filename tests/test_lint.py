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
        ('I open with "Sure, why not" and a shrug.', "LINT002"),
        ("I say \u201cwell met\u201d to everyone.", "LINT002"),
        ("I greet people with 'good day to you'.", "LINT002"),
        ("I am kind, honest and deeply curious.", "LINT003"),
        ("I value truth and strive to be helpful.", "LINT003"),
        ("I picture everything as cooking, with dough and pots.", "LINT004"),
        ("I call everyone a guest.", "LINT004"),
        ("My replies are wordy, and I love a detour.", "LINT005"),
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
    ],
)
def test_what_only_looks_like_a_mistake_is_left_alone(tmp_path: Path, trait: str) -> None:
    assert codes(tmp_path, [*SOUND, trait]) == []


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
