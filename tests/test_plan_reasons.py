"""`charrun plan` says what changed where the fingerprint is another, what follows from it, and nothing else."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import charrun
from planned_project import Project, made
from rich.console import Console

from charrun.pipeline.choice import Choice
from charrun.pipeline.plan import PlannedCell, PlannedStage, plan
from charrun.pipeline.reasons import Now, differences
from charrun.pipeline.run import plan_cells
from charrun.plugins.prompts import PromptsStage
from charrun.report.plan import print_plan
from charrun.store.files import read_json


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("finished")).folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_a_finished_run_has_nothing_to_do_and_a_first_one_was_never_made(project: Project, tmp_path: Path) -> None:
    assert {stage.reason for stage in project.plan().values()} == {"in the store"}
    project.runs = tmp_path / "none"
    assert project.reasons() == {
        "prompts": "never made",
        "first": "after prompts",
        "second": "after first",
        "third": "after prompts",
    }


@pytest.mark.parametrize(
    ("sets", "reasons"),
    [
        (["stages.first.with.factor=2"], {"first": "option factor: 1 -> 2", "second": "after first"}),
        (["stages.first.with.form.digits=3"], {"first": "option form.digits: 2 -> 3", "second": "after first"}),
        (["stages.first.with.factor=1.0"], {}),
        (["stages.first.with.workers=8"], {}),
        (
            ["models.0.teacher=charrun/demo-student"],
            {"second": "the teacher is another model: charrun/demo-teacher -> charrun/demo-student"},
        ),
        (
            ["models.0.teacher={name: charrun/demo-teacher, chat: {enable_thinking: false}}"],
            {"second": 'the teacher\'s chat options: {} -> {"enable_thinking": false}'},
        ),
        (
            ["seed=8"],
            {
                "prompts": "seed 7 -> 8",
                "first": "seed 7 -> 8; after prompts",
                "second": "seed 7 -> 8; after first",
                "third": "seed 7 -> 8; after prompts",
            },
        ),
        (["name=other", "budget.usd=3"], {}),
    ],
)
def test_exactly_what_depends_on_a_change_is_to_do_and_the_change_is_named(
    sets: list[str], reasons: dict[str, str], project: Project
) -> None:
    assert project.reasons(*sets) == reasons
    if reasons:
        project.run(*sets)
        assert project.reasons(*sets) == {}


@pytest.mark.parametrize(
    ("name", "old", "new", "reasons"),
    [
        ("who.yaml", "I am brief.", "I am long.", {"second": "who's traits changed"}),
        ("who.yaml", "name: Who", "name: Someone", {"second": "the character's name: Who -> Someone"}),
        ("who.yaml", "somebody", "somebody else", {}),
        (
            "who.yaml",
            "Why?",
            "When?",
            {
                "prompts": "who's questions changed",
                "first": "after prompts",
                "second": "after first",
                "third": "after prompts",
            },
        ),
        ("note.j2", "A note.", "Another note.", {"second": "template note changed"}),
        (
            "stages.py",
            "stands apart",
            "stands further apart",
            {
                "first": "the code of stages.py changed",
                "second": "the code of stages.py changed; after first",
                "third": "the code of stages.py changed",
            },
        ),
    ],
)
def test_a_changed_file_concerns_the_stages_that_use_what_changed(
    name: str, old: str, new: str, reasons: dict[str, str], project: Project
) -> None:
    project.edit(name, old, new)
    assert project.reasons() == reasons
    project.run()
    assert project.reasons() == {}


def test_several_differences_are_told_together_and_as_a_list(project: Project) -> None:
    project.edit("who.yaml", "I am brief.", "I am long.")
    project.edit("who.yaml", "name: Who", "name: Someone")
    second = project.plan("stages.first.with.factor=2")["second"]
    assert second.changes == ("the character's name: Who -> Someone", "who's traits changed")
    assert second.reason == "; ".join([*second.changes, "after first"])


def test_rows_that_changed_are_named_once_they_are_there(project: Project) -> None:
    project.run("stages.first.with.factor=3", last="first")
    assert project.reasons("stages.first.with.factor=3") == {"second": "other count than before"}


def test_rows_that_came_out_the_same_change_nothing_after_them(project: Project) -> None:
    project.run("stages.first.with.form.digits=3", last="first")
    assert project.reasons("stages.first.with.form.digits=3") == {}


def test_an_update_of_charrun_or_of_a_plugin_is_named_where_it_makes_something_else(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptsStage, "cache_version", PromptsStage.cache_version + 1)
    now = PromptsStage.cache_version
    assert project.reasons() == {
        "prompts": f"cache_version {now - 1} -> {now} (charrun was updated)",
        "first": "after prompts",
        "second": "after first",
        "third": "after prompts",
    }


def test_work_of_another_cell_or_spec_is_compared_with_too(project: Project) -> None:
    project.edit("who.yaml", "id: who", "id: someone")
    project.edit("who.yaml", "name: Who", "name: Someone")
    project.edit("who.yaml", "I am brief.", "I am long.")
    assert project.reasons() == {"second": "another character: Who -> Someone"}
    assert project.reasons("name=other") == {"second": "another character: Who -> Someone"}


@pytest.mark.parametrize(
    ("before", "now", "about", "told"),
    [
        ({"cache_version": 1}, {"cache_version": 2}, Now(updated="mine"), "cache_version 1 -> 2 (mine was updated)"),
        ({"cache_version": 1}, {"cache_version": 2}, Now(), "cache_version 1 -> 2"),
        ({"options": {}}, {"options": {"new": [1, "a"]}}, Now(), 'option new is new: [1, "a"]'),
        ({"options": {"old": 1}}, {"options": {}}, Now(), "option old is gone"),
        ({"options": {"text": "a" * 90}}, {"options": {"text": "b"}}, Now(), f"option text: {'a' * 47}… -> b"),
        ({"options": {"text": "a" * 60 + "b"}}, {"options": {"text": "a" * 60 + "c"}}, Now(),
         "option text: …aaaaaaaaab -> …aaaaaaaaac"),
        ({"models": {"student": {"model": "local:a@1"}}}, {"models": {"student": {"model": "local:a@2"}}}, Now(),
         "the files of the student a changed"),
        ({"models": {"student": {"model": "tinker:A/a"}}}, {"models": {"student": {"model": "local:b"}}}, Now(),
         "the student is another model: tinker:A/a -> local:b"),
        ({"models": {}}, {"models": {"judge": {"model": "local:b"}}}, Now(), "the judge is new"),
        ({"templates": {"old": "a"}}, {"templates": {}}, Now(), "template old is gone"),
        ({"character": {"traits": ["a"]}}, {"character": {"traits": ["b"]}}, Now(), "another character"),
        ({"further": "a"}, {"further": "b"}, Now(), "what else it reads changed, such as a file"),
        ({"inputs": {"checkpoint 1": "a", "checkpoint 2": "b", "pairs": "c"}},
         {"inputs": {"checkpoint 1": "d", "checkpoint 2": "e", "pairs": "f"}}, Now(),
         "other checkpoint and pairs than before"),
        ({"fingerprint_version": 1, "seed": 1}, {"fingerprint_version": 2, "seed": 2}, Now(),
         "charrun was updated, and makes fingerprints in another way"),
    ],
)  # fmt: skip
def test_each_difference_is_told_in_words(before: Any, now: Any, about: Now, told: str) -> None:
    assert list(differences(before, now, about)) == [told]


# -- how it is told -------------------------------------------------------------------------------------------------


def test_json_and_lines_have_the_whole_reason_and_the_table_a_part_of_it(project: Project) -> None:
    changed = ("--set", "seed=8", "--set", "stages.first.with.factor=2")
    command = ("plan", project.spec, "--runs-dir", project.runs, "--trust", *changed)
    stages = json.loads(charrun(*command, "--json").out)["cells"][0]["stages"]
    assert stages[1] == {
        "id": "first",
        "state": "to do",
        "reason": "option factor: 1 -> 2; seed 7 -> 8; after prompts",
        "rows": 0,
        "requests": 0,
        "changes": ["option factor: 1 -> 2", "seed 7 -> 8"],
    }
    assert f"  first: to do ({stages[1]['reason']})" in charrun(*command, "--plain").out.replace("\n    ", " ")
    long = "; ".join(f"option number-{n}: [bold]{n} -> {n + 1}[/bold]" for n in range(20))
    cell = PlannedCell("cell", (PlannedStage("first", "to do", f"\x1b[31m{long}"),))
    choice, _ = project.choice()
    table, lines = (printed(choice, cell, plain) for plain in (False, True))
    assert "option number-0: [bold]0 -> 1[/bold]; option" in " ".join(table.split())
    assert "…" in table and "number-19" not in table and long in lines and "\x1b" not in table + lines


def printed(choice: Choice, cell: PlannedCell, plain: bool) -> str:
    out = io.StringIO()
    print_plan(Console(file=out, width=100), choice, [cell], plain)
    return out.getvalue()


def test_a_plan_reads_each_description_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def reading(path: Path) -> dict[str, Any] | None:
        read.append(path)
        return read_json(path)

    monkeypatch.setattr("charrun.pipeline.history.read_json", reading)
    choice, registry = project.choice("seed=[8, 9, 10, 11]")
    planned = plan(plan_cells(choice, registry, project.runs))
    assert len(planned) == 4 and len(read) == len(set(read)) <= 4
    assert {stage.reason for cell in planned for stage in cell.stages if stage.id == "third"} == {
        f"seed 7 -> {seed}; after prompts" for seed in (8, 9, 10, 11)
    }
