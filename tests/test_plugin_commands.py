"""`charrun plugins`, `stages` and `characters`, and commands that plugins bring along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY, Outcome, charrun
from plugin_folders import HEAD, distribution, metadata, stage

from charrun.commands.tables import default_words, value_words, wrapped_table
from charrun.plugin_manager import BUILT_IN

COMMANDS = "charrun.commands"
NOISY = "import sys; print('IMPORTED'); print('IMPORTED', file=sys.stderr)\n"
GALLERY = (
    NOISY
    + """
import click

@click.command()
@click.argument("what")
def gallery(what):
    click.echo(f"showing {what}")
"""
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of distributions."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


def at(site: Path, *args: str, **env: str) -> Outcome:
    """Run a command with the folder on the path, at width 80."""
    return charrun(*args, env={"PYTHONPATH": str(site), "COLUMNS": "80", **env})


def fits(text: str) -> bool:
    return all(len(line) <= 80 and line == line.rstrip() for line in text.splitlines()) and "\x1b" not in text


# -- charrun plugins ----------------------------------------------------------------------------------------------


def test_plugins_are_listed_without_importing_them(site: Path) -> None:
    distribution(site, "charrun-owl", NOISY + stage("owl"), entry="owl", version="2.1")
    distribution(site, "charrun-gallery", GALLERY, entry="gallery", group=COMMANDS, attribute="gallery")
    outcome = at(site, "plugins")
    assert outcome.code == 0 and "IMPORTED" not in outcome.text and fits(outcome.out)
    assert "charrun 0.1.0 has built in: characters, scales, expand, prompts" in outcome.out
    assert "owl      plugin   charrun-owl 2.1" in outcome.out
    assert "gallery  command  charrun-gallery 1.0  charrun_gallery:gallery" in outcome.out
    rows = json.loads(at(site, "plugins", "--json").out)
    assert rows["built_in"]["modules"] == list(BUILT_IN)
    assert [(row["name"], row["group"], row["version"], row["location"]) for row in rows["installed"]] == [
        ("owl", "charrun", "2.1", str(site)),
        ("gallery", COMMANDS, "1.0", str(site)),
    ]


def test_a_check_imports_them_and_says_which_fail(site: Path) -> None:
    distribution(site, "charrun-owl", stage("owl"), entry="owl")
    assert at(site, "plugins", "--check").code == 0
    distribution(site, "charrun-bad", HEAD + "raise RuntimeError('no')", entry="bad")
    distribution(site, "charrun-list", "gallery = []", entry="gallery", group=COMMANDS, attribute="gallery")
    outcome = at(site, "plugins", "--check")
    assert outcome.code == 4 and fits(outcome.out)
    for text in (
        "registers stage owl",
        "fails: RuntimeError: no",
        "pip uninstall charrun-bad, pip uninstall charrun-list",
    ):
        assert text in " ".join(outcome.text.split())
    rows = json.loads(at(site, "plugins", "--check", "--json").out)["installed"]
    assert {row["name"]: row["works"] for row in rows} == {"owl": True, "bad": False, "gallery": False}
    left = at(site, "plugins", "--check", CHARRUN_LOAD_PLUGINS="owl")
    assert "left out by CHARRUN_LOAD_PLUGINS" in " ".join(left.out.split()) and "RuntimeError" not in left.text


# -- commands of plugins ------------------------------------------------------------------------------------------


def test_a_plugins_command_is_listed_from_metadata_and_imported_when_it_runs(site: Path) -> None:
    distribution(site, "charrun-gallery", GALLERY, entry="gallery", group=COMMANDS, attribute="gallery")
    helped = at(site, "--help")
    assert "gallery           (of charrun-gallery 1.0)" in helped.out and "IMPORTED" not in helped.text
    outcome = at(site, "gallery", "owls")
    assert (outcome.code, outcome.out) == (0, "showing owls\n")
    assert "IMPORTED" not in at(site, "stages").text
    typo = at(site, "galery")
    assert typo.code == 2 and "gallery" in typo.err and "IMPORTED" not in typo.text


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("gallery = 3", "charrun_gallery:gallery is a int, not a click command"),
        ("", "AttributeError"),
    ],
)
def test_a_broken_command_is_an_error_of_its_distribution(site: Path, source: str, why: str) -> None:
    distribution(site, "charrun-gallery", source, entry="gallery", group=COMMANDS, attribute="gallery")
    outcome = at(site, "gallery")
    assert outcome.code == 4
    assert outcome.err.startswith("error: the command 'gallery' of charrun-gallery 1.0 cannot be loaded: " + why)
    assert "pip uninstall charrun-gallery" in outcome.err
    assert at(site, "--help").code == 0


def test_a_command_that_two_packages_offer_is_refused(site: Path) -> None:
    for name in ("charrun-one", "charrun-two"):
        distribution(site, name, GALLERY, entry="gallery", group=COMMANDS, attribute="gallery")
    outcome = at(site, "gallery", "owls")
    assert outcome.code == 4 and "IMPORTED" not in outcome.text
    assert "the command 'gallery' is registered by charrun-one 1.0 and by charrun-two 1.0" in outcome.err


def test_a_plugin_does_not_replace_a_command_of_charrun(site: Path) -> None:
    distribution(site, "charrun-thief", GALLERY, entry="stages", group=COMMANDS, attribute="gallery")
    assert "dpo" in at(site, "stages").out
    assert "stages  (of charrun-thief 1.0: charrun has its own)" in at(site, "--help").out


def test_metadata_that_cannot_be_read_ends_no_command(site: Path) -> None:
    metadata(site, "charrun-odd", {})
    (site / "charrun_odd-1.0.dist-info" / "entry_points.txt").write_text("[charrun.commands]\nno equals sign\n")
    for command in ("--help", "plugins", "stages"):
        assert at(site, command).code == 0


# -- charrun stages -----------------------------------------------------------------------------------------------


def test_stages_are_listed_with_what_they_consume_and_produce(tmp_path: Path) -> None:
    outcome = at(tmp_path, "stages")
    assert outcome.code == 0 and fits(outcome.out)
    (line,) = [line for line in outcome.out.splitlines() if line.startswith("dpo ")]
    assert line.split() == ["dpo", "DPO", "of", "the", "student", "on", "the", "pairs", "pairs", "checkpoint"]


def test_a_stage_shows_its_options_and_who_registered_it(site: Path) -> None:
    outcome = at(site, "stages", "dpo")
    assert outcome.code == 0 and fits(outcome.out)
    assert "models         student (trained), scorer (measures)\ntemplates      character\n" in outcome.out
    assert "\nregistered by  built in\n" in outcome.out
    assert "beta              a number, more than 0      0.1       Strength of the pull" in outcome.out
    assert "checkpoint_every  a whole number, at least   10        Steps between two" in outcome.out
    distribution(site, "charrun-owl", stage("owl"), entry="owl")
    outcome = at(site, "stages", "owl")
    assert "registered by  charrun-owl 1.0" in outcome.out and "It has no options." in outcome.out
    facts = json.loads(at(site, "stages", "dpo", "--json").out)
    assert facts["options_schema"]["properties"]["beta"]["default"] == 0.1 and facts["trains"] == ["student"]
    assert {row["origin"] for row in json.loads(at(site, "stages", "--json").out)} == {"built in", "charrun-owl 1.0"}


@pytest.mark.parametrize("command", ["stages", "characters"])
def test_an_unknown_name_is_a_suggestion(tmp_path: Path, command: str) -> None:
    outcome = at(tmp_path, command, {"stages": "evalute", "characters": "gardner"}[command])
    assert outcome.code == 2
    assert f"did you mean '{ {'stages': 'evaluate', 'characters': 'gardener'}[command] }'?" in outcome.err


# -- charrun characters -------------------------------------------------------------------------------------------


def test_characters_are_listed_and_one_shows_its_traits(tmp_path: Path) -> None:
    outcome = at(tmp_path, "characters")
    assert outcome.code == 0 and fits(outcome.out)
    assert "pirate       A loud, daring old sea dog who treats everyone as crew.\n" in outcome.out
    outcome = at(tmp_path, "characters", "grump")
    assert outcome.code == 0 and fits(outcome.out)
    assert "speaks as      Odo\n" in outcome.out and "7, with 35 questions" in outcome.out
    facts = json.loads(at(tmp_path, "characters", "grump", "--json").out)
    assert len(facts["traits"]) == 7 and len(facts["traits"][0]["questions"]) == 5
    file = REPOSITORY / "specs/characters/grump.yaml"
    assert "registered by  a file" in at(tmp_path, "characters", str(file)).out


def test_a_plugins_character_that_is_unsound_is_told_with_its_place(site: Path) -> None:
    (site / "owl.yaml").write_text("id: owl\nnam: Owl\n")
    hook = "@hookimpl\ndef charrun_register_characters(): return {'owl': Path(__file__).parent / 'owl.yaml'}\n"
    distribution(site, "charrun-owl", HEAD + hook, entry="owl")
    outcome = at(site, "characters")
    assert outcome.code == 3 and "pirate" in outcome.out
    assert f"{site}/owl.yaml:2:1 SPEC013 unknown key 'nam'" in outcome.err


# -- words and tables ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "a whole number, at least 1"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "a number, more than 0, at most 1"),
        ({"type": ["string", "null"]}, "text or nothing"),
        ({"enum": ["a", 3, None]}, "one of a, 3, null"),
        ({"const": "x"}, "x"),
        ({"type": "array", "items": {"type": "string"}}, "a list of text"),
        ({"anyOf": [{"type": "boolean"}, {"enum": ["auto"]}]}, "true or false, or one of auto"),
        ({"type": "string", "pattern": "^a+$"}, "text, matching ^a+$"),
        ({}, "anything"),
    ],
)
def test_an_options_schema_is_told_in_words(schema: dict[str, object], words: str) -> None:
    assert value_words(schema) == words


def test_a_default_is_told_as_a_spec_would_write_it() -> None:
    assert [default_words({"default": value}) for value in ("auto", 1e-12, [1, "x"], False)] == [
        "auto", "1e-12", '[1, "x"]', "false",
    ]  # fmt: skip
    assert (default_words({}), default_words({}, required=True)) == ("-", "required")


def test_a_table_wraps_its_widest_column_first_and_takes_no_control_characters() -> None:
    rows = [("name", "what"), ("a", "one two three four five six"), ("\x1b[31mb\x07", "seven\neight")]
    assert wrapped_table(rows, (0, 1), 20) == [
        "name  what",
        "a     one two three",
        "      four five six",
        "b     seven",
        "      eight",
    ]
