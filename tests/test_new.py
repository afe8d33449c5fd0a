"""`charrun new` makes files that are valid as they are, and a package whose tests pass as they are."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from importlib.resources import files
from pathlib import Path

import pytest
from conftest import REPOSITORY, SPECS, Outcome, charrun

from charrun.commands.new import _PLUGIN_FILES, STUDENT, TEACHER
from charrun.commands.scaffold import plugin_names, scalar, schema_beside
from charrun.errors import UsageProblem
from charrun.pipeline.context import StageContext
from charrun.spec import load_character, load_yaml

TUTORIAL = REPOSITORY / "docs" / "writing-a-stage.md"
DEMO = ("--teacher", "charrun/demo-teacher", "--student", "charrun/demo-student")


def made(*args: str | Path, cwd: Path) -> Outcome:
    """`charrun new`, which must succeed and fit a terminal of 80 columns."""
    outcome = charrun("new", *args, cwd=cwd)
    assert outcome.code == 0, outcome.text
    assert all(len(line) <= 80 for line in outcome.out.splitlines()), outcome.out
    return outcome


def test_a_new_spec_is_valid_and_names_the_next_commands(tmp_path: Path) -> None:
    outcome = made("spec", "mine", cwd=tmp_path)
    assert outcome.out == (
        "made mine.yaml\n"
        "  charrun validate mine.yaml  every problem at once\n"
        "  charrun plan mine.yaml      what a run would do\n"
        "  charrun mine.yaml           run it, or continue its run\n"
    )
    text = (tmp_path / "mine.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=.charrun/spec.schema.json\n# charrun mine.yaml\n")
    assert (tmp_path / ".charrun" / "spec.schema.json").exists()
    validated = charrun("validate", "mine.yaml", cwd=tmp_path)
    assert validated.code == 0 and "warning" not in validated.text, validated.text


def test_a_new_spec_is_the_shipped_one_under_another_name(tmp_path: Path) -> None:
    made("spec", "pirate-mini-current", cwd=tmp_path)
    written, shipped = load_yaml(tmp_path / "pirate-mini-current.yaml").data, load_yaml(SPECS / "pirate-mini.yaml").data
    for key in ("version", "seed", "engine", "characters", "scales", "stages"):
        assert written[key] == shipped[key]
    assert written["stand_ins"]["with"] == shipped["stand_ins"]["with"]
    assert set(written) == set(shipped)
    current = (SPECS / "pirate-mini-current.yaml").read_text()
    assert TEACHER in current and STUDENT in current


def test_a_new_spec_takes_models_scale_and_a_character_of_ones_own(tmp_path: Path) -> None:
    made("character", "watchmaker", cwd=tmp_path)
    place = ("-o", "specs/clock.yaml")
    made("spec", "clock", "--character", "watchmaker.yaml", "--scale", "smoke", *DEMO, *place, cwd=tmp_path)
    spec = load_yaml(tmp_path / "specs" / "clock.yaml").data
    assert spec["characters"] == ["../watchmaker.yaml"] and spec["scales"] == ["smoke"]
    assert spec["models"] == [{"teacher": "charrun/demo-teacher", "student": "charrun/demo-student"}]
    assert spec["engine"] == "local" and "stand_ins" not in spec
    assert charrun("validate", "specs/clock.yaml", cwd=tmp_path).code == 0


def test_within_this_repository_the_editor_reads_the_committed_schema() -> None:
    assert schema_beside(SPECS / "x.yaml", "spec") == "../schemas/spec.schema.json"
    assert schema_beside(SPECS / "characters" / "x.yaml", "character") == "../../schemas/character.schema.json"


def test_a_new_character_is_valid_and_says_how_to_use_it(tmp_path: Path) -> None:
    outcome = made("character", "clock-maker", cwd=tmp_path)
    assert outcome.out == (
        "made clock-maker.yaml\n"
        "  charrun new spec clock-maker-mini --character ./clock-maker.yaml\n"
        "      a spec that uses it\n"
        "  characters: [./clock-maker.yaml]\n"
        "      in a spec beside it\n"
    )
    character = load_character(tmp_path / "clock-maker.yaml")
    assert (character.id, character.name) == ("clock-maker", "Clock Maker")
    assert all(trait.trait.startswith("I ") and len(trait.questions) == 5 for trait in character.traits)


def test_a_new_plugin_is_in_the_projects_style_and_uses_every_template(tmp_path: Path) -> None:
    outcome = made("plugin", "charrun-rhyme.scheme", cwd=tmp_path)
    assert "pip install -e '.[dev]'" in outcome.out and "charrun specs/rhyme-scheme.yaml" in outcome.out
    package = tmp_path / "charrun-rhyme.scheme"
    assert (package / "charrun_rhyme_scheme" / "stage.py").exists()
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "."], ["format", "--check", "."]):
        done = subprocess.run([*ruff, *command], cwd=package, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    shipped = {path.name.removesuffix(".j2") for path in Path(str(files("charrun"))).glob("templates/plugin/*")}
    assert shipped == set(_PLUGIN_FILES.values()) - {""}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("limericks", ("limericks", "limericks", "Limericks")),
        ("charrun-limericks", ("charrun_limericks", "limericks", "Limericks")),
        ("My.Rhyme_Count", ("my_rhyme_count", "my-rhyme-count", "MyRhymeCount")),
    ],
)
def test_a_plugins_names_follow_from_the_packages(name: str, expected: tuple[str, str, str]) -> None:
    names = plugin_names(name)
    assert (names["module"], names["stage"], names["cls"]) == expected


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("dpo", "'dpo' gives a stage 'dpo', which is built in", "try charrun-my-dpo"),
        ("charrun-sft", "'charrun-sft' gives a stage 'sft', which is built in", "try charrun-my-sft"),
        ("3d", "'3d' gives a module '3d', which Python cannot import", "try charrun-3d"),
        ("class", "'class' gives a module 'class', which Python cannot import", "try charrun-class"),
        ("json", "'json' is the name of a module that exists", "try charrun-my-json"),
        ("charrun", "'charrun' is the name of a module that exists", "try charrun-my-charrun"),
        ("-x", "'-x' cannot name a package", "letters, digits"),
        ("../up", "'../up' cannot name a package", "letters, digits"),
        ("x" * 80, f"'{'x' * 80}' gives a stage", "try a shorter one"),
    ],
)
def test_a_name_that_would_not_do_is_refused_with_a_better_one(name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        plugin_names(name)
    assert caught.value.message.startswith(message) and caught.value.hint.startswith(hint)


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    for name in ("mine.yaml", "full/note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    for args, message in (
        (("spec", "mine"), "error: mine.yaml is there already"),
        (("character", "mine"), "error: mine.yaml is there already"),
        (("plugin", "full"), "error: full is there already"),
        (("plugin", "mine.yaml", "--path", "."), "error: mine.yaml is there already"),
    ):
        outcome = charrun("new", *args, cwd=tmp_path)
        assert (outcome.code, outcome.err.splitlines()[0]) == (2, message)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml", "full"}
    assert (tmp_path / "mine.yaml").read_text() == (tmp_path / "full" / "note.txt").read_text() == "precious"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (
            ("spec", "My Spec"),
            "error: 'My Spec' cannot name a spec: a name is at most 64 lower-case letters, digits and hyphens\n"
            "  try my-spec\n",
        ),
        (
            ("spec", "Ünï cödé.yaml"),
            "error: 'Ünï cödé.yaml' cannot name a spec: a name is at most 64 lower-case letters, digits and hyphens\n"
            "  try uni-code\n",
        ),
        (("spec", "x", "--scale", "minni"), "error: no scale is called 'minni'\n  did you mean 'mini'?\n"),
        (("spec", "x", "--character", "pirat"), "error: no character is called 'pirat'\n  did you mean 'pirate'?\n"),
        (("spec", "x", "--student", "./nowhere"), "error: there is no ./nowhere\n"),
        (("character", "pirate"), "error: there is a character 'pirate' already\n  try my-pirate\n"),
    ],
)
def test_what_cannot_be_made_is_told_and_leaves_nothing(args: tuple[str, ...], error: str, tmp_path: Path) -> None:
    outcome = charrun("new", *args, cwd=tmp_path)
    assert (outcome.code, outcome.err) == (2, error)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_model_is_told_and_leaves_no_spec(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    outcome = charrun("new", "spec", "x", "--student", "./empty", cwd=tmp_path)
    assert outcome.code == 3 and "it holds no config.json" in outcome.err
    assert not (tmp_path / "x.yaml").exists()


@pytest.mark.parametrize("name", ["true", "null", "1e3", "007", "a-b"])
def test_a_name_that_yaml_would_read_as_something_else_is_quoted(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"name: {scalar(name)}\n")
    assert load_yaml(tmp_path / "x.yaml").data == {"name": name}


def fresh_environment(folder: Path) -> dict[str, str]:
    """An environment of its own in which charrun and what tests need are installed, and nothing else is yet.

    Installing charrun anew would mean gigabytes of torch. So the new environment sees the packages of this one,
    editable ones too, and gets its own commands; pip is kept from the network: what is here must be enough.
    """
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    # Python 3.11 puts an old setuptools into a new environment, which would hide the one that builds the package.
    subprocess.run([python, "-m", "pip", "uninstall", "-q", "-y", "setuptools"], check=True, capture_output=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    for name in ("charrun", "pytest"):
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} -P -m {name} "$@"\n')
        script.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip reads this as --no-build-isolation
    }


def tutorial_as_script() -> str:
    """The tutorial's commands in order; a file that it shows is written where it is shown."""
    fence = re.compile(r"(?:^`(?P<path>[^`\n]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
    parts = ["set -eu"]
    for found in fence.finditer(TUTORIAL.read_text()):
        if found["path"]:
            parts.append(f"cat > {found['path']} <<'END-OF-FILE'\n{found['text']}END-OF-FILE")
        elif found["kind"] == "sh":
            parts.append(found["text"])
    return "\n".join(parts)


def test_the_tutorial_lists_everything_that_the_context_offers() -> None:
    offered = {name for base in StageContext.__mro__[:-1] for name in vars(base) if not name.startswith("_")}
    table = TUTORIAL.read_text().partition("## 5.")[2]
    assert offered - set(re.findall(r"`(\w+)", table)) == set()


@pytest.mark.slow
def test_the_tutorial_works_in_a_fresh_environment_command_by_command(tmp_path: Path) -> None:
    """That the tests of a new plugin pass as generated is its first commands' part."""
    work = tmp_path / "work"
    work.mkdir()
    done = subprocess.run(
        ["bash", "-c", tutorial_as_script()],
        cwd=work,
        env=fresh_environment(tmp_path / "environment"),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"\b6 passed in", done.stdout)) == 2
    rows = list((work / "charrun-limericks" / "runs" / "store").glob("limericks-*/limericks-*.jsonl"))
    assert len(rows) == 2, "one file for each character"


@pytest.mark.slow
def test_a_new_spec_with_a_new_character_runs_at_once(tmp_path: Path) -> None:
    made("character", "watchmaker", cwd=tmp_path)
    made("spec", "clock", "--character", "./watchmaker.yaml", "--scale", "smoke", cwd=tmp_path)
    outcome = charrun("clock.yaml", cwd=tmp_path)
    assert outcome.code == 0, outcome.text
    assert "charrun/demo-student" in outcome.out and "Final checkpoint" in outcome.out
