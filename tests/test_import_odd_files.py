"""Files that are nearly in one of the formats, or in none: what is read all the same, what is told, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import charrun

from charrun.errors import EXIT_SPEC, SpecError
from charrun.spec.importing import Imported, Wanted, import_character
from charrun.spec.library import load_character

LIST = '[{"trait":"I x.","questions":["a?"]}]\n'
SURE = {"IMPORT022", "IMPORT023"}
"""Warnings that each of these files earns."""


def made(folder: Path, name: str, text: str, wanted: Wanted | None = None) -> Imported:
    path = folder / name
    path.write_bytes(text.encode())
    return import_character(path, name, wanted or Wanted())


def traits(folder: Path, name: str, text: str, wanted: Wanted | None = None) -> dict[str, list[str]]:
    """Traits with their questions."""
    written = folder / "made.yaml"
    written.write_text(made(folder, name, text, wanted).text, encoding="utf-8")
    return {trait.trait: list(trait.questions) for trait in load_character(written).traits}


def refused(folder: Path, name: str, text: str, wanted: Wanted | None = None) -> list[str]:
    """Each error as it is shown."""
    with pytest.raises(SpecError) as caught:
        made(folder, name, text, wanted)
    return [problem.render() for problem in caught.value.problems if problem.code not in SURE]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", f"// c\n{LIST}"),
        ("a.json", f"\ufeff// c\r\n{LIST}"),
        ("a.json", f"{LIST}// the end, isn't it"),
        ("a.json", f"# c\n{LIST[0]} # d\n{LIST[1:]}"),
        ("a.json", f"/* it's\n * [ */ {LIST}"),
        (
            "a.json",
            '[\n\t// don\'t\n\t{\n\t\t"trait": "I x.", /* "y */\n\t\t"questions": [\n\t\t\t"a?",\n\t\t],\n\t},\n]\n',
        ),
        ("a.txt", '[ // c\n  {"trait": "I x.", "questions": ["a?"]} // {\n]\n'),
        ("a.json5", "[{trait: 'I x.', questions: [\"a?\"],},]"),
        ("a.jsonl", '// c\n{"trait": "I x.", "questions": ["a?"]}, // d\n/* e\n f */\n'),
        ("a.json", '{\n  "trait": "I x.",\n  "questions": ["a?"]\n}\n'),
    ],
)
def test_json_is_read_with_comments_and_trailing_commas(tmp_path: Path, name: str, text: str) -> None:
    assert traits(tmp_path, name, text) == {"I x.": ["a?"]}


def test_what_looks_like_a_comment_within_a_text_stays(tmp_path: Path) -> None:
    said = r"I read \"http://x.y\" // z."
    wanted = {'I read "http://x.y" // z.': ["see /* b */ http://a.b?", "a # b?"]}
    item = f'{{"trait": "{said}", "questions": ["see /* b */ http://a.b?", "a # b?"]}}'
    assert traits(tmp_path, "a.json", f"[{item}] // c") == traits(tmp_path, "a.jsonl", f"{item} // c") == wanted


def test_a_constitution_of_the_studio_may_be_json(tmp_path: Path) -> None:
    text = '{"meta": {"name": "n"}, "directives": {"personality": ["I x."]}}'
    assert made(tmp_path, "a.json", text).format == "studio-yaml"


def test_the_directives_of_a_constitution_in_json_may_stand_anywhere(tmp_path: Path) -> None:
    text = '{"version": 1, "meta": {"name": "n"}, "directives": {"personality": ["I x."]}}'
    assert made(tmp_path, "a.json", text).format == "studio-yaml"


@pytest.mark.parametrize("key", ["examples", "persona", "safety", "meta", "id"])
def test_a_text_may_have_a_line_that_begins_as_a_key_of_yaml(key: str, tmp_path: Path) -> None:
    assert list(traits(tmp_path, "a.txt", f"I growl.\n{key}: I give many.\n")) == ["I growl.", f"{key}: I give many."]
    assert list(traits(tmp_path, "a.txt", f"{key}:\n- I growl.\n- I laugh.\n")) == ["I growl.", "I laugh."]


@pytest.mark.parametrize("head", ["", "---\n", "version: 1\n", "# c\n"])
def test_a_constitution_of_the_studio_may_have_any_name(head: str, tmp_path: Path) -> None:
    text = f"{head}meta:\n\n  # c\n  name: n\ndirectives:\n  personality:\n    - I x.\n"
    assert made(tmp_path, "a.txt", text).format == "studio-yaml"


def test_a_text_that_could_not_be_read_is_told_once(tmp_path: Path) -> None:
    found = refused(tmp_path, "a.json", r'[{"trait": "I \u0007knit.", "questions": ["a?"]}]')
    assert len(found) == 1 and found[0].startswith("a.json:1:12 SPEC003"), found


def test_a_title_of_a_text_is_no_list_in_yaml(tmp_path: Path) -> None:
    assert list(traits(tmp_path, "a.txt", "traits:\n- I growl.\n- I laugh.\n")) == ["I growl.", "I laugh."]


def test_a_format_that_is_forced_on_another_one_is_told_as_such(tmp_path: Path) -> None:
    found = refused(tmp_path, "a.txt", "I knit.\nI sew.\n", Wanted(format="studio-yaml"))
    assert found[0].startswith("a.txt:1:1 IMPORT003 expected a mapping with meta, persona"), found
    assert refused(tmp_path, "a.txt", " \n", Wanted(format="paper-json"))[0].startswith(
        "a.txt IMPORT001 the file is empty"
    )


def test_an_odd_json_file_becomes_no_trait_at_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.json").write_text(f"// c\n{LIST}")
    assert (
        "c.json is a JSON list of {trait, questions}: 1 trait, 1 question" in charrun("import-character", "c.json").out
    )
    Path("c.csv").write_text("trait,question\nI x.,a?\n")
    done = charrun("import-character", "c.csv", "-o", "new.yaml")
    assert done.code == EXIT_SPEC and "c.csv:1:1 IMPORT003" in done.err and not Path("new.yaml").exists()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.json", f"/* c\n{LIST}", "a.json:1:1 SPEC004 not valid JSON: this comment is not closed"),
        ("a.json", '[{"trait": "I x."}, /* c\n]', "a.json:1:21 SPEC004 not valid JSON: this comment is not closed"),
        (
            "a.json",
            '[\n\t{"trait": "I x"\n\t "questions": []}]',
            "a.json:3:3 SPEC004 not valid JSON: expected ',' or '}'",
        ),
        ("a.json", '[{"trait": "I x}]', "a.json:1:12 SPEC004 not valid JSON: this quote is not closed"),
        ("a.json", '[{trait:"I x."}]', "a.json:1:3 SPEC004 not valid JSON: a key without quotes"),
        ("a.json", f"{LIST}I knit.\n", "a.json:2:1 SPEC004 not valid JSON: text after the closing bracket"),
        (
            "a.json",
            '{\n"trait": "I x."\n}\n{\n}\n',
            "a.json:4:1 SPEC004 not valid JSON: text after the closing bracket",
        ),
        ("a.json", "I x.\n", "a.json:1:1 IMPORT003 the file is named as JSON, but begins with neither '[' nor '{'"),
        ("a.JSONL", "// c\n  - I x.\n", "a.JSONL:2:3 IMPORT003 the file is named as JSON, but begins with neither"),
        ("a.yml", "- I x.\n", "a.yml:1:1 IMPORT003 the file is named as YAML, but has no key of Open Character Studio"),
        ("a.pdf", "%PDF-1.4\n", "a.pdf:1:1 IMPORT003 the file begins with a PDF, which is none of the formats"),
        ("a.toml", 'name = "x"\n', "a.toml:1:1 IMPORT003 the file begins with a setting, which is none of the formats"),
        ("a.yaml", "traits: [I x.]\n", "a.yaml:1:1 IMPORT003 the file is named as YAML, but has no key of Open"),
        ("a.csv", '"I x.","a?"\n', "a.csv:1:1 IMPORT003 the file is named as a table, which is none of the formats"),
        ("a.tsv", "I x.\ta?\n", "a.tsv:1:1 IMPORT003 the file is named as a table, which is none of the formats"),
        (
            "a.txt",
            "\ntrait;question\n",
            "a.txt:2:1 IMPORT003 the file begins with a table, which is none of the formats",
        ),
        ("a.md", "| trait |\n|---|\n", "a.md:1:1 IMPORT003 the file begins with a table, which is none of the formats"),
        (
            "a.html",
            "<!DOCTYPE html>\n",
            "a.html:1:1 IMPORT003 the file begins with markup, which is none of the formats",
        ),
        ("a.txt", "{\\rtf1 I x.}\n", "a.txt:1:1 IMPORT003 the file begins with markup, which is none of the formats"),
        (
            "a.txt",
            "- trait: I x.\n",
            "a.txt:1:1 IMPORT003 the file begins with a list in YAML, which is none of the for",
        ),
    ],
)
def test_what_is_in_none_of_the_formats_is_refused_at_its_place(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    found = refused(tmp_path, name, text)
    assert len(found) == 1 and found[0].startswith(told), found


def test_a_table_is_refused_with_the_formats_that_there_are(tmp_path: Path) -> None:
    assert refused(tmp_path, "a.csv", "trait,question\nI x.,a?\n")[0].splitlines()[1:] == [
        "    1 | trait,question",
        "      | ^^^^^^^^^^^^^^",
        "      write one assertion in each line of a text file, a JSON list of {trait, questions}, "
        "one {trait, questions} in each line of a .jsonl file, or YAML of Open Character Studio",
    ]


def test_lines_that_are_json_tables_or_markup_are_no_assertions(tmp_path: Path) -> None:
    text = (
        'I knit.\n[{"trait": "I x."}]\n  "trait": "I x.",\n  ]\n"I x.","a?"\nI x.,a?\nI x.\ta?\n'
        "<li>I x.</li>\n```json\n[voice]\nI end.\n"
    )
    assert [problem.splitlines()[0] for problem in refused(tmp_path, "a.txt", text)] == [
        "a.txt:2:1 IMPORT014 JSON, not an assertion",
        "a.txt:3:3 IMPORT014 JSON, not an assertion",
        "a.txt:4:3 IMPORT014 JSON, not an assertion",
        "a.txt:5:1 IMPORT014 a table, not an assertion",
        "a.txt:6:1 IMPORT014 a table, not an assertion",
        "a.txt:7:1 IMPORT014 a table, not an assertion",
        "a.txt:8:1 IMPORT014 markup, not an assertion",
        "a.txt:9:1 IMPORT014 markup, not an assertion",
        "a.txt:10:1 IMPORT014 a heading, not an assertion",
    ]
    forced = refused(tmp_path, "a.json", LIST, Wanted(format="lines"))
    assert forced[0].startswith("a.json:1:1 IMPORT014 JSON, not an assertion")


@pytest.mark.parametrize(
    "line",
    [
        '"Aye," I say first.',
        'I say "arr", "matey" and "aye".',
        "I use <3, {curly} and [square] signs.",
        "I count 1,2,3, e.g. a,b.",
        'I end with ",".',
        "[I knit.] often.",
        "[1] I knit.",
        "{name} speaks slowly.",
        "I bow, etc.,and so on.",
        "I end with: what say ye?",
        'I ask in the end, "what say ye?"',
        "When asked, I say: why?",
        "How I begin is this: why?",
        "My last words are \u201cwhat say ye?",
    ],
)
def test_an_assertion_may_hold_signs_of_other_formats_and_quote_a_question(tmp_path: Path, line: str) -> None:
    assert list(traits(tmp_path, "a.txt", f"{line}\nI sew.\n")) == [line, "I sew."]


@pytest.mark.parametrize("line", ["Do I say: why?", "It isn't so, is it?", "What do I say: yes?", "Is it 10:30 I say?"])
def test_a_question_is_no_assertion(tmp_path: Path, line: str) -> None:
    found = refused(tmp_path, "a.txt", f"I sew.\n* {line}\n")
    assert len(found) == 1 and found[0].startswith("a.txt:2:3 IMPORT016 a question, not an assertion"), found


def test_bullets_of_markdown_are_no_part_of_an_assertion(tmp_path: Path) -> None:
    text = "# Miller\n\n* I knit.\n- [ ] I sew.\n- [x] I spin.\n> I hem.\n1) I weave.\n/* c */\n"
    assert list(traits(tmp_path, "a.md", text)) == ["I knit.", "I sew.", "I spin.", "I hem.", "I weave."]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\x85"])
def test_only_line_feeds_and_carriage_returns_end_a_line(tmp_path: Path, sign: str) -> None:
    rows = refused(tmp_path, "a.jsonl", f'{{"trait": "I{sign}x."}}\r{{"trait": "I y."}}\r\n{{"trait": 3}}\n')
    assert len(rows) == 1
    assert rows[0].startswith(
        'a.jsonl:3:11 IMPORT014 expected text, got 3\n    3 | {"trait": 3}\n      |           ^\n'
    )
    listed = refused(tmp_path, "a.json", f'[{{"trait": "I{sign}x."}},\n{{"trait": 3}}]')
    assert listed[0].startswith('a.json:2:11 IMPORT014 expected text, got 3\n    2 | {"trait": 3}]')
    lines = refused(tmp_path, "a.txt", f"I{sign}x.\nDo I?\n")
    assert lines[0].startswith("a.txt:2:1 IMPORT016 a question, not an assertion\n    2 | Do I?")
    studio = refused(tmp_path, "a.yaml", f"directives:\n  personality:\n    - I{sign}x.\n    - a: b\n")
    assert studio[0].startswith("a.yaml:4:7 IMPORT014 expected text, got a mapping\n    4 |     - a: b")


def test_escapes_of_two_halves_leave_places_as_they_are(tmp_path: Path) -> None:
    text = r'[{"trait": "I \ud83d\ude00.", "questions": ["\ud83d\ude00", 3]}]'
    assert refused(tmp_path, "a.json", text)[0].splitlines() == [
        "a.json:1:61 IMPORT014 expected text, got 3",
        f"    1 | {text}",
        f"      | {' ' * 60}^",
        "      write the question in quotes",
    ]


def test_an_alias_is_told_at_its_own_place(tmp_path: Path) -> None:
    text = "directives:\n  personality: &p\n    - &a I knit.\n  behavior: *p\n  constraints: [*a, I knit.]\n"
    told = [problem.render() for problem in made(tmp_path, "a.yaml", text).warnings if problem.code == "IMPORT013"]
    assert [one.splitlines()[0].split()[0] for one in told] == ["a.yaml:4:13", "a.yaml:5:17", "a.yaml:5:21"]
    assert all(one.endswith("it is left out: it is already there in line 3") for one in told)


def test_a_repetition_in_the_same_line_says_so(tmp_path: Path) -> None:
    told = made(tmp_path, "a.json", '[{"trait": "I x.", "questions": ["a?", "A?"]}]').warnings
    assert [one.render().splitlines()[0] for one in told if one.code not in SURE] == [
        "a.json:1:40 warning IMPORT013 repeated question 'A?'"
    ]
    assert told[-1].hint == "it is left out: it is already there, earlier in this line"


@pytest.mark.parametrize("piece", ["/*", '"', ".,a", '"",', "//'", "[{", "{trait: ", "<a ", "\\ud83d\\ude00"])
@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.jsonl"])
def test_a_large_odd_file_is_refused(tmp_path: Path, piece: str, name: str) -> None:
    for start in ("", "[", "{"):
        with pytest.raises(SpecError):
            made(tmp_path, name, start + piece * (100_000 // len(piece)))
