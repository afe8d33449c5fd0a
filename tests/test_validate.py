"""`charrun validate`: every file as what it is, for people, programs and GitHub."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SPECS, charrun

from charrun.errors import Problem
from charrun.report.problems import annotation, summary
from charrun.spec.kinds import kind_of

SOUND = """\
version: 1
name: x
characters: [pirate]
models: [{teacher: org/teacher, student: org/student}]
scales: [mini]
stages:
  - prompts
  - teacher
  - student
  - pairs
  - {uses: dpo, with: {beta: 0.1}}
"""
WRONG = SOUND.replace("beta:", "betta:")


def test_every_shipped_file_is_valid_as_what_it_is() -> None:
    files = [*SPECS.glob("*.yaml"), *SPECS.glob("characters/*.yaml")]
    outcome = charrun("validate", "--trust", *files)
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines() == [f"{file} is valid" for file in files]
    assert outcome.err.splitlines()[-1].endswith(f"in {len(files)} files")


def test_all_files_are_checked_whatever_is_wrong_with_the_first(tmp_path: Path) -> None:
    for name, text in (("b.yaml", WRONG), ("c.yaml", "["), ("d.yaml", SOUND)):
        (tmp_path / name).write_text(text)
    outcome = charrun("validate", "a.yaml", "b.yaml", "c.yaml", "d.yaml", "b.yaml", cwd=tmp_path)
    assert (outcome.code, outcome.out) == (3, "d.yaml is valid\n")
    for words in ("a.yaml SPEC001", "b.yaml:11:24 SPEC012", "c.yaml:1:1 SPEC004"):
        assert outcome.err.count(words) == 1
    assert outcome.err.endswith("3 problems in 4 files\n")


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("characters/x.yaml", "id: x\n", "SPEC015"),
        ("x.yaml", "id: x\nname: X\ndescription: D\ntraitz: []\n", "SPEC013 unknown key 'traitz'"),
        ("scales/x.yaml", "{}\n", "SPEC015"),
        ("x.yaml", "name: tiny\npairs: 0\n", "SPEC016 expected at least 1, got 0"),
        ("x.yaml", "tiny: {pears: 1, turns: 2}\n", "SPEC013 unknown key 'pears'"),
        ("x.yaml", "Tiny: {pairs: 1, turns: 2}\n", "SPEC016 key 'Tiny' is not allowed"),
        ("x.yaml", "a: 1\n", "SPEC013 unknown key 'a'"),
    ],
)
def test_a_file_that_is_no_spec_is_checked_as_what_it_is(name: str, text: str, code: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    outcome = charrun("validate", name, cwd=tmp_path)
    assert outcome.code == 3
    assert code in outcome.err
    assert ("missing key 'stages'" in outcome.err) == (text == "a: 1\n")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"version": 1, "stages": []}, "spec"),
        ({"extends": "x.yaml", "description": "d"}, "spec"),
        ({"traits": []}, "character"),
        ({"pairs": 1}, "scale"),
        ({"mini": {"pairs": 1}}, "scales"),
        ({}, "spec"),
        ([], "spec"),
    ],
)
def test_what_a_file_is_follows_from_its_keys(data: object, kind: str) -> None:
    assert kind_of(data) == kind


def test_json_holds_every_field_of_every_problem(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(WRONG)
    (tmp_path / "y.yaml").write_text(SOUND)
    outcome = charrun("validate", "--format", "json", "x.yaml", "y.yaml", cwd=tmp_path)
    assert outcome.code == 3
    document = json.loads(outcome.out)
    assert document["specs"] == [{"file": "x.yaml", "valid": False}, {"file": "y.yaml", "valid": True}]
    (error,) = document["problems"]
    assert error == {
        "code": "SPEC012",
        "message": "unknown option 'betta' for stage 'dpo'",
        "file": "x.yaml",
        "line": 11,
        "column": 24,
        "hint": "did you mean 'beta'?",
        "source": "  - {uses: dpo, with: {betta: 0.1}}",
        "width": 5,
        "severity": "error",
    }
    assert error.keys() == {field.name for field in fields(Problem)}
    assert outcome.err == "1 problem in 2 files\n"


def test_warnings_fail_only_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SOUND + "vars: {unused: 1}\n")
    lenient = charrun("validate", "x.yaml", cwd=tmp_path)
    assert (lenient.code, lenient.out) == (0, "x.yaml is valid\n")
    assert "x.yaml:" in lenient.err and "warning SPEC043" in lenient.err
    assert lenient.err.endswith("1 warning in 1 file\n")
    strict = charrun("validate", "--strict", "x.yaml", cwd=tmp_path)
    assert (strict.code, strict.out) == (3, "")
    assert "SPEC043" in strict.err and "warning" not in strict.err


def test_a_stage_file_that_is_not_trusted_is_told_beside_the_rest(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("[")
    alone = charrun("validate", SPECS / "custom-stage.yaml")
    assert alone.code == 4 and "--trust" in alone.err
    outcome = charrun("validate", SPECS / "custom-stage.yaml", "x.yaml", cwd=tmp_path)
    assert outcome.code == 3
    assert "SPEC064" in outcome.err and "x.yaml:1:1 SPEC004" in outcome.err


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (
            Problem("SPEC012", "unknown option 'betta'", "specs/x.yaml", 16, 12, "did you mean 'beta'?", "", 5),
            "::error file=specs/x.yaml,line=16,col=12,endColumn=17,title=SPEC012::unknown option 'betta'%0A"
            "did you mean 'beta'?",
        ),
        (
            Problem("SPEC001", "100%: no\r\nsuch, file", "a,b:c%.yaml"),
            "::error file=a%2Cb%3Ac%25.yaml,title=SPEC001::100%25: no%0D%0Asuch, file",
        ),
        (
            Problem("SPEC043", "m", "x.yaml", 1, 2, severity="warning"),
            "::warning file=x.yaml,line=1,col=2,endColumn=3,title=SPEC043::m",
        ),
    ],
)
def test_an_annotation_is_one_line_with_everything_escaped(problem: Problem, expected: str) -> None:
    assert annotation(problem) == expected


def test_github_gets_one_annotation_a_problem(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(WRONG)
    outcome = charrun("validate", "--format", "github", "x.yaml", cwd=tmp_path)
    assert outcome.code == 3
    (line,) = outcome.out.splitlines()
    assert line.startswith("::error file=x.yaml,line=") and "%0Adid you mean 'beta'?" in line


def test_the_summary_counts() -> None:
    problem, warning = Problem("A", "m", "f"), Problem("A", "m", "f", severity="warning")
    assert summary([], 1) == "no problems in 1 file"
    assert summary([problem, problem], 2) == "2 problems in 2 files"
    assert summary([problem, warning], 1000) == "1 problem and 1 warning in 1,000 files"


def test_no_files_are_a_wrong_use() -> None:
    outcome = charrun("validate")
    assert outcome.code == 2 and "SPECS" in outcome.err


@pytest.mark.parametrize(
    "args",
    [
        ["validate", "--format", "json", os.fspath(SPECS / "pirate-mini-current.yaml")],
        ["schema", "--no-plugins"],
    ],
)
def test_no_heavy_module_is_imported(args: list[str]) -> None:
    code = (
        "import sys\nfrom charrun.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        "heavy = {'torch', 'transformers', 'tinker', 'numpy', 'rich'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def hooks() -> list[dict[str, object]]:
    found: list[dict[str, object]] = yaml.safe_load((REPOSITORY / ".pre-commit-hooks.yaml").read_text())
    return found


@pytest.mark.parametrize(
    ("path", "taken"),
    [("specs/x.yaml", True), ("a/specs/characters/x.yaml", True), ("x.yaml", False), ("myspecs/x.yaml", False)],
)
def test_the_pre_commit_hook_takes_the_yaml_files_under_specs(path: str, taken: bool) -> None:
    (hook,) = hooks()
    assert (hook["entry"], hook["language"], hook["types"]) == ("charrun validate", "python", ["yaml"])
    assert bool(re.search(str(hook["files"]), path)) == taken


def test_the_snippets_of_the_page_about_editors_are_sound() -> None:
    page = (REPOSITORY / "docs" / "editor.md").read_text(encoding="utf-8")
    blocks = [
        (language, textwrap.dedent(text)) for language, text in re.findall(r"```(\w+)\n(.*?)```", page, re.DOTALL)
    ]
    for language, text in blocks:
        if language == "json":
            assert json.loads(text)
    (hook,) = hooks()
    configurations = [yaml.safe_load(text) for language, text in blocks if language == "yaml"]
    ids = [one["hooks"][0] for block in configurations if block and "repos" in block for one in block["repos"]]
    assert [one["id"] for one in ids] == [hook["id"], hook["id"]]
    assert {key: ids[1][key] for key in ("name", "entry", "types", "files")} == {
        key: hook[key] for key in ("name", "entry", "types", "files")
    }
    (workflow,) = (block for block in configurations if block and "jobs" in block)
    assert "charrun validate" in workflow["jobs"]["validate"]["steps"][-1]["run"]


def test_the_page_about_editors_names_options_that_exist() -> None:
    page = (REPOSITORY / "docs" / "editor.md").read_text(encoding="utf-8")
    for command in ("schema", "validate"):
        help_text = charrun(command, "--help").out
        for line in re.findall(rf"charrun {command}[^`\n|]*", page):
            for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line):
                assert option in help_text, f"{line}: {option}"


def test_what_set_would_change_is_checked_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(SOUND)
    outcome = charrun("validate", "x.yaml", "--set", "seed=3", "--set", "stages.dpo.with.betta=0.2", cwd=tmp_path)
    assert outcome.code == 3
    assert "--set #2:1:17 SPEC012 unknown option 'betta' for stage 'dpo'" in outcome.err
