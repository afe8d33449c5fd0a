"""Constitutions in the formats of others: what is read, what is told with its place, what is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import charrun

from charrun.errors import EXIT_SPEC, EXIT_USAGE, SpecError
from charrun.spec.importing import CODES, FORMATS, Wanted, import_character
from charrun.spec.library import load_character

PAPER = r"""
[
  {"trait": "I look at everything as threads.", "questions": ["How does a rumour travel?", "caf\u00e9 \ud83d\ude00"]},
  {"trait": "My answers end on a colour.", "questions": ["I am bored.", "how does a rumour  travel?",]}
]
"""
ROWS = (
    '\ufeff{"trait": "I count aloud.", "questions": ["What is in it?"], "additional_questions": ["Who is it?"]}\r\n'
    '\r\n{"trait": "I speak of the weather.", "questions": ["To the station?"], "clarification": "x"}\r\n'
)
LINES = """# A miller.
1. I speak slowly, as millstones turn.
- "I finish by naming a grain.",

// how people are addressed
\u2022 I call everyone a guest.
"""
STUDIO = """meta: {name: night-watch, description: Tells the hour., license: CC0-1.0, author: me}
persona: {identity: A watchman who walks through the town by night and knows each door., voice: {tone: low}}
directives:
  personality: [I tell the hour first., My pictures come from lanterns.]
  behavior: [I lower my voice.]
safety: {refusals: [I decline to open doors.], boundaries: []}
signoffs: [All is well.]
"""


def imported(folder: Path, name: str, text: str, wanted: Wanted | None = None) -> tuple[dict[str, list[str]], str, str]:
    """Traits with their questions, the file's text, and the warnings."""
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    made = import_character(path, name, wanted or Wanted())
    written = folder / "made.yaml"
    written.write_text(made.text, encoding="utf-8")
    character = load_character(written)
    traits = {trait.trait: list(trait.questions) for trait in character.traits}
    return traits, made.text, "\n".join(warning.render() for warning in made.warnings)


def refused(folder: Path, name: str, text: str | bytes, wanted: Wanted | None = None) -> list[str]:
    """`line:column code` of every error and warning of a file that cannot be imported."""
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SpecError) as caught:
        import_character(path, name, wanted or Wanted())
    return [f"{one.line}:{one.column} {one.code}" for one in caught.value.problems]


def test_a_json_list_is_read_with_its_escapes_and_a_trailing_comma(tmp_path: Path) -> None:
    traits, _, told = imported(tmp_path, "weaver.txt", PAPER)
    assert traits == {
        "I look at everything as threads.": ["How does a rumour travel?", "caf\u00e9 \U0001f600"],
        "My answers end on a colour.": ["I am bored."],
    }
    assert "weaver.txt:4:73 warning IMPORT013 repeated question 'how does a rumour travel?'" in told


def test_rows_of_few_shot_questions_are_joined(tmp_path: Path) -> None:
    traits, text, told = imported(tmp_path, "counter_few_shot.jsonl", ROWS)
    assert traits == {
        "I count aloud.": ["What is in it?", "Who is it?"],
        "I speak of the weather.": ["To the station?"],
    }
    assert "id: counter\nname: Counter\n" in text
    assert "counter_few_shot.jsonl:3:72 warning IMPORT021 unknown key 'clarification'" in told


def test_lines_lose_bullets_and_quotes_and_keep_comments(tmp_path: Path) -> None:
    traits, text, told = imported(tmp_path, "old_miller.txt", LINES)
    assert list(traits) == [
        "I speak slowly, as millstones turn.",
        "I finish by naming a grain.",
        "I call everyone a guest.",
    ]
    assert "  # how people are addressed\n  - trait: I call everyone a guest.\n    questions: []\n" in text
    assert "IMPORT023 the file has no questions" in told and "name: Old Miller\n" in text


def test_lines_with_titles_front_matter_and_marks_are_traits_all_the_same(tmp_path: Path) -> None:
    text = (
        "---\ntitle: The gardener\n---\nTraits:\n1a) I speak slowly and use garden images, and\n"
        "    I never hurry anyone.\n\u2610 I weed\n  before breakfast.\n**I mulch.**\nb. I prune.\n  I water daily\n"
    )
    traits, _, told = imported(tmp_path, "a.txt", text)
    assert list(traits) == [
        "I speak slowly and use garden images, and I never hurry anyone.",
        "I weed before breakfast.",
        "I mulch.",
        "I prune.",
        "I water daily",
    ]
    assert "IMPORT014" not in told and "error" not in told


def test_refusals_and_sign_offs_become_comments_and_never_traits(tmp_path: Path) -> None:
    traits, text, told = imported(tmp_path, "watch.yaml", STUDIO)
    assert list(traits) == ["I tell the hour first.", "My pictures come from lanterns.", "I lower my voice."]
    assert "# safety.refusals:\n#   - I decline to open doors.\n" in text and "#   - All is well.\n" in text
    assert "watch.yaml:6:20 warning IMPORT020 safety.refusals not imported" in told
    assert "licence: CC0-1.0\n" in text and "id: night-watch\n" in text and "IMPORT022" not in told


def test_licence_and_source_are_recorded_and_no_part_of_what_models_see(tmp_path: Path) -> None:
    _, text, _ = imported(
        tmp_path, "a.txt", LINES, Wanted(licence="CC-BY-4.0", source="my desk", id="desk", name="Ada")
    )
    (tmp_path / "made.yaml").write_text(text)
    character = load_character(tmp_path / "made.yaml")
    assert (character.id, character.name) == ("desk", "Ada")
    assert (character.licence, character.source) == ("CC-BY-4.0", "my desk")
    assert character.to_dict()["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("name", "text", "licence", "source"),
    [
        ("a.md", "---\ntitle: x\nlicense: MIT\nauthors: [me, you]\n---\nI knit.\n", "MIT", "me, you, a.md"),
        (
            "a.txt",
            "# SPDX-License-Identifier: CC-BY-4.0\n// Source: http://x/y\nI knit.\n",
            "CC-BY-4.0",
            "http://x/y, a",
        ),
        (
            "a.yaml",
            f"license: MIT\n{STUDIO.replace('license: CC0-1.0, author: me', 'author: [me, you]')}",
            "MIT",
            "me, you",
        ),
        ("a.yaml", STUDIO.replace("author: me", "author: me, source: here"), "CC0-1.0", "me, here, a.yaml"),
        (
            "a.jsonl",
            '{"trait": "I x.", "licence": "MIT", "source": "x"}\n{"trait": "I y.", "licence": "MIT", "source": "y"}\n',
            "MIT",
            "x, y, a.jsonl",
        ),
    ],
)
def test_licence_and_source_are_read_where_a_file_tells_them(
    name: str, text: str, licence: str, source: str, tmp_path: Path
) -> None:
    _, _, told = imported(tmp_path, name, text)
    character = load_character(tmp_path / "made.yaml")
    assert character.licence == licence and character.source.startswith(source), character.source
    assert "IMPORT022" not in told and "IMPORT021" not in told


def test_questions_keep_their_lines_and_may_be_long(tmp_path: Path) -> None:
    question = "What does this do?\n\n```py\n" + "x = 1\n" * 200 + "```"
    traits, _, _ = imported(tmp_path, "a.json", json.dumps([{"trait": "I\nknit.", "questions": [f" {question}\n"]}]))
    assert traits == {"I knit.": [question]}


def test_what_may_be_a_heading_is_imported_with_a_warning(tmp_path: Path) -> None:
    text = "VOICE\nI growl loudly\n**Pirate Constitution**\nI share.\nLicense: MIT\n"
    _, _, told = imported(tmp_path, "a.txt", text)
    assert re.findall(r"a.txt:\S+ warning IMPORT025 .*", told) == [
        "a.txt:1:1 warning IMPORT025 perhaps no assertion: 'VOICE'",
        "a.txt:3:3 warning IMPORT025 perhaps no assertion: 'Pirate Constitution'",
        "a.txt:5:1 warning IMPORT025 perhaps no assertion: 'License: MIT'",
    ]


def test_a_key_of_the_studio_that_is_nearly_known_is_told_with_the_one_that_is(tmp_path: Path) -> None:
    text = STUDIO.replace("behavior:", "behaviors:").replace("license:", "shop: x, license:")
    _, _, told = imported(tmp_path, "a.yaml", text)
    assert "unknown key 'behaviors'" in told and "did you mean 'behavior'?" in told and "unknown key 'shop'" in told


def test_a_trait_that_declines_is_imported_with_a_warning(tmp_path: Path) -> None:
    traits, _, told = imported(tmp_path, "a.txt", "I knit.\nI never answer questions about money.\n")
    assert len(traits) == 2
    assert "a.txt:2:1 warning IMPORT024 the trait declines requests: 'I never answer'" in told


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "", ["0:0 IMPORT001"]),
        ("a.txt", "# a comment alone\n", ["0:0 IMPORT001"]),
        ("a.txt", "[]", ["0:0 IMPORT022", "1:1 IMPORT002"]),
        ("a.txt", '[{"trait": "", "questions": ["", "q"]}]', ["0:0 IMPORT022", "1:12 IMPORT010"]),
        ("a.txt", '[{"trait": "I knit.", "questions": "q"}]', ["0:0 IMPORT022", "0:0 IMPORT023", "1:36 IMPORT014"]),
        (
            "a.txt",
            '["I knit.", {"questions": [1]}]',
            ["0:0 IMPORT022", "1:2 IMPORT014", "1:13 IMPORT015", "1:28 IMPORT014"],
        ),
        ("a.txt", '[{"trait": "I knit."', ["1:2 SPEC004"]),
        ("a.jsonl", '{"trait": "I knit."}\n{"trait": \n{"trait": 3}\n', ["SPEC004", "3:11 IMPORT014"]),
        ("a.txt", '[{"trait": "\u200b", "questions": []}]', ["1:12 IMPORT010"]),
        ("a.txt", "\n".join(f"I knit {number} socks." for number in range(1001)), ["1001:1 IMPORT011"]),
        ("a.txt", "I speak in sentences that\ngo on and\non.\n", ["2:1 IMPORT017", "3:1 IMPORT017"]),
        ("a.txt", "traits:\n  - trait: I knit.\n", ["1:1 IMPORT003"]),
        ("a.yaml", "meta: {}\ndirectives: {personality: []}\n", ["1:1 IMPORT002"]),
        ("a.txt", "I knit.\nDo you knit?\n***\n", ["2:1 IMPORT016"]),
        ("a.txt", "I " + "knit " * 300, ["1:1 IMPORT011"]),
        ("a.yaml", "version: 1\nid: x\ntraits: []\n", ["3:1 IMPORT003"]),
        ("a.yaml", "meta: {name: x}\n", ["1:1 IMPORT015"]),
        ("a.yaml", "directives: {personality: I knit., behavior: [a: b]}\n", ["1:27 IMPORT014", "1:47 IMPORT014"]),
        ("\u6771.txt", "I knit.\n", ["0:0 IMPORT004"]),
        ("a.txt", b"I knit caf\xe9s.\n", ["1:11 SPEC003"]),
        ("a.txt", b"I knit.\x00\n", ["1:8 SPEC003"]),
        ("a.txt", b"x" * (1 << 20) + b"y", ["0:0 SPEC002"]),
        ("a.txt", b"[" * 100_000, ["1:1001 SPEC005"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, name: str, text: str | bytes, told: list[str]) -> None:
    found = refused(tmp_path, name, text)
    assert all(any(one.endswith(wanted) for one in found) for wanted in told), found


def test_the_command_writes_a_sound_character_and_never_over_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("watch.yaml").write_text(STUDIO)
    first = charrun("import-character", "watch.yaml")
    assert first.code == 0, first.err
    assert "night-watch.yaml" in first.out and "IMPORT020 safety.refusals" in first.err
    again = charrun("import-character", "watch.yaml")
    assert again.code == EXIT_USAGE and "is there already" in again.err
    named = charrun("import-character", "watch.yaml", "-o", "x.json")
    assert named.code == EXIT_USAGE and "end it with .yaml" in named.err and not Path("x.json").exists()
    broken = Path("broken.txt")
    broken.write_text('["x"]')
    refused = charrun("import-character", "broken.txt", "-o", "new.yaml")
    assert refused.code == EXIT_SPEC and "broken.txt:1:2 IMPORT014" in refused.err and not Path("new.yaml").exists()


def test_another_format_can_be_forced(tmp_path: Path) -> None:
    traits, _, _ = imported(tmp_path, "a.txt", "meta: is how I begin every line.\n", Wanted(format="lines"))
    assert list(traits) == ["meta: is how I begin every line."]


def test_the_page_lists_every_format_and_code() -> None:
    page = (Path(__file__).parents[1] / "docs" / "lint.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in FORMATS)
    source = "".join(path.read_text() for path in (Path(__file__).parents[1] / "runner/spec").glob("*.py"))
    assert all(source.count(code) > 1 for code in CODES if code.startswith("IMPORT")), "a code that nothing tells"


@pytest.mark.slow
def test_a_constitution_of_each_format_runs_at_smoke_scale_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"a.txt": PAPER, "b.jsonl": ROWS, "c.txt": LINES, "d.yaml": STUDIO}.items():
        Path(name).write_text(text, encoding="utf-8", newline="")
        assert charrun("import-character", name, "--id", f"from-{name[0]}").code == 0
    files = [f"./from-{letter}.yaml" for letter in "abcd"]
    Path("spec.yaml").write_text(f"extends: builtin:pirate-smoke\nname: imported\ncharacters: {json.dumps(files)}\n")
    done = charrun("spec.yaml", "--until", "dpo")
    assert done.code == 0, done.err
    assert len(re.findall(r"dpo +1 checkpoint \(", done.out)) == 4, done.out
