"""What a warning of a retired model tells to paste takes the successor, wherever the model is written."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SPECS
from test_layers import LIBRARY, STAGES

from charrun.spec import Spec, load_spec, retired_models
from charrun.spec.facts import thinks

TEACHER, STUDENT, PLAIN = "Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-4B-Instruct-2507"
AFTER = {name: each.successor for name, each in retired_models().items()}
QUIET = "chat: {enable_thinking: false}"
HEAD = "version: 1\nname: x\ncharacters: [pirate]\nscales: [mini]\nstages: [prompts]\n"


def read(path: Path, sets: list[str]) -> Spec:
    return load_spec(path, stages=STAGES, engines=(), templates=(), library=LIBRARY, sets=sets)


def hints(spec: Spec) -> dict[str, list[str]]:
    """Of each retired model the texts of `--set` that its warning tells."""
    found: dict[str, list[str]] = {}
    for each in spec.warnings:
        if each.code == "SPEC055":
            name = each.message.split()[2]
            assert each.hint.startswith(f"its successor is {AFTER[name]}")
            told = each.hint.partition(" (the value of")[0]
            words = shlex.split(told.partition(": ")[2])
            assert words[::2] == ["--set"] * (len(words) // 2)
            found[name] = next(iter(found.values())) if told.endswith(", which the same options take") else words[1::2]
    return found


def taken(path: Path) -> Spec:
    """A spec with all of its hints taken; each of them by itself takes its successor, and nothing else is changed."""
    before = read(path, [])
    told = hints(before)
    assert told
    for sets in told.values():
        assert sets
        names = {name for name, texts in told.items() if texts == sets}
        after = read(path, sets)
        assert set(hints(after)) == told.keys() - names
        for was, now in zip(before.models, after.models, strict=True):
            assert was.roles.keys() == now.roles.keys()
            for role, ref in was.roles.items():
                if ref.name not in names or ref.endpoint:
                    assert now.roles[role] == ref
                    continue
                assert now.roles[role].name == AFTER[ref.name]
                added = now.roles[role].chat.items() - ref.chat.items()
                assert ref.chat.items() - now.roles[role].chat.items() <= {("enable_thinking", True)}
                assert added <= {("enable_thinking", False)}
                if thinks(AFTER[ref.name]) == "switch" and thinks(ref.name) == "never":
                    assert now.roles[role].chat["enable_thinking"] is False
        assert len(after.cells) == len(before.cells)
    spec = read(path, [text for sets in dict.fromkeys(map(tuple, told.values())) for text in sets])
    assert not hints(spec)
    return spec


def written(folder: Path, models: str, rest: str = "") -> Path:
    path = folder / "x.yaml"
    path.write_text(f"{HEAD}models: {models}\n{rest}", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "models",
    [
        f"[{{teacher: {TEACHER}, student: a/s}}]",
        f"[{{teacher: {{name: {TEACHER}}}, student: {{name: {STUDENT}, {QUIET}}}}}]",
        f"[{{teacher: a/t, student: {{name: {STUDENT}, chat: {{enable_thinking: false, style: short}}}}}}]",
        f"[{{teacher: a/t, student: {PLAIN}}}]",
        f"[{{teacher: a/t, student: a/s}}, {{teacher: a/t, student: {PLAIN}, scorer: {TEACHER}, judge: {TEACHER}}}]",
        f"[{{id: one, teacher: {TEACHER}, student: a/s}}, {{id: two, teacher: {TEACHER}, student: b/s}}]",
        f"[{{id: '1', teacher: {TEACHER}, student: a/s}}, {{id: '0', teacher: {TEACHER}, student: {PLAIN}}}]",
        f"[{{id: '1', teacher: a/u, student: a/s}}, {{id: x, teacher: {TEACHER}, student: {{name: {PLAIN}}}}}]",
        f"[{{teacher: {{name: {STUDENT}, chat: {{enable_thinking: true}}}}, student: a/s, own_role: {STUDENT}}}]",
        f"[{{teacher: {TEACHER}, student: a/s, judge: {{name: {PLAIN}, endpoint: {{base_url: 'http://h/v1'}}}}}}]",
    ],
)
def test_a_hint_takes_the_successor_wherever_the_model_is_written(models: str, tmp_path: Path) -> None:
    taken(written(tmp_path, models))


def test_stand_ins_follow_and_stay_where_the_successor_has_one(tmp_path: Path) -> None:
    for folder in ("a model", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    models = f"[{{teacher: {TEACHER}, student: {AFTER[PLAIN]}x, scorer: {AFTER[TEACHER]}, writer: a/w}}]"
    rest = f"stand_ins: {{models: {{{TEACHER}: './a model', a/w: ./b}}}}\n"
    spec = taken(written(tmp_path, models, rest))
    assert spec.stand_ins and dict(spec.stand_ins.models) == {
        AFTER[TEACHER]: str(tmp_path / "a model"), "a/w": str(tmp_path / "b"),
    }  # fmt: skip
    spec = taken(written(tmp_path, models, rest.replace("a/w:", f"{AFTER[TEACHER]}:")))
    assert spec.stand_ins and dict(spec.stand_ins.models) == {AFTER[TEACHER]: str(tmp_path / "b")}


def test_exclude_follows(tmp_path: Path) -> None:
    models = f"[{{teacher: {TEACHER}, student: {PLAIN}}}, {{teacher: a/t, student: a/s}}]"
    for out in (f"{{student: {PLAIN}}}", f"{{teacher: [{TEACHER}]}}", "{model: qwen3-4b-instruct-2507, seed: 7}"):
        spec = taken(written(tmp_path, models, f"seed: [7, 8]\nexclude: [{out}]\n"))
        assert len(spec.cells) == (3 if "seed" in out else 2)
    models = f"[{{teacher: {TEACHER}, student: a/s}}, {{teacher: a/t, student: b/s}}]"
    taken(written(tmp_path, models, "seed: [7, 8]\nexclude: [{model: s-qwen3-235b-a22b-instruct-2507, seed: 8}]\n"))


@pytest.mark.parametrize(
    ("models", "variables"),
    [
        ("[{teacher: '${vars.t}', student: a/s}]", f"{{t: {TEACHER}}}"),
        (
            "[{teacher: a/t, student: '${vars.s}'}]",
            f"{{s: {{name: {STUDENT}, chat: {{enable_thinking: false, cost: '$${{x}}'}}}}}}",
        ),
        (
            f"[{{teacher: a/t, student: {{name: {STUDENT}, chat: '${{vars.c}}'}}}}]",
            "{c: {enable_thinking: false, 'a b': 'c d'}}",
        ),
        (
            "['${vars.e}', {teacher: a/t, student: a/s, scorer: ./m}]",
            f"{{e: {{teacher: {TEACHER}, student: {PLAIN}}}}}",
        ),
        ("'${vars.all}'", f"{{all: [{{teacher: {TEACHER}, student: {PLAIN}}}, {{teacher: a/t, student: ../m/m}}]}}"),
    ],
)
def test_a_hint_works_where_a_variable_stands_for_the_model(models: str, variables: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "m").mkdir(parents=True)
    for place in (folder, folder / "m"):
        (place / "config.json").write_text("{}")
    base = written(tmp_path, models.replace("../m/m", "./m"), f"vars: {variables.replace('../m/m', './m')}\n")
    taken(base)


def test_two_retired_models_of_one_entry_that_exclude_names_by_both(tmp_path: Path) -> None:
    models = f"[{{teacher: {TEACHER}, student: {PLAIN}}}, {{teacher: a/t, student: a/{PLAIN.partition('/')[2]}}}]"
    id = "qwen3-4b-instruct-2507-qwen3-235b-a22b-instruct-2507"
    spec = taken(written(tmp_path, models, f"seed: [7, 8]\nexclude: [{{model: [{id}], seed: 8}}]\n"))
    assert len(spec.cells) == 3


@pytest.mark.parametrize("out", ["'${vars.x}'", "['${vars.x0}']", "[{student: '${vars.xs}'}]"])
def test_a_variable_of_exclude(out: str, tmp_path: Path) -> None:
    models = f"[{{teacher: {TEACHER}, student: {PLAIN}}}, {{teacher: a/t, student: a/s}}]"
    values = {"x": f"[{{student: {PLAIN}}}]", "x0": f"{{student: {PLAIN}}}", "xs": f"[{PLAIN}]"}
    (name,) = [name for name in values if f"vars.{name}}}" in out]
    spec = taken(written(tmp_path, models, f"exclude: {out}\nvars: {{{name}: {values[name]}}}\n"))
    assert [cell.models.student.name for cell in spec.cells] == ["a/s"]


def test_a_variable_of_stand_ins(tmp_path: Path) -> None:
    models = f"[{{teacher: {TEACHER}, student: a/s}}]"
    for rest in (
        "stand_ins: {models: '${vars.m}'}\nvars: {m: {%s: charrun/demo-teacher, a/s: b}}\n",
        "stand_ins: '${vars.m}'\nvars: {m: {models: {%s: charrun/demo-teacher, a/s: b}}}\n",
    ):
        spec = taken(written(tmp_path, models, rest % TEACHER))
        assert spec.stand_ins and dict(spec.stand_ins.models) == {AFTER[TEACHER]: "charrun/demo-teacher", "a/s": "b"}


def test_a_hint_works_under_extends(tmp_path: Path) -> None:
    written(tmp_path, f"[{{teacher: {TEACHER}, student: {PLAIN}}}]", f"stand_ins: {{models: {{{PLAIN}: a/b}}}}\n")
    over = tmp_path / "over.yaml"
    over.write_text("extends: x.yaml\nname: over\n", encoding="utf-8")
    taken(over)
    over.write_text(f"extends: x.yaml\nmodels: {{'0': {{student: {STUDENT}-Base, scorer: {PLAIN}}}}}\n", "utf-8")
    taken(over)


def test_nothing_is_told_to_paste_that_would_not_work(tmp_path: Path) -> None:
    """Two entries that would be called the same."""
    models = f"[{{teacher: a/t, student: {PLAIN}}}, {{id: qwen3-5-4b, teacher: a/t, student: a/s}}]"
    (warning,) = read(written(tmp_path, models), []).warnings
    assert warning.hint == f"its successor is {AFTER[PLAIN]}"


@pytest.mark.parametrize("name", sorted(path.stem for path in SPECS.glob("*.yaml")))
def test_what_is_told_of_a_shipped_spec_works_in_a_shell(name: str) -> None:
    def validated(sets: str) -> list[dict[str, str]]:
        command = f"exec {shlex.quote(sys.executable)} -m charrun validate --trust --format json {name}.yaml {sets}"
        env = {**os.environ, "COLUMNS": "80"}
        done = subprocess.run(["sh", "-c", command], cwd=SPECS, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return [each for each in json.loads(done.stdout)["problems"] if each["code"] == "SPEC055"]

    told = validated("")
    if told:
        assert validated(" ".join(each["hint"].partition(": ")[2] for each in told)) == []
