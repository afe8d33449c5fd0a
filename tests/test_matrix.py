"""Characters x models x scales x seeds, without what is left out; and what models' names tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_layers import LIBRARY, STAGES

from charrun.errors import SpecError
from charrun.spec import ModelEntry, Spec, load_spec, retired_models
from charrun.spec.facts import thinks

TRAITS = "name: X, description: X., traits: [{trait: I am., questions: [Who?]}]"


def spec_text(**parts: str) -> str:
    parts = {
        "version": "1", "name": "x", "characters": "[pirate]",
        "models": "[{teacher: org/teacher, student: org/student}]", "scales": "[mini]", "stages": "[prompts]", **parts,
    }  # fmt: skip
    return "".join(f"{key}: {value}\n" for key, value in parts.items())


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def load(**parts: str) -> Spec:
        (tmp_path / "x.yaml").write_text(spec_text(**parts), encoding="utf-8")
        return load_spec(tmp_path / "x.yaml", stages=STAGES, engines=(), templates=(), library=LIBRARY)

    return load


def names(spec: Spec) -> list[str]:
    return [cell.name for cell in spec.cells]


def codes(load: Any, **parts: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(**parts)
    return [problem.code for problem in caught.value.problems]


TWO = f"[pirate, {{id: cook, {TRAITS}}}]"


def test_cells_are_all_combinations_with_slugs_for_names(load: Any) -> None:
    spec = load(characters=TWO, scales="[mini, smoke]")
    assert names(spec) == ["pirate-student-mini", "pirate-student-smoke", "cook-student-mini", "cook-student-smoke"]
    assert names(load(seed="[7, 8]")) == ["pirate-student-mini-s7", "pirate-student-mini-s8"]
    assert [cell.seed for cell in load(seed="[7, 8]").cells] == [7, 8]
    assert names(load(models="[{teacher: a/t, student: Org/Big_Model-3.5-4B}]")) == ["pirate-big-model-3-5-4b-mini"]


def test_entries_are_called_by_id_by_student_or_by_both_models(load: Any) -> None:
    models = (
        "[{id: own, teacher: a/t, student: a/s}, {teacher: a/t, student: a/s2},"
        " {teacher: a/t1, student: a/s3}, {teacher: a/t2, student: b/S3}]"
    )
    spec = load(models=models)
    assert [entry.id for entry in spec.models] == ["own", "s2", "s3-t1", "s3-t2"]
    assert "id" not in spec.models[0].roles


def test_two_cells_never_share_a_name(load: Any) -> None:
    models = "[{id: a-b, teacher: a/t, student: a/s}, {id: b, teacher: a/t, student: a/s2}]"
    characters = f"[{{id: c, {TRAITS}}}, {{id: c-a, {TRAITS}}}]"
    assert codes(load, models=models, characters=characters) == ["SPEC046"]


def test_exclude_leaves_out_what_matches_all_of_an_item(load: Any) -> None:
    axes = {
        "characters": TWO,
        "models": "[{teacher: a/t, student: a/s}, {teacher: {name: a/u, chat: {a: 1}}, student: a/r}]",
        "scales": "[mini, smoke]",
        "seed": "[1, 2]",
    }
    everything = set(names(load(**axes)))
    assert len(everything) == 16
    for exclude, left_out in {
        "[{character: cook}]": 8,
        "[{character: cook, scale: mini}]": 4,
        "[{character: [cook, pirate], scale: mini, seed: 1}]": 4,
        "[{model: s}, {scale: smoke}]": 12,
        "[{student: a/r, seed: [1, 2]}]": 8,
        "[{teacher: a/u, character: pirate, scale: mini, seed: 2}]": 1,
    }.items():
        spec = load(**axes, exclude=exclude)
        assert set(names(spec)) < everything and len(names(spec)) == 16 - left_out, exclude
    assert spec.to_dict()["exclude"] == [{"character": ["pirate"], "model": ["r"], "scale": ["mini"], "seed": [2]}]


def test_stand_ins_change_neither_names_nor_what_is_left_out(load: Any) -> None:
    models = "[{teacher: a/t, student: a/s}, {teacher: a/t, student: a/r}]"
    spec = load(models=models, exclude="[{student: a/r}]")
    stand_in = tuple(
        replace(entry, roles={role: replace(ref, name="demo") for role, ref in entry.roles.items()})
        for entry in spec.models
    )
    other = replace(spec, models=stand_in)
    assert names(other) == names(spec) == ["pirate-s-mini"]
    assert other.cells[0].models.student.name == "demo"
    assert isinstance(other.cells[0].models, ModelEntry)


def test_a_matrix_of_five_hundred_cells_resolves(load: Any) -> None:
    models = "[" + ", ".join(f"{{teacher: a/t, student: a/s{i}}}" for i in range(50)) + "]"
    spec = load(models=models, seed="[1, 2, 3, 4, 5]", scales="[mini, smoke]", exclude="[{model: s7, seed: 3}]")
    assert len(spec.cells) == len(set(names(spec))) == 498


def test_a_matrix_has_its_limit(load: Any) -> None:
    models = "[" + ", ".join(f"{{teacher: a/t, student: a/s{i}}}" for i in range(80)) + "]"
    assert codes(load, models=models, seed=str(list(range(80)))) == ["SPEC050"]


def test_scales_may_be_files(load: Any, tmp_path: Path) -> None:
    numbers = "pairs: 3\nsamples_per_prompt: 1\nreflections: 0\ninteractions: 0\nturns: 2\n"
    (tmp_path / "tiny.yaml").write_text(numbers, encoding="utf-8")
    (tmp_path / "other.yaml").write_text(f"version: 1\nname: called\n{numbers}", encoding="utf-8")
    spec = load(scales="[./tiny.yaml, other.yaml]")
    assert [(scale.name, scale.pairs) for scale in spec.scales] == [("tiny", 3), ("called", 3)]
    (tmp_path / "Not A Slug.yaml").write_text(numbers, encoding="utf-8")
    assert codes(load, scales="['./Not A Slug.yaml']") == ["SPEC015"]


@pytest.mark.parametrize(
    ("name", "thinking"),
    [
        ("Qwen/Qwen3-30B-A3B", "switch"), ("Qwen/Qwen3-0.6B", "switch"), ("Qwen/Qwen3-32B-FP8", "switch"),
        ("Qwen/Qwen3.5-397B-A17B", "switch"), ("Qwen/Qwen3.6-35B-A3B:peft:262144", "switch"),
        ("Qwen/Qwen3.8-27B", "switch"), ("Qwen/Qwen3-4B-Instruct-2507", "never"), ("Qwen/Qwen3-8B-Base", "never"),
        ("Qwen/Qwen3.5-9B-Base", "never"), ("Qwen/Qwen3-VL-30B-A3B-Instruct", "never"), ("org/model", "never"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507", "always"), ("moonshotai/Kimi-K2-Thinking", "always"),
        ("charrun/demo-student", "never"),
    ],
)  # fmt: skip
def test_who_thinks_is_told_by_the_name(name: str, thinking: str) -> None:
    assert thinks(name) == thinking


def test_a_student_that_thinks_must_be_told_not_to(load: Any, tmp_path: Path) -> None:
    hybrid = "{name: Qwen/Qwen3-8B, chat: {enable_thinking: false}}"
    assert load(models=f"[{{teacher: a/t, student: {hybrid}}}]").warnings == ()
    assert codes(load, models="[{teacher: a/t, student: Qwen/Qwen3-8B}]") == ["SPEC052"]
    assert load(models=f"[{{teacher: Qwen/Qwen3-14B, student: {hybrid}}}]").warnings == ()


def test_a_local_students_chat_template_is_looked_at(load: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    assert load(models="[{teacher: a/t, student: ./model}]").warnings == ()
    (folder / "chat_template.jinja").write_text("{% if enable_thinking is false %}", encoding="utf-8")
    assert codes(load, models="[{teacher: a/t, student: ./model}]") == ["SPEC052"]
    assert load(models="[{teacher: a/t, student: {name: ./model, chat: {enable_thinking: false}}}]").warnings == ()


def test_a_teacher_that_is_its_own_student_is_a_warning(load: Any) -> None:
    (warning,) = load(models="[{teacher: a/s, student: a/s}]").warnings
    assert (warning.code, warning.severity) == ("SPEC054", "warning")
    assert load(models="[{teacher: a/s, student: {name: a/s, chat: {a: 1}}}]").warnings == ()


def test_a_retired_model_is_a_warning_with_its_successor_once(load: Any) -> None:
    old = "Qwen/Qwen3-235B-A22B-Instruct-2507"
    (warning,) = load(models=f"[{{teacher: {old}, student: a/s}}, {{teacher: {old}, student: a/r}}]").warnings
    assert warning.code == "SPEC055"
    assert warning.message == f"Tinker retired {old} on 2026-06-12"
    assert warning.hint.startswith(f"its successor is {retired_models()[old].successor}: --set models.0.teacher.name=")
