"""A small project whose stages need no engine, run and planned in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from charrun.commands.loading import load
from charrun.pipeline.choice import Choice, choose
from charrun.pipeline.plan import PlannedStage, plan
from charrun.pipeline.run import plan_cells, run_choice
from charrun.pipeline.selection import Selection
from charrun.plugins.engine_local import LocalEngine
from charrun.service.engine import EngineRequest

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
