"""`charrun plan` says why: what changed, what follows from it, and nothing else."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import charrun
from rich.console import Console

from charrun.commands.loading import load
from charrun.errors import StageFailed
from charrun.pipeline.choice import Choice, choose
from charrun.pipeline.plan import LOST, PlannedCell, PlannedStage, plan
from charrun.pipeline.reasons import Now, differences
from charrun.pipeline.run import plan_cells, run_choice
from charrun.pipeline.selection import Selection
from charrun.plugins.engine_local import LocalEngine
from charrun.plugins.prompts import PromptsStage
from charrun.report.plan import print_plan
from charrun.service.engine import EngineRequest
from charrun.store.files import read_json
from charrun.store.tickets import Ticket
from charrun.store.training import Saved, TrainingLog

SPEC = """
version: 1
name: small
seed: 7
engine: local
plugins: [./stages.py]
characters: [./who.yaml]
models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]
scales: [{name: tiny, pairs: 4, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}]
stages: [prompts, first, second, third]
"""
WHO = """
id: who
name: Who
description: somebody
traits: [{trait: I am brief., questions: [Why?, How?]}]
"""
STAGES = """
from pathlib import Path

from charrun import Stage, StageFailed, hookimpl

class First(Stage):
    name = "first"
    summary = "counts prompts"
    consumes = ("prompts",)
    produces = ("count",)
    character_fields = ()
    options_schema = {
        "type": "object",
        "properties": {
            "factor": {"type": "number", "default": 1, "description": "What it multiplies with."},
            "form": {
                "type": "object",
                "default": {},
                "description": "How it is told.",
                "properties": {"digits": {"type": "integer", "default": 2}},
                "additionalProperties": False,
            },
            "workers": {"type": "integer", "default": 1, "description": "At once.", "x-charrun-identity": False},
        },
        "additionalProperties": False,
    }

    async def run(self, ctx):
        if not ctx.options["workers"]:
            raise StageFailed("nobody works")
        ctx.write("side.json", {"n": 1})
        ctx.publish("count", [{"n": len(await ctx.rows("prompts")) * ctx.options["factor"]}])

class Second(Stage):
    name = "second"
    summary = "names them"
    consumes = ("count",)
    produces = ("named",)
    roles = ("teacher",)
    templates = {"note": Path(__file__).with_name("note.j2")}

    async def run(self, ctx):
        ctx.publish("named", [{"n": row["n"], "who": ctx.character.name} for row in await ctx.rows("count")])

class Third(Stage):
    name = "third"
    summary = "stands apart"
    consumes = ("prompts",)
    produces = ("apart",)
    character_fields = ()
    identity = "rows"

    async def run(self, ctx):
        ctx.publish("apart", [{"n": 0} for row in await ctx.rows("prompts")])

class Trained(Stage):
    name = "trained"
    summary = "trains nothing"
    optional = ("checkpoint",)
    produces = ("checkpoint",)
    character_fields = ()

    async def run(self, ctx):
        names = {name: f"tinker://{ctx.folder.name}/weights/{name}" for name in ("state", "sampler")}
        ctx.publish("checkpoint", [{**names, "fingerprint": ctx.folder.name}])

class Judged(Stage):
    name = "judged"
    summary = "judges nothing"
    consumes = ("checkpoint",)
    produces = ("judgement",)
    character_fields = ()

    async def run(self, ctx):
        ctx.publish("judgement", [{"good": True}])

@hookimpl
def charrun_register_stages():
    return [First, Second, Third, Trained, Judged]
"""
FILES = {"spec.yaml": SPEC, "who.yaml": WHO, "stages.py": STAGES, "note.j2": "A note.\n"}
TICKETS_TELL = pytest.mark.skipif(
    "made" not in {field.name for field in fields(Ticket)}, reason="tickets do not say what they were made for"
)


class Forgetting(LocalEngine):
    """An engine that lost the checkpoints whose path holds a text."""

    def __init__(self, lost: str) -> None:
        self._lost = lost

    def holds(self, paths: Sequence[str], request: EngineRequest) -> Mapping[str, bool]:
        return {path: self._lost not in path for path in paths}


class Project:
    """A spec in a folder, run in this process; its stages need no engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.spec = folder / "spec.yaml"
        self.owner = ""

    def choice(self, *sets: str) -> tuple[Choice, Any]:
        loaded = load(str(self.spec), sets, trust=True)
        registry = loaded.registry
        if self.owner:  # as if an installed plugin had brought the stages along
            origins = {key: self.owner if key[1] == "first" else told for key, told in registry.origins.items()}
            registry = replace(registry, origins=origins, code={})
        return choose(loaded.spec, registry), registry

    def run(self, *sets: str, **selected: Any) -> None:
        choice, registry = self.choice(*sets)
        run_choice(choice, registry, self.runs, selection=Selection(**selected))

    def plan(self, *sets: str, lost: str = "", **selected: Any) -> dict[str, PlannedStage]:
        choice, registry = self.choice(*sets)
        if lost:
            choice = replace(choice, engine=Forgetting(lost))
        (cell,) = plan(plan_cells(choice, registry, self.runs, Selection(**selected)))
        return {stage.id: stage for stage in cell.stages}

    def reasons(self, *sets: str, **selected: Any) -> dict[str, str]:
        """The reason of each stage that is to do."""
        return {id: each.reason for id, each in self.plan(*sets, **selected).items() if each.state == "to do"}

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def store(self, pattern: str) -> Path:
        (path,) = (self.runs / "store").glob(pattern)
        return path


def made(folder: Path, spec: str = SPEC) -> Project:
    for name, text in {**FILES, "spec.yaml": spec}.items():
        (folder / name).write_text(text)
    project = Project(folder)
    project.run()
    return project


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("finished")).folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "copy")
    return Project(tmp_path / "copy")


# -- another fingerprint --------------------------------------------------------------------------------------------


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


# -- the same fingerprint -------------------------------------------------------------------------------------------


def test_damage_is_named_and_mended(project: Project) -> None:
    project.store("first-*/side.json").write_text("{}")
    assert project.reasons() == {"first": "its outputs are damaged: side.json", "second": "after first"}
    (rows,) = project.store("first-*").glob("count-*.jsonl")
    rows.unlink()
    assert project.reasons()["first"] == f"its outputs are damaged: {rows.name}, side.json"
    project.run()
    assert project.reasons() == {}
    ticket = project.store("third-*/done/*.json")
    ticket.write_text(ticket.read_text().replace('"seconds"', '"secondS"'))
    assert project.reasons() == {"third": f"its outputs are damaged: done/{ticket.name}"}


def test_a_forced_stage_and_what_follows_it_are_to_do(project: Project) -> None:
    assert project.reasons(forced=("first",)) == {"first": "forced", "second": "after first"}


@TICKETS_TELL
def test_another_scale_is_told_with_both_numbers_and_what_is_there(project: Project) -> None:
    (project.store("third-*") / "items.jsonl").write_text("one\ntwo\n")
    assert project.reasons("scales.0.pairs=6", "scales.0.samples_per_prompt=2") == {
        "prompts": "scale: pairs 4 -> 6, samples per prompt 1 -> 2",
        "first": "after prompts",
        "second": "after first",
        "third": "after prompts",
    }
    project.run("scales.0.pairs=6", last="prompts")
    planned = project.plan("scales.0.pairs=6")
    assert planned["third"].reason == "scale: pairs 4 -> 6, 2 responses are in the store"
    assert planned["third"].changes == ("scale: pairs 4 -> 6",)
    assert planned["first"].reason == "other prompts than before"


@TICKETS_TELL
def test_other_rows_are_named_where_each_is_keyed_by_its_own_request(project: Project) -> None:
    more = project.folder / "more.jsonl"
    more.write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(9)))
    sources = f"stages.prompts.with.sources=[{more}]"
    assert project.reasons(sources)["prompts"].startswith('option sources: ["constitution", "general"] -> ["/')
    project.run(sources, last="prompts")
    other = "other prompts than before"
    assert project.reasons(sources) == {"first": other, "second": "after first", "third": other}
    project.run(sources)
    more.write_text(more.read_text().replace("What", "Where"))
    assert project.reasons(sources)["prompts"] == "what else it reads changed, such as a file"


def test_an_interrupted_stage_tells_what_is_kept_of_it(project: Project) -> None:
    ticket = project.store("third-*/done/*.json")
    ticket.unlink()
    assert project.reasons() == {"third": "interrupted"}
    folder = ticket.parent.parent
    (folder / "items.jsonl").write_text("one\n")
    assert project.reasons() == {"third": "interrupted: 1 response is in the store"}
    shared = project.runs / "store/answers-0123456789abcdef"
    shared.mkdir()
    (shared / "scores.jsonl").write_text(f'{{"work":"{folder.name}/{ticket.stem}"}}\n{{"work":"other/one"}}\n')
    assert project.reasons() == {"third": "interrupted: 2 responses are in the store"}
    log = TrainingLog(folder)
    log.saved("adapter", Saved(12, "tinker://a/weights/b", time.time() + 60))
    log.close()
    assert project.reasons() == {"third": "interrupted: 2 responses are in the store, 12 optimiser steps are saved"}


def test_a_stage_that_failed_tells_its_error(project: Project) -> None:
    for folder in (project.runs / "store").glob("first-*"):
        shutil.rmtree(folder)
    with pytest.raises(StageFailed, match="nobody works"):
        project.run("stages.first.with.workers=0")
    (project.store("first-*") / "items.jsonl").write_text("one\ntwo\n")
    assert project.reasons("stages.first.with.workers=0") == {
        "first": "failed: nobody works; 2 responses are in the store",
        "second": "after first",
    }


@TICKETS_TELL
def test_what_another_version_made_stays_done_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("charrun.pipeline.identity.__version__", "0.0.9")
        for name, text in FILES.items():
            (tmp_path / name).write_text(text)
        project = Project(tmp_path)
        project.owner = "my-plugin 1.0"
        project.run()
        assert project.plan()["first"].reason == "in the store"
    project.owner = "my-plugin 1.1"
    planned = project.plan()
    assert {stage.state for stage in planned.values()} == {"done"}
    assert planned["prompts"].reason == "in the store, made by charrun 0.0.9"
    assert planned["first"].reason == "in the store, made by charrun 0.0.9 and my-plugin 1.0"


def test_a_lost_checkpoint_is_to_do_where_something_that_is_to_do_consumes_it(tmp_path: Path) -> None:
    stages = "[{uses: trained, id: one}, {uses: trained, id: two}, judged]"
    project = made(tmp_path, SPEC.replace("[prompts, first, second, third]", stages))
    one, two = (project.plan(), project.store("judged-*"))
    assert one.keys() == {"one", "two", "judged"} and two.is_dir()
    assert project.reasons(lost="weights") == {}  # nothing asks for them
    assert project.reasons(lost="weights", forced=("judged",)) == {"one": LOST, "two": LOST, "judged": "forced"}
    choice, registry = project.choice()
    (cell,) = plan_cells(choice, registry, project.runs)
    first = cell.stages[0]
    assert first.peek() is not None
    planned = project.plan(lost=first.folder.name, forced=("judged",))
    assert planned["one"].state == "done"
    assert planned["one"].reason == f"in the store; {LOST}, which judged may ask for"
    assert planned["two"].reason == "in the store"


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
