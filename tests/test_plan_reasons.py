"""`charrun plan` says why: what changed, what follows from it, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Outcome, charrun

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
from charrun import Stage, hookimpl

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
            "workers": {"type": "integer", "default": 1, "description": "At once.", "x-charrun-identity": False},
        },
        "additionalProperties": False,
    }

    async def run(self, ctx):
        ctx.write("side.json", {"n": 1})
        ctx.publish("count", [{"n": len(await ctx.rows("prompts")) * ctx.options["factor"]}])

class Second(Stage):
    name = "second"
    summary = "names them"
    consumes = ("count",)
    produces = ("named",)
    roles = ("teacher",)

    async def run(self, ctx):
        ctx.publish("named", [{"n": row["n"], "who": ctx.character.name} for row in await ctx.rows("count")])

class Third(Stage):
    name = "third"
    summary = "stands apart"
    consumes = ("prompts",)
    produces = ("apart",)
    character_fields = ()

    async def run(self, ctx):
        ctx.publish("apart", [{"n": 0} for row in await ctx.rows("prompts")])

@hookimpl
def charrun_register_stages():
    return [First, Second, Third]
"""


class Project:
    """A spec that was run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in (("spec.yaml", SPEC), ("who.yaml", WHO), ("stages.py", STAGES)):
            (folder / name).write_text(text)
        assert self.run().code == 0

    def run(self, *args: str) -> Outcome:
        return charrun(self.folder / "spec.yaml", "--runs-dir", self.folder / "runs", "--trust", *args)

    def reasons(self, *args: str) -> dict[str, str]:
        """The reason of each stage that is to do."""
        outcome = charrun(
            "plan", self.folder / "spec.yaml", "--runs-dir", self.folder / "runs", "--trust", "--json", *args
        )
        assert outcome.code == 0, outcome.text
        stages = json.loads(outcome.out)["cells"][0]["stages"]
        return {stage["id"]: stage["reason"] for stage in stages if stage["state"] == "to do"}

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def store(self, pattern: str) -> Path:
        (path,) = (self.folder / "runs/store").glob(pattern)
        return path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_finished_run_has_nothing_to_do_and_a_first_one_was_never_made(project: Project) -> None:
    assert project.reasons() == {}
    fresh = charrun("plan", project.folder / "spec.yaml", "--runs-dir", project.folder / "none", "--trust", "--plain")
    assert "prompts: to do (not made yet)" in fresh.out and "second: to do (after first)" in fresh.out


def test_a_changed_option_is_told_with_both_values_and_what_follows_from_it(project: Project) -> None:
    project.edit("spec.yaml", "first,", "{uses: first, with: {factor: 2}},")
    assert project.reasons() == {"first": "option factor: 1 -> 2", "second": "after first"}
    assert project.run().code == 0
    assert project.reasons() == {}
    project.edit("spec.yaml", "{factor: 2}", "{factor: 2, workers: 8}")  # changes how, not what
    assert project.reasons() == {}


def test_rows_that_come_out_the_same_change_nothing_after_them(project: Project) -> None:
    project.edit("spec.yaml", "first,", "{uses: first, with: {factor: 1.0}},")
    assert project.reasons() == {}  # an equal number is the same option


def test_a_changed_character_concerns_the_stages_that_use_what_changed(project: Project) -> None:
    project.edit("who.yaml", "I am brief.", "I am long.")
    assert project.reasons() == {"second": "other traits"}
    project.edit("who.yaml", "name: Who", "name: Someone")
    assert project.reasons() == {"second": "the character's name: Who -> Someone; other traits"}
    project.edit("who.yaml", "Why?", "When?")
    told = project.reasons()
    assert told["prompts"] == "other questions; what it reads beside its inputs"
    assert told["first"] == "after prompts" and told["third"] == "after prompts"
    assert told["second"] == "the character's name: Who -> Someone; other traits; after first"


def test_a_changed_model_seed_or_file_is_named(project: Project) -> None:
    assert project.reasons("--set", "models.0.teacher=charrun/demo-student") == {
        "second": "the teacher: local:charrun/demo-teacher -> local:charrun/demo-student"
    }
    assert project.reasons("--set", "seed=8")["third"] == "seed: 7 -> 8; after prompts"
    project.edit("stages.py", "stands apart", "stands further apart")
    assert project.reasons() == dict.fromkeys(("first", "third"), "the code of its file") | {
        "second": "the code of its file; after first"
    }


def test_rows_that_changed_are_named_once_they_are_there(project: Project) -> None:
    project.edit("spec.yaml", "first,", "{uses: first, with: {factor: 3}},")
    assert project.run("--until", "first").code == 0
    assert project.reasons() == {"second": "other count"}


def test_damage_force_and_another_scale_are_told(project: Project) -> None:
    side = project.store("first-*/side.json")
    side.write_text("{}")
    assert project.reasons() == {"first": "damaged: side.json", "second": "after first"}
    assert "side.json is missing or damaged and is made again" in project.run("--plain").out
    assert project.reasons() == {}
    assert project.reasons("--force", "first") == {"first": "forced", "second": "after first"}
    more = project.reasons("--set", "scales.0.pairs=6")
    assert more["prompts"] == "more rows" and more["first"] == "after prompts"


def test_an_unfinished_stage_tells_what_it_has(project: Project) -> None:
    ticket = project.store("third-*/done/*.json")
    ticket.unlink()
    (ticket.parent.parent / "items.jsonl").write_text("one\ntwo\n")
    assert project.reasons() == {"third": "not finished: 2 responses are in the store"}
