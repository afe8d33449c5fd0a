"""What is in a fingerprint and what is not: one table with a reason for each, held to the code and to its effect."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import click
import pytest
from conftest import REPOSITORY, SPECS

from charrun.cli import cli
from charrun.commands.loading import load
from charrun.endpoint import Endpoint
from charrun.pipeline.cell import Cell
from charrun.pipeline.choice import Choice, choose
from charrun.pipeline.identity import EXCLUDED, INCLUDED, content, numbered, with_inputs
from charrun.pipeline.run import plan_cells
from charrun.plugin_manager import Registry
from charrun.plugins.engine_local import LocalEngine
from charrun.spec import load_character
from charrun.spec.model import Arm, CellSpec, Exclusion, Spec
from charrun.spec.parts import Character, EngineChoice, LocalPlugin, ModelEntry, ModelRef, Scale, StageItem, Trait
from charrun.stage import IDENTITY, Stage
from charrun.store.canonical import digest
from charrun.testing.contract import contract_problems

DATA = (
    Spec,
    CellSpec,
    Arm,
    ModelEntry,
    ModelRef,
    Endpoint,
    Character,
    Trait,
    Scale,
    StageItem,
    EngineChoice,
    LocalPlugin,
)
FAR = Endpoint("http://127.0.0.1:1/v1", "far")
OF_TEACHER = {"teacher", "reflection", "interaction", "evaluate", "export"}
ALL = ["prompts", "teacher", "student", "pairs", "dpo", "reflection", "interaction", "sft", "evaluate", "export"]


@cache
def loaded(*sets: str) -> tuple[Spec, Registry]:
    """The smoke spec with its stand-ins put in."""
    found = load(str(SPECS / "pirate-smoke.yaml"), sets)
    return choose(found.spec, found.registry).spec, found.registry


class Lab:
    """A spec, its plugins and an engine, to be changed in one place."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, sets: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self.patch = patch
        self.spec, self.registry = loaded(*sets)
        self.engine = LocalEngine()

    # -- changes --------------------------------------------------------------------------------------------------

    def set(self, **changes: Any) -> None:
        """Fields of the spec."""
        self.spec = replace(self.spec, **changes)

    def item(self, which: str, **changes: Any) -> None:
        self.set(stages=tuple(replace(item, **changes) if item.id == which else item for item in self.spec.stages))

    def character(self, **changes: Any) -> None:
        self.set(characters=(replace(self.spec.characters[0], **changes),))

    def trait(self, **changes: Any) -> None:
        first, *rest = self.spec.characters[0].traits
        self.character(traits=(replace(first, **changes), *rest))

    def scale(self, **changes: Any) -> None:
        self.set(scales=(replace(self.spec.scales[0], **changes),))

    def entry(self, **changes: Any) -> None:
        self.set(models=(replace(self.spec.models[0], **changes),))

    def teacher(self, **changes: Any) -> None:
        roles = self.spec.models[0].roles
        self.entry(roles={**roles, "teacher": replace(roles["teacher"], **changes)})

    def stage(self, name: str, **attributes: Any) -> None:
        """Attributes of a stage's class."""
        for key, value in attributes.items():
            self.patch.setattr(self.registry.stages[name], key, value)

    def stages(self, name: str, uses: str) -> None:
        """Have an item use its stage under another name."""
        stages = {**self.registry.stages, uses: self.registry.stages[name]}
        self.registry = replace(self.registry, stages=stages)
        self.item(name, uses=uses)

    def code(self, sha256: str, path: str = "stages.py") -> None:
        """Have `teacher` come from a file beside the spec."""
        self.registry = replace(self.registry, code={"teacher": sha256})
        self.set(plugins=(LocalPlugin(Path(path), sha256),))

    def template(self, text: str, name: str = "character") -> None:
        path = self.folder / f"{digest(text)[:8]}.j2"
        path.write_text(text)
        self.set(templates={**self.spec.templates, name: path})

    # -- fingerprints ---------------------------------------------------------------------------------------------

    def cell(self) -> Cell:
        return plan_cells(Choice(self.engine, self.spec), self.registry, self.folder)[0]

    def digests(self) -> dict[str, str]:
        """By stage what its fingerprint is made of, with a name in place of the content of consumed rows."""
        found = {}
        for name, run in zip(ALL, self.cell().stages, strict=False):
            rows = {name: "content" for name, _, _ in numbered(run)}
            found[name] = digest(
                with_inputs(run, run.described, rows) if run.stage.identity == "content" else run.described
            )
        return found


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def changed(lab: Lab, change: Callable[[Lab], object]) -> set[str]:
    """The stages whose fingerprints a change changes."""
    before = lab.digests()
    change(lab)
    after = lab.digests()
    return {name for name in after if after[name] != before[name]}


EVERY = set(ALL)
IN_CHARACTER = {"teacher", "pairs", "reflection", "interaction", "evaluate"}
WRITING = {"reflection", "interaction"}
TAUGHT = {"teacher", "interaction", "evaluate", "export"}

CHANGES: dict[str, tuple[Callable[[Lab], object], set[str]]] = {
    # -- in it
    "Stage.name": (lambda lab: lab.stages("teacher", "mentor"), {"teacher"}),
    "Stage.cache_version": (lambda lab: lab.stage("teacher", cache_version=99), {"teacher"}),
    "Stage.roles": (lambda lab: lab.stage("student", roles=("student", "teacher")), {"student"}),
    "Stage.measures": (lambda lab: lab.stage("evaluate", measures=("scorer",)), {"evaluate"}),
    "Stage.character_fields": (lambda lab: lab.stage("student", character_fields=("name",)), {"student"}),
    "Stage.templates": (
        lambda lab: lab.stage("student", templates=lab.registry.stages["teacher"].templates),
        {"student"},
    ),
    "Stage.identity": (lambda lab: lab.stage("dpo", identity="rows"), {"dpo"}),
    "Stage.consumes": (lambda lab: lab.stage("sft", consumes=("checkpoint", "pairs")), {"sft"}),
    "Stage.optional": (lambda lab: lab.stage("evaluate", optional=()), {"evaluate"}),
    "Stage.further_inputs": (lambda lab: lab.stage("student", further_inputs=lambda self, ctx: 1), {"student"}),
    "StageItem.uses": (lambda lab: lab.stages("student", "pupil"), {"student"}),
    "StageItem.options": (lambda lab: lab.item("dpo", options={**lab.spec.stages[4].options, "beta": 0.2}), {"dpo"}),
    "CellSpec.seed": (lambda lab: lab.set(seeds=(8,)), EVERY),
    "CellSpec.character": (
        lambda lab: lab.set(characters=(load_character(SPECS / "characters/gardener.yaml"),)),
        {"prompts", *IN_CHARACTER, "export"},
    ),
    "Character.name": (lambda lab: lab.character(name="Somebody"), {*IN_CHARACTER, "export"}),
    "Character.traits": (
        lambda lab: lab.character(traits=lab.spec.characters[0].traits[1:]),
        {"prompts", *IN_CHARACTER, "export"},
    ),
    "Trait.trait": (lambda lab: lab.trait(trait="I never lie."), {*IN_CHARACTER, "export"}),
    "Trait.questions": (lambda lab: lab.trait(questions=("Why?",)), {"prompts"}),
    "CellSpec.models": (
        lambda lab: lab.teacher(name="charrun/demo-student"),
        {"teacher", *WRITING, "evaluate", "export"},
    ),
    "ModelEntry.roles": (
        lambda lab: lab.entry(roles={**lab.spec.models[0].roles, "scorer": ModelRef("charrun/demo-student")}),
        {"evaluate"},
    ),
    "ModelRef.name": (lambda lab: lab.teacher(name="charrun/demo-student-small"), OF_TEACHER),
    "ModelRef.chat": (lambda lab: lab.teacher(chat={"enable_thinking": False}), OF_TEACHER),
    "ModelRef.endpoint": (lambda lab: lab.teacher(endpoint=FAR), OF_TEACHER),
    "Endpoint.base_url": (lambda lab: lab.teacher(endpoint=replace(FAR, base_url="http://h/v2")), OF_TEACHER),
    "Endpoint.model": (lambda lab: lab.teacher(endpoint=replace(FAR, model="other")), OF_TEACHER),
    "Endpoint.parameters": (lambda lab: lab.teacher(endpoint=replace(FAR, parameters={"top_p": None})), OF_TEACHER),
    "EngineChoice.uses": (
        lambda lab: setattr(lab, "engine", type("Other", (LocalEngine,), {"name": "other"})()),
        EVERY - {"prompts", "pairs"},
    ),
    "Spec.templates": (
        lambda lab: lab.template("You are {{ name }}. {{ traits | join(' ') }}"),
        IN_CHARACTER - {"pairs"},
    ),
    "LocalPlugin.sha256": (lambda lab: lab.code("0123"), {"teacher"}),
    # -- left out
    "Spec.name": (lambda lab: lab.set(name="other"), set()),
    "Spec.path": (lambda lab: lab.set(path=Path("/elsewhere/x.yaml")), set()),
    "Spec.seeds": (lambda lab: lab.set(seeds=(*lab.spec.seeds, 8)), set()),
    "Spec.engine": (lambda lab: lab.set(engine=EngineChoice("local", {"device": "cpu"})), set()),
    "EngineChoice.options": (lambda lab: lab.set(engine=EngineChoice("local", {"device": "cuda"})), set()),
    "Spec.characters": (
        lambda lab: lab.set(characters=(*lab.spec.characters, load_character(SPECS / "characters/gardener.yaml"))),
        {"pairs"},  # its gates look for the words of the others
    ),
    "Spec.models": (lambda lab: lab.set(models=(*lab.spec.models, replace(lab.spec.models[0], id="two"))), set()),
    "Spec.scales": (lambda lab: lab.set(scales=(*lab.spec.scales, replace(lab.spec.scales[0], name="two"))), set()),
    "CellSpec.scale": (lambda lab: lab.set(scales=(Scale("other", 99, 3, 70, 5, 6),)), set()),
    "Scale.name": (lambda lab: lab.scale(name="other"), set()),
    "Scale.pairs": (lambda lab: lab.scale(pairs=99), set()),
    "Scale.samples_per_prompt": (lambda lab: lab.scale(samples_per_prompt=9), set()),
    "Scale.reflections": (lambda lab: lab.scale(reflections=99), set()),
    "Scale.interactions": (lambda lab: lab.scale(interactions=99), set()),
    "Scale.turns": (lambda lab: lab.scale(turns=99), set()),
    "Stage.awaits_all": (lambda lab: lab.stage("teacher", awaits_all=True), set()),
    "Stage.begins_early": (lambda lab: lab.stage("evaluate", begins_early=False), set()),
    "Stage.one_checkpoint": (lambda lab: lab.stage("dpo", one_checkpoint=False), set()),
    "Stage.runs_dry": (lambda lab: lab.stage("teacher", runs_dry=False), set()),
    "Spec.budget_usd": (lambda lab: lab.set(budget_usd=99.0), set()),
    "Spec.stage_budgets": (lambda lab: lab.set(stage_budgets={"dpo": 9.0}), set()),
    "Spec.prices": (lambda lab: lab.set(prices={"charrun/demo-teacher": {"prefill": 1.0, "sample": 2.0}}), set()),
    "Spec.stages": (lambda lab: lab.set(stages=lab.spec.stages[:-1]), set()),
    "StageItem.id": (lambda lab: lab.item("teacher", id="mentor"), set()),
    "StageItem.needs": (lambda lab: lab.item("reflection", needs=("dpo",)), set()),
    "StageItem.folders": (lambda lab: lab.item("teacher", folders={"x.txt": Path("/elsewhere")}), set()),
    "StageItem.node": (lambda lab: lab.item("teacher", node=replace(lab.spec.stages[0].node, value="teacher")), set()),
    "Spec.stand_ins": (lambda lab: lab.set(stand_ins=None), set()),
    "Spec.exclude": (lambda lab: lab.set(exclude=(Exclusion(characters=frozenset({"grump"})),)), set()),
    "Spec.arms": (lambda lab: lab.set(arms=(Arm("full", lab.spec.stages), Arm("none", ()))), set()),
    "CellSpec.arm": (lambda lab: lab.set(arms=(Arm("other", lab.spec.stages),)), set()),
    "CellSpec.looked_for": (
        lambda lab: lab.set(
            arms=(Arm("null", lab.spec.stages, lab.spec.characters[0]),),
            characters=(load_character(SPECS / "characters/gardener.yaml"),),
        ),
        {"pairs", "evaluate"},  # the others that gates look for, and who is looked for
    ),
    "Arm.name": (lambda lab: lab.set(arms=(Arm("renamed", lab.spec.stages),)), set()),
    "Arm.description": (lambda lab: lab.set(arms=(Arm("x", lab.spec.stages, None, "shows something"),)), set()),
    "Arm.stages": (lambda lab: lab.set(arms=(Arm("x", lab.spec.stages[:-1]),)), set()),
    "Arm.character": (
        lambda lab: lab.set(
            arms=(Arm("null", lab.spec.stages, load_character(SPECS / "characters/gardener.yaml")),),
        ),
        {"prompts", *IN_CHARACTER, "export"},  # those of whoever is trained
    ),
    "Spec.plugins": (lambda lab: lab.set(plugins=(LocalPlugin(Path("unused.py"), "0123"),)), set()),
    "Spec.successors": (lambda lab: lab.set(successors=("--set name=other",)), set()),
    "Spec.warnings": (lambda lab: lab.set(warnings=(lab.spec.stages[0].problem("SPEC055", "odd"),)), set()),
    "CellSpec.name": (lambda lab: lab.entry(id="renamed"), set()),
    "ModelEntry.id": (lambda lab: lab.entry(id="other"), set()),
    "Character.id": (lambda lab: lab.character(id="captain"), {"evaluate", "export"}),  # they tell it
    "Character.licence": (lambda lab: lab.character(licence="CC0-1.0"), {"export"}),
    "Character.source": (lambda lab: lab.character(source="a book"), {"export"}),
    "Character.description": (lambda lab: lab.character(description="another sentence"), {"export"}),
    "Stage.summary": (lambda lab: lab.stage("teacher", summary="something"), set()),
    "Stage.optional_variables": (lambda lab: lab.stage("teacher", optional_variables={"character": ("name",)}), set()),
    "Stage.produces": (lambda lab: lab.stage("evaluate", produces=("evaluation", "further")), set()),
    "Stage.instead": (lambda lab: lab.stage("evaluate", instead={}), set()),
    "Stage.trains": (lambda lab: lab.stage("dpo", trains=()), set()),
    "Stage.scores": (lambda lab: lab.stage("evaluate", scores=()), set()),
    "code of charrun and of installed plugins": (lambda lab: lab.stage("teacher", run=Stage.run), set()),
    "versions of Python, torch, the SDK and other packages": (
        lambda lab: lab.patch.setattr(platform, "python_version", lambda: "4.0"),
        set(),
    ),
    "environment variables": (lambda lab: lab.patch.setenv("TINKER_BASE_URL", "http://localhost:1"), set()),
    "paths of templates": (lambda lab: lab.template(lab.registry.templates["character"].read_text()), set()),
}
"""By name of the tables a change, and the stages whose fingerprints it changes."""

TESTED_APART = {
    "Endpoint.api_key_env", "Endpoint.samples_per_request", "Endpoint.concurrency", "Endpoint.max_retries",
    "Endpoint.timeout", "Endpoint.continues",
    "Stage.options_schema", "consumed rows", "LocalPlugin.path", "options with x-charrun-identity: false",
    "number of rows", "checkpoint paths",
}  # fmt: skip
UNTESTED = {"tokenizer and chat template of a hosted model"}


def test_every_field_and_option_is_either_in_it_or_left_out_for_a_reason() -> None:
    known = {**INCLUDED, **EXCLUDED}
    assert not set(INCLUDED) & set(EXCLUDED)
    wanted = {f"{kind.__name__}.{field.name}" for kind in DATA for field in fields(kind)}
    wanted |= {f"Stage.{name}" for name in Stage.__annotations__} | {"Stage.further_inputs"}
    assert {name for name in known if "." in name and " " not in name} == wanted
    command = cli.get_command(click.Context(cli), "run")
    assert command is not None
    told = {option for name in known if name.startswith("--") for option in name.split(", ")}
    options = [each for each in command.params if isinstance(each, click.Option)]
    assert told == {next(name for name in each.opts if name.startswith("--")) for each in options} - {"--help"}
    assert all(reason.strip() for reason in known.values())


def test_every_entry_of_the_tables_is_tested_by_changing_it() -> None:
    names = {name for name in (*INCLUDED, *EXCLUDED) if not name.startswith("--")}
    assert set(CHANGES) | TESTED_APART | UNTESTED == names
    assert all(stages for name, (_, stages) in CHANGES.items() if name in INCLUDED)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_changes_the_fingerprints_of_exactly_these_stages(name: str, lab: Lab) -> None:
    change, stages = CHANGES[name]
    assert changed(lab, change) == stages


def test_how_an_endpoint_is_asked_changes_no_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, otherwise = Lab(tmp_path, monkeypatch), Lab(tmp_path, monkeypatch)
    plain.teacher(endpoint=FAR)
    how = replace(
        FAR, api_key_env="K", samples_per_request=1, concurrency=1, max_retries=0, timeout=1.0, continues=True
    )
    otherwise.teacher(endpoint=how)
    assert plain.digests() == otherwise.digests()


def test_the_page_of_fingerprints_is_what_its_generator_writes() -> None:
    path = REPOSITORY / "docs" / "_fingerprints.py"
    spec = importlib.util.spec_from_file_location("fingerprints_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert path.with_name("fingerprints.md").read_text() == module.page()


def test_marked_options_are_left_out_and_defaults_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Lab(tmp_path, monkeypatch).digests()
    often = Lab(tmp_path, monkeypatch, ("stages.dpo.with.checkpoint_every=3", "stages.sft.with.checkpoint_every=0"))
    assert often.digests() == plain
    written = Lab(tmp_path, monkeypatch, ("stages.teacher.with.temperature=0.7",))  # the default
    assert written.digests() == plain


def test_an_option_whose_schema_is_only_true_is_in_it(lab: Lab) -> None:
    schema = lab.registry.stages["teacher"].options_schema
    lab.stage("teacher", options_schema={**schema, "properties": {**schema["properties"], "any": True}})
    options = next(item.options for item in lab.spec.stages if item.id == "teacher")
    assert changed(lab, lambda lab: lab.item("teacher", options={**options, "any": 1})) == {"teacher"}


def test_consumed_rows_count_by_content_where_the_stage_says_so(lab: Lab) -> None:
    runs = {run.item.id: run for run in lab.cell().stages}
    one, two = (dict.fromkeys(("pairs", "chosen", "rejected", "prompts"), digest) for digest in ("one", "two"))
    told = {
        id: with_inputs(run, run.described, one) != with_inputs(run, run.described, two) for id, run in runs.items()
    }
    assert [id for id, differs in told.items() if not differs] == ["prompts", "teacher", "student", "pairs"]


def test_the_number_of_rows_and_the_place_of_a_checkpoint_or_stage_file_change_nothing(lab: Lab) -> None:
    cell = lab.cell()
    before = {run: run.described_digest for run in cell.stages}
    for run in cell.stages:
        run.extra = 5
        del run.described, run.described_digest
    assert {run: run.described_digest for run in cell.stages} == before
    assert content({"state": "a", "sampler": "b", "fingerprint": "c"}) == content({"state": "d", "fingerprint": "c"})
    lab.code("0123")
    assert changed(lab, lambda lab: lab.code("0123", "/elsewhere/stages.py")) == set()


def test_a_template_that_another_one_includes_counts_with_it(lab: Lab) -> None:
    lab.template('{% include "interaction_openers.j2" %} {{ name }} {{ traits }}')
    assert changed(lab, lambda lab: lab.template("Another text.", "interaction_openers")) == IN_CHARACTER - {"pairs"}
    assert set(lab.cell().shared.prompts.sources_of(["character"])) == {"character", "interaction_openers"}
    lab.template("{% set one = 'interaction' %}{% include one ~ '_openers.j2' %}")  # it could be any of them
    assert set(lab.cell().shared.prompts.sources_of(["character"])) == set(lab.registry.templates)


def test_the_mark_of_an_option_must_be_true_or_false_and_stand_where_it_counts() -> None:
    said: dict[str, Any] = {"type": "integer", "default": 1, "description": "A number."}
    schema = {"type": "object", "additionalProperties": False}

    class Marked(Stage):
        name, summary = "marked", "marks its options"
        options_schema: ClassVar[Any] = {**schema, "properties": {"a": {**said, IDENTITY: False}, "b": said}}

        async def run(self, ctx: Any) -> None: ...

    assert contract_problems(Marked) == []
    Marked.options_schema = {**schema, "properties": {"a": {**said, IDENTITY: "no"}}}
    (problem,) = contract_problems(Marked)
    assert problem.endswith("gives 'a' the x-charrun-identity 'no', which is neither true nor false")
    inner = {"type": "object", "default": {}, "description": "Options.", "properties": {"c": {IDENTITY: False}}}
    Marked.options_schema = {**schema, "properties": {"a": {**said, "x-charrun-identiy": False}, "b": inner}}
    assert contract_problems(Marked) == [
        "option 'a': x-charrun-identiy means nothing there",
        "option 'b': x-charrun-identity means nothing there",
    ]


def test_an_items_id_is_no_part_of_what_depends_on_its_rows(lab: Lab) -> None:
    names = {run.item.id: [name for name, _, _ in numbered(run)] for run in lab.cell().stages}
    assert names["pairs"] == ["chosen", "rejected"] and names["sft"] == ["checkpoint", "reflections", "interactions"]
    assert names["evaluate"][:2] == ["checkpoint 1", "checkpoint 2"]
