"""A spec may be written in several texts: bases, variables, `--set`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrun.errors import Problem, SpecError
from charrun.spec import Library, Scale, Spec, StageInfo, load_spec, read_spec
from charrun.spec import layers as layers_module
from charrun.spec.sets import parse_set

RATE = {"type": "number", "exclusiveMinimum": 0}
DPO: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "beta": {**RATE, "default": 0.1},
        "rate": RATE,
        "loss": {"type": "string"},
        "on": {"type": "boolean"},
        "steps": {"type": "array", "items": {"type": "integer"}},
        "nested": {"type": "object"},
    },
}
NONE = {"type": "object", "additionalProperties": False}
STAGES = {"prompts": StageInfo(NONE), "dpo": StageInfo(DPO), "sft": StageInfo(DPO)}
PIRATE = Path(__file__).parent / "errors" / "characters" / "pirate.yaml"
LIBRARY = Library({"pirate": PIRATE}, {"mini": Scale("mini", 1, 1, 1, 1, 1), "smoke": Scale("smoke", 1, 1, 1, 1, 1)})
BASE = """\
version: 1
name: base
seed: 7
characters: [pirate]
models: [{teacher: org/teacher, student: org/student}]
scales: [mini]
budget: {usd: 5}
stages: [prompts, {uses: dpo, with: {beta: 0.2, rate: 0.5}}, {uses: dpo, id: again}, sft]
"""

Write = Callable[..., Path]


def load(path: str | Path, sets: Sequence[str] = ()) -> Spec:
    return load_spec(path, stages=STAGES, engines=("local",), templates=(), library=LIBRARY, sets=sets)


def problems(path: str | Path, sets: Sequence[str] = ()) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        load(path, sets)
    return caught.value.problems


def places(told: Sequence[Problem]) -> list[tuple[str, int, int, str]]:
    return [(problem.file, problem.line, problem.column, problem.code) for problem in told]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return Path(name)

    write(BASE, "base.yaml")
    return write


def options(spec: Spec, id: str) -> dict[str, Any]:
    (found,) = (item for item in spec.stages if item.id == id)
    return dict(found.options)


def test_mappings_merge_and_lists_replace(write: Write) -> None:
    spec = load(write("extends: base.yaml\nname: x\nscales: [smoke]\nbudget: {usd: 9}\nstand_ins: {models: {}}\n"))
    assert (spec.name, spec.seeds, spec.budget_usd) == ("x", (7,), 9.0)
    assert [scale.name for scale in spec.scales] == ["smoke"]


def test_a_mapping_over_a_list_changes_its_items(write: Write) -> None:
    spec = load(
        write(
            "extends: base.yaml\n"
            "stages:\n"
            "  dpo: {with: {beta: 0.3}}\n"  # by id, which it has from what it uses
            "  again: {with: {beta: 0.4}, id: later}\n"
            "  sft: {with: {rate: 1}}\n"  # a text is short for {uses: sft}
            "  '0': null\n"
            "models: {'0': {student: {chat: {a: 1}}, scorer: org/scorer}}\n"
        )
    )
    assert [item.id for item in spec.stages] == ["dpo", "later", "sft"]
    assert options(spec, "dpo") == {"beta": 0.3, "rate": 0.5}
    assert options(spec, "later") == {"beta": 0.4}
    assert options(spec, "sft") == {"beta": 0.1, "rate": 1}
    assert spec.models[0].student.name == "org/student" and spec.models[0].student.chat == {"a": 1}


def test_null_removes_what_the_base_has(write: Write) -> None:
    spec = load(write("extends: base.yaml\nbudget: null\nstages: {again: null, dpo: {with: {rate: null}}}\n"))
    assert spec.budget_usd is None
    assert [item.id for item in spec.stages] == ["prompts", "dpo", "sft"]
    assert options(spec, "dpo") == {"beta": 0.2}


def test_bases_have_bases_and_the_nearest_wins(write: Write) -> None:
    write("extends: ../base.yaml\nname: middle\nbudget: {usd: 6}\nx-note: mine\n", "deep/middle.yaml")
    spec = load(write("extends: deep/middle.yaml\nseed: 8\n"))
    assert (spec.name, spec.budget_usd, spec.seeds) == ("middle", 6.0, (8,))


def test_a_shipped_spec_may_be_a_base(write: Write) -> None:
    document = read_spec(write("extends: builtin:pirate-smoke\nname: mine\n")).document
    assert document.data["name"] == "mine" and document.data["scales"] == ["smoke"]
    assert document.node(("scales",)).source.name == "builtin:pirate-smoke"
    middle = read_spec("builtin:pirate-mini-current").document
    assert middle.node(("scales",)).source.name == "builtin:pirate-mini"


def test_files_are_relative_to_the_text_that_names_them(write: Write, tmp_path: Path) -> None:
    text = PIRATE.read_text(encoding="utf-8")
    write(text.replace("id: pirate", "id: ours"), "folder/ours.yaml")
    write(text.replace("id: pirate", "id: mine"), "mine.yaml")
    write(text.replace("id: pirate", "id: set"), "sub/set.yaml")
    write(BASE.replace("[pirate]", "[./ours.yaml]"), "folder/base.yaml")
    assert load(write("extends: folder/base.yaml\n")).characters[0].id == "ours"
    assert load("x.yaml", ["characters=[./sub/set.yaml]"]).characters[0].id == "set"
    (missing,) = problems("x.yaml", ["characters=[./no.yaml]"])
    assert (missing.file, missing.code) == ("--set #1", "SPEC027")
    assert missing.hint == "paths of --set are relative to the working directory"
    write(BASE.replace("[pirate]", "[./no.yaml]"), "folder/base.yaml")
    (missing,) = problems("x.yaml")
    assert missing.message == "character file 'folder/no.yaml': no such file"
    assert missing.file == "folder/base.yaml"


def test_each_problem_is_told_in_the_text_that_has_it(write: Write) -> None:
    write(BASE.replace("beta: 0.2", "betta: 0.2"), "base.yaml")
    path = write("extends: base.yaml\nscales: [minni]\n")
    assert places(problems(path, ["stages.sft.with.rate=-1", "bugdet.usd=1"])) == [
        ("x.yaml", 2, 10, "SPEC033"),
        ("base.yaml", 8, 38, "SPEC012"),
        ("--set #1", 1, 22, "SPEC016"),
        ("--set #2", 1, 1, "SPEC013"),
    ]


def test_a_stage_knows_the_text_that_changed_it_last(write: Write) -> None:
    spec = load(write("extends: base.yaml\nstages: {again: {with: {rate: 1}}}\n"), ["stages.sft.with.rate=2"])
    found = {item.id: item.node.place[:2] for item in spec.stages}
    assert found == {
        "prompts": ("base.yaml", 8),
        "dpo": ("base.yaml", 8),
        "again": ("x.yaml", 2),
        "sft": ("--set #1", 1),
    }


def test_at_most_sixteen_bases_lie_under_each_other(write: Write) -> None:
    write("extends: base.yaml\n", "b0.yaml")
    for number in range(1, 17):
        write(f"extends: b{number - 1}.yaml\n", f"b{number}.yaml")
    assert load("b15.yaml").name == "base"
    (deep,) = problems("b16.yaml")
    assert (deep.code, deep.file) == ("SPEC036", "b0.yaml")


def test_a_base_is_parsed_once_until_it_changes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    parse = layers_module.read_file

    def counted(path: Path, name: str) -> Any:
        read.append(name)
        return parse(path, name)

    monkeypatch.setattr(layers_module, "read_file", counted)
    write(BASE, "once.yaml")
    for number in range(3):
        assert load(write(f"extends: once.yaml\nseed: {number}\n", f"x{number}.yaml")).seeds == (number,)
    assert read.count("once.yaml") == 1
    write(BASE.replace("seed: 7", "seed: 70"), "once.yaml")
    assert load(write("extends: once.yaml\n")).seeds == (70,)


@pytest.mark.parametrize(
    ("base", "code"),
    [("[" * 50_000, "SPEC005"), ("a: &a [x, x]\n" + "".join(f"k{i}: &a [*a, *a]\n" for i in range(40)), "SPEC006"),
     ("x" * (1 << 20) + "x", "SPEC002"), ("a: 1\n---\nb: 1\n", "SPEC007"), ("a: !!python/name:x y\n", "SPEC018")],
)  # fmt: skip
def test_a_hostile_base_or_set_is_refused(write: Write, base: str, code: str) -> None:
    write(base, "hostile.yaml")
    told = problems(write("extends: hostile.yaml\n"))
    assert ("hostile.yaml", code) in [(problem.file, problem.code) for problem in told]
    told = problems("base.yaml", ["x-a=" + base])
    assert ("--set #1", code) in [(problem.file, problem.code) for problem in told]


def test_layers_together_hold_no_more_than_one_file_may(write: Write) -> None:
    write("x-b: 1\nvars: {a: [" + "x, " * 6000 + "]}\nextends: base.yaml\n", "large.yaml")
    (told,) = problems(write("extends: large.yaml\nvars: {b: [" + "x, " * 6000 + "]}\n"))
    assert told.code == "SPEC002"


def test_a_whole_reference_keeps_its_type(write: Write) -> None:
    spec = load(
        write(
            "extends: base.yaml\n"
            "vars: {rate: 1e-4, on: true, steps: [1, 2], nested: {a: {b: x}}, usd: 3, name: sea,\n"
            "       who: '${vars.name}-dog'}\n"
            "name: ${vars.who}\n"
            "budget: {usd: '${vars.usd}'}\n"
            "stages:\n"
            "  dpo:\n"
            "    with: {rate: '${vars.rate}', on: '${vars.on}', steps: '${vars.steps}', nested: '${vars.nested}',\n"
            "           loss: 'at ${vars.rate}, ${vars.on}, ${vars.usd} and $${vars.usd}'}\n"
        )
    )
    assert (spec.name, spec.budget_usd, spec.warnings) == ("sea-dog", 3.0, ())
    assert options(spec, "dpo") == {
        "beta": 0.2, "rate": 1e-4, "on": True, "steps": [1, 2], "nested": {"a": {"b": "x"}},
        "loss": "at 0.0001, true, 3 and ${vars.usd}",
    }  # fmt: skip


def test_variables_merge_like_everything(write: Write) -> None:
    write(BASE.replace("rate: 0.5", "rate: '${vars.rate}'") + "vars: {rate: 0.5}\n", "base.yaml")
    assert options(load("base.yaml"), "dpo")["rate"] == 0.5
    assert options(load(write("extends: base.yaml\nvars: {rate: 0.6}\n")), "dpo")["rate"] == 0.6
    assert options(load("x.yaml", ["vars.rate=0.7"]), "dpo")["rate"] == 0.7


def test_a_wrong_value_of_a_variable_is_told_where_it_is_used(write: Write) -> None:
    path = write("extends: base.yaml\nvars: {rate: -1}\nstages: {dpo: {with: {rate: '${vars.rate}'}}}\n")
    assert places(problems(path)) == [("x.yaml", 3, 29, "SPEC016")]


def test_an_unused_variable_is_a_warning(write: Write) -> None:
    spec = load(write("extends: base.yaml\nvars: {rate: 1}\n"))
    (warning,) = spec.warnings
    assert warning.render() == (
        "x.yaml:2:8 warning SPEC043 the variable 'rate' is used nowhere\n"
        "    2 | vars: {rate: 1}\n"
        "      |        ^^^^\n"
        "      use it as ${vars.rate}, or remove it"
    )
    assert "warnings" not in spec.to_dict()


def test_references_are_in_values_alone(write: Write) -> None:
    told = problems(write("extends: base.yaml\nvars: {a: b}\n${vars.a}: 1\n"))
    assert ("x.yaml", 3, 1, "SPEC013") in places(told)


def test_characters_written_in_the_spec_take_variables(write: Write) -> None:
    traits = "traits: [{trait: 'I like ${vars.what}.', questions: [What?]}]"
    text = f"vars: {{what: tea}}\ncharacters: [{{id: cook, name: Sal, description: Cooks., {traits}}}]\n"
    assert load(write("extends: base.yaml\n" + text)).characters[0].traits[0].trait == "I like tea."


def test_many_mistakes_are_told_in_little_time(write: Write) -> None:
    text = "${vars.y}" * 10_000
    variables = ", ".join(f"v{i}: 1" for i in range(2000))
    wrong = ", ".join(f"'${{vars.w{i}}}'" for i in range(2000))
    told = problems(write(f"extends: base.yaml\nvars: {{{variables}}}\nname: {text}\nx-b: [{wrong}]\n"))
    assert sum(problem.code == "SPEC040" for problem in told) > 2000
    assert problems("base.yaml", ["a." * 400_000 + "=1"])[0].code == "SPEC005"


def test_references_cannot_expand_without_bounds(write: Write) -> None:
    chain = "".join(f"  v{i}: ['${{vars.v{i - 1}}}', '${{vars.v{i - 1}}}']\n" for i in range(1, 60))
    told = problems(write(f"extends: base.yaml\nvars:\n  v0: x\n{chain}"))
    assert told[0].code == "SPEC045"
    text = "".join(f"  v{i}: '${{vars.v{i - 1}}}${{vars.v{i - 1}}}'\n" for i in range(1, 60))
    assert problems(write(f"extends: base.yaml\nvars:\n  v0: xxxxxxxx\n{text}"))[0].code == "SPEC045"
    nest = "".join(f"  v{i}: ['${{vars.v{i - 1}}}']\n" for i in range(1, 90))
    assert problems(write(f"extends: base.yaml\nvars:\n  v0: x\n{nest}"))[0].code == "SPEC045"


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("seed=3", ("seed",), 3),
        ("stages.dpo.with.loss=a=b", ("stages", 1, "with", "loss"), "a=b"),
        ("stages.1.with.rate = 1e-3", ("stages", 1, "with", "rate"), 1e-3),
        ('stand_ins.models."org/model.v1"=org/x', ("stand_ins", "models", "org/model.v1"), "org/x"),
        ('"seed"=3', ("seed",), 3),
        ("scales=[smoke, mini]", ("scales",), ["smoke", "mini"]),
        ("engine.with={a: 1}", ("engine",), {"uses": "local", "with": {"a": 1}}),
        ("stages.prompts.id=first", ("stages", 0), {"uses": "prompts", "id": "first"}),
        ("models.0.student.chat.enable_thinking=false", ("models", 0, "student"),
         {"name": "org/student", "chat": {"enable_thinking": False}}),
        ("x-text=\nline", ("x-text",), "line"),
    ],
)  # fmt: skip
def test_set_changes_one_value(write: Write, text: str, path: tuple[str | int, ...], value: object) -> None:
    write(BASE + "engine: local\nstand_ins: {models: {}}\n")
    document = read_spec("x.yaml", [text]).document
    assert document.problems == ()
    assert document.at(path) == value


def test_set_applies_last_and_in_order(write: Write) -> None:
    spec = load(write("extends: base.yaml\nseed: 8\n"), ["seed=9", "seed=10", "budget=null", "stages.again=null"])
    assert (spec.seeds, spec.budget_usd) == ((10,), None)
    assert [item.id for item in spec.stages] == ["prompts", "dpo", "sft"]


def test_a_set_that_is_no_text_is_a_problem(write: Write) -> None:
    name = os.fsdecode(b"name=\xff")
    assert [problem.code for problem in problems("base.yaml", [name])] == ["SPEC003"]


@given(st.text(max_size=30) | st.text("ab.=\"'[]{}&*!: \n${}", max_size=20))
def test_no_text_of_set_makes_it_fail_otherwise(text: str) -> None:
    try:
        parse_set(text, 1)
    except SpecError as error:
        for problem in error.problems:
            problem.render().encode(errors="replace")


def test_plugin_files_are_known_before_any_plugin_is(write: Write, tmp_path: Path) -> None:
    write(BASE + "plugins: ['${vars.file}', 7]\nvars: {file: ./mine.py}\n", "folder/base.yaml")
    read = read_spec(write("extends: folder/base.yaml\n"))
    (file,) = read.plugin_files
    assert (file.path, file.told) == (tmp_path / "folder" / "mine.py", "folder/mine.py")
    assert file.problem("X", "m").render().startswith("folder/base.yaml:9:11 X m\n")
    with pytest.raises(SpecError, match="SPEC014"):
        load(read.document.name)
    write("x = 1\n", "folder/mine.py")
    write((tmp_path / "folder" / "base.yaml").read_text().replace(", 7", ""), "folder/base.yaml")
    spec = load("x.yaml")
    assert spec.plugins[0].path == tmp_path / "folder" / "mine.py"
    assert spec.to_dict()["plugins"] == [{"file": "mine.py", "sha256": spec.plugins[0].sha256}]
