"""What is in a fingerprint and what is not: one table with a reason for each, held to the code and to its effect."""

from __future__ import annotations

import importlib.util
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, SPECS

from charrun.commands.loading import load
from charrun.pipeline.cell import Cell
from charrun.pipeline.choice import Choice
from charrun.pipeline.identity import EXCLUDED, INCLUDED
from charrun.pipeline.run import plan_cells
from charrun.spec import Spec
from charrun.spec.model import (
    CellSpec,
    Character,
    EngineChoice,
    LocalPlugin,
    ModelEntry,
    ModelRef,
    Scale,
    StageItem,
    Trait,
)
from charrun.stage import Stage

SECOND = EngineChoice("local", {"device": "cpu"})


def cell_of(tmp_path: Path, *sets: str, **changes: Any) -> Cell:
    loaded = load(str(SPECS / "pirate-smoke.yaml"), ("engine=local", *sets))
    spec: Spec = replace(loaded.spec, **changes)
    models = [
        replace(e, roles={r: replace(m, name="charrun/demo-teacher") for r, m in e.roles.items()}) for e in spec.models
    ]
    choice = Choice(loaded.registry.engines["local"](), replace(spec, models=tuple(models)))
    return plan_cells(choice, loaded.registry, tmp_path)[0]


def digests(cell: Cell) -> dict[str, str]:
    return {run.item.id: run.described_digest for run in cell.stages}


def changed(tmp_path: Path, *sets: str, **changes: Any) -> set[str]:
    before, after = digests(cell_of(tmp_path)), digests(cell_of(tmp_path, *sets, **changes))
    return {id for id in before if before[id] != after.get(id, before[id])}


def test_every_field_is_either_in_it_or_left_out_for_a_reason() -> None:
    known = {**INCLUDED, **EXCLUDED}
    assert not set(INCLUDED) & set(EXCLUDED)
    for kind in (Spec, CellSpec, ModelEntry, ModelRef, Character, Trait, Scale, StageItem, EngineChoice, LocalPlugin):
        for field in fields(kind):
            assert f"{kind.__name__}.{field.name}" in known
    for name in Stage.__annotations__:
        assert f"Stage.{name}" in known
    assert all(reason.strip() for reason in known.values())


def test_the_page_of_fingerprints_is_what_its_generator_writes() -> None:
    path = REPOSITORY / "docs" / "_fingerprints.py"
    spec = importlib.util.spec_from_file_location("fingerprints_page", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert path.with_name("fingerprints.md").read_text() == module.page()


@pytest.mark.parametrize(
    ("sets", "changes"),
    [
        (("name=other",), {}),
        (("budget.usd=99",), {}),
        (("stages.dpo.with.checkpoint_every=3", "stages.sft.with.checkpoint_every=0"), {}),
        ((), {"engine": SECOND}),
        ((), {"path": Path("/elsewhere/x.yaml")}),
        ((), {"stand_ins": None}),
        (("scales=[mini]",), {}),
    ],
)
def test_what_is_left_out_changes_no_fingerprint(
    sets: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    assert changed(tmp_path, *sets, **changes) == set()


def test_a_characters_id_and_description_change_no_fingerprint(tmp_path: Path) -> None:
    (pirate,) = cell_of(tmp_path).shared.spec.characters
    other = replace(pirate, id="captain", description="another sentence")
    assert changed(tmp_path, characters=(other,)) <= {"evaluate"}  # the scorer's own id is part of what it publishes


@pytest.mark.parametrize(
    ("sets", "stages"),
    [
        (("stages.dpo.with.beta=0.2",), {"dpo"}),
        (("stages.teacher.with.temperature=0.5",), {"teacher"}),
        (("stages.evaluate.with.prompts=110",), {"evaluate"}),
        (
            ("seed=8",),
            {"prompts", "teacher", "student", "pairs", "dpo", "reflection", "interaction", "sft", "evaluate", "export"},
        ),
    ],
)
def test_what_is_in_it_changes_its_own_stage_alone(sets: tuple[str, ...], stages: set[str], tmp_path: Path) -> None:
    assert changed(tmp_path, *sets) == stages


def test_traits_questions_templates_and_models_change_the_stages_that_use_them(tmp_path: Path) -> None:
    (pirate,) = cell_of(tmp_path).shared.spec.characters
    first = pirate.traits[0]
    told = replace(pirate, traits=(replace(first, trait="I never lie."), *pirate.traits[1:]))
    assert changed(tmp_path, characters=(told,)) == {"teacher", "reflection", "interaction", "evaluate", "export"}
    asked = replace(pirate, traits=(replace(first, questions=("Why?",)), *pirate.traits[1:]))
    assert changed(tmp_path, characters=(asked,)) == {"prompts"}
    template = tmp_path / "character.j2"
    template.write_text("You are {{ name }}. {{ traits | join(' ') }}")
    assert changed(tmp_path, templates={"character": template}) == {"teacher", "reflection", "interaction", "evaluate"}


def test_an_items_id_is_no_part_of_what_depends_on_its_rows(tmp_path: Path) -> None:
    from charrun.pipeline.identity import numbered

    cell = cell_of(tmp_path)
    names = {run.item.id: [name for name, _, _ in numbered(run)] for run in cell.stages}
    assert names["pairs"] == ["chosen", "rejected"] and names["sft"] == ["checkpoint", "reflections", "interactions"]
    assert names["evaluate"][:2] == ["checkpoint 1", "checkpoint 2"]
