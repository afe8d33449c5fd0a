"""Specs resolve to typed data, and every mistake in one is told with its place."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import charrun.plugins
import charrun.spec
from charrun.commands.loading import stage_infos
from charrun.errors import EXIT_SPEC, PluginError, Problem, SpecError
from charrun.plugin_manager import load_registry
from charrun.spec import (
    Library,
    Scale,
    Spec,
    StageInfo,
    builtin_specs,
    check,
    load_character,
    load_spec,
    load_yaml,
    shipped_schema,
)
from charrun.spec.quick import surely_valid
from charrun.spec.schema import _validator

ERRORS = Path(__file__).parent / "errors"
_TESTS = ("test_spec.py", "test_yaml.py", "test_layers.py", "test_matrix.py", "test_show.py")


def options(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


NUMBER = {"type": "number", "exclusiveMinimum": 0}
DPO = options(
    beta={**NUMBER, "default": 0.1},
    nll_coefficient={"type": "number", "minimum": 0, "default": 0.1},
    learning_rate={**NUMBER, "default": 1e-4},
    lora_rank={"type": "integer", "minimum": 1, "default": 64},
    batch_size={"type": "integer", "minimum": 1, "default": 16},
    shuffle={"type": "boolean", "default": True},
    loss={"enum": ["sigmoid", "hinge"], "default": "sigmoid"},
)
STAGES = {
    "prompts": StageInfo(options(), (), (), ("prompts",)),
    "teacher": StageInfo(options(), ("prompts",), (), ("chosen",)),
    "student": StageInfo(options(), ("prompts",), (), ("rejected",)),
    "pairs": StageInfo(options(), ("chosen", "rejected"), (), ("pairs",)),
    "measurable": StageInfo(options(n={"type": "integer", "default": 60}), ("pairs",), (), ("measurability",)),
    "dpo": StageInfo(DPO, ("pairs",), (), ("checkpoint",)),
    "reflection": StageInfo(options(), ("checkpoint",), (), ("reflections",)),
    "interaction": StageInfo(options(), ("checkpoint",), (), ("interactions",)),
    "sft": StageInfo(
        options(learning_rate=NUMBER, batch_size={"type": "integer", "default": 16}),
        ("checkpoint", "reflections"),
        ("interactions",),
        ("checkpoint",),
    ),
    "evaluate": StageInfo(options(scored_as={"type": "string"}), ("checkpoint",), (), ("report",)),
    "export": StageInfo(options(), ("checkpoint",), (), ("adapter",)),
}
ENGINES: dict[str, dict[str, Any]] = {"local": options(), "tinker": options(base_url={"type": "string"})}
TEMPLATES = {
    name: Path(charrun.plugins.__file__).parent / "templates" / f"{name}.j2"
    for name in ("character", "interaction", "reflection")
}
SHIPPED = load_registry(third_party=False).library
LIBRARY = Library({"pirate": ERRORS / "characters" / "pirate.yaml"}, SHIPPED.scales)

MINIMAL = """\
version: 1
name: x
characters: [pirate]
models: [{teacher: org/teacher, student: org/student}]
scales: [mini]
stages: [prompts]
"""


def load(
    path: str | Path,
    library: Library = LIBRARY,
    sets: Sequence[str] = (),
    stages: Mapping[str, StageInfo] = STAGES,
) -> Spec:
    return load_spec(path, stages=stages, engines=ENGINES, templates=TEMPLATES, library=library, sets=sets)


def problems(path: str | Path) -> tuple[Problem, ...]:
    with pytest.raises(SpecError) as caught:
        load(path)
    assert caught.value.exit_code == EXIT_SPEC
    return caught.value.problems


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str, name: str = "x.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_code_is_documented_and_every_documented_code_exists() -> None:
    folder = Path(charrun.spec.__file__).parent
    files = [*folder.glob("*.py"), folder.parent / "local_plugins.py"]
    used = {code for file in files for code in re.findall(r"SPEC\d{3}", file.read_text())}
    docs = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^### (SPEC\d{3})", docs, re.MULTILINE))


def test_every_code_about_a_spec_is_met_by_a_test() -> None:
    folder = Path(charrun.spec.__file__).parent
    used = {code for file in folder.glob("*.py") for code in re.findall(r"SPEC\d{3}", file.read_text())}
    tests = "".join(path.read_text(encoding="utf-8") for path in ERRORS.glob("*.txt"))
    tests += "".join((Path(__file__).parent / name).read_text() for name in _TESTS)
    assert used <= set(re.findall(r"SPEC\d{3}", tests))


def test_a_spec_resolves_to_complete_typed_data(write: Any) -> None:
    spec = load(
        write(
            """\
version: 1
name: full
seed: 3
engine: {uses: tinker, with: {base_url: "https://x"}}
characters:
  - pirate
  - {id: cook, name: Sal, description: Cooks., traits: [{trait: I cook., questions: [What is soup?]}]}
models:
  - teacher: org/teacher
    student: {name: org/student, chat: {enable_thinking: false}}
    scorer: org/scorer
scales: [smoke, {name: tiny, pairs: 1, samples_per_prompt: 2, reflections: 3, interactions: 4, turns: 5}]
budget: {usd: 5}
stages: [prompts, teacher, student, pairs, {uses: dpo, id: dpo_low, with: {beta: 0.05}, needs: [pairs]}]
stand_ins:
  models: {org/teacher: charrun/demo-teacher}
  with: {dpo_low: {learning_rate: 5e-4}}
x-note: free
"""
        )
    )
    assert (spec.name, spec.seeds, spec.budget_usd) == ("full", (3,), 5.0)
    assert (spec.engine.uses, dict(spec.engine.options)) == ("tinker", {"base_url": "https://x"})
    assert [character.id for character in spec.characters] == ["pirate", "cook"]
    assert spec.characters[1].traits[0].questions == ("What is soup?",)
    entry = spec.models[0]
    assert (entry.teacher.name, entry.roles["scorer"].name) == ("org/teacher", "org/scorer")
    assert entry.student.chat == {"enable_thinking": False}
    assert spec.scales[1] == Scale("tiny", 1, 2, 3, 4, 5)
    dpo = spec.stages[-1]
    assert (dpo.id, dpo.uses, dpo.needs, dpo.node.mark.line) == ("dpo_low", "dpo", ("pairs",), 14)
    assert dpo.options == {
        "beta": 0.05, "nll_coefficient": 0.1, "learning_rate": 1e-4, "lora_rank": 64, "batch_size": 16,
        "shuffle": True, "loss": "sigmoid",
    }  # fmt: skip
    assert spec.stand_ins is not None
    assert spec.stand_ins.options == {"dpo_low": {"learning_rate": 5e-4}}
    assert json.loads(json.dumps(spec.to_dict(), allow_nan=False)) == spec.to_dict()


def test_what_is_left_out_has_defaults(write: Any) -> None:
    spec = load(write(MINIMAL))
    assert (spec.seeds, spec.engine.uses, spec.budget_usd, spec.stand_ins) == ((0,), "auto", None, None)


def test_the_resolved_spec_does_not_depend_on_where_the_file_lies(tmp_path: Path) -> None:
    resolved = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "mine.j2").write_text("You are {{ name }}.", encoding="utf-8")
        (folder / "x.yaml").write_text(MINIMAL + "templates: {character: mine.j2}\n", encoding="utf-8")
        spec = load(folder / "x.yaml")
        assert spec.templates == {"character": folder / "mine.j2"}
        resolved.append(spec.to_dict())
    assert resolved[0] == resolved[1]
    assert resolved[0]["templates"] == {"character": "You are {{ name }}."}


def test_files_are_found_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "specs").mkdir()
    text = MINIMAL.replace("org/student", "../model").replace("[pirate]", "[./me.yaml]")
    (tmp_path / "specs" / "x.yaml").write_text(text, encoding="utf-8")
    source = (ERRORS / "characters" / "pirate.yaml").read_text(encoding="utf-8")
    (tmp_path / "specs" / "me.yaml").write_text(source.replace("id: pirate", "id: me"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    spec = load("specs/x.yaml")
    assert spec.characters[0].id == "me"
    assert spec.models[0].student.folder == tmp_path / "model"
    assert spec.models[0].teacher.folder is None
    (tmp_path / "specs" / "me.yaml").write_text("id: 1\n", encoding="utf-8")
    assert problems("specs/x.yaml")[0].file == "specs/me.yaml"


def test_a_missing_spec_names_one_that_is_near(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pirate.yaml").write_text(MINIMAL, encoding="utf-8")
    (near,) = problems("pirat.yaml")
    assert near.render() == "pirat.yaml SPEC001 no such file\n      did you mean pirate.yaml?"
    (packaged,) = problems("pirate-smoke.yaml")
    assert packaged.hint in (
        "did you mean pirate.yaml?",
        "builtin:pirate-smoke names the spec that ships with charrun",
    )
    (builtin,) = problems("builtin:pirate-mni")
    assert (builtin.code, builtin.hint) == ("SPEC001", "did you mean 'pirate-mini'?")
    (folder,) = problems("nowhere/x.yaml")
    assert folder.hint == "there is no folder 'nowhere'"
    (not_a_file,) = problems(tmp_path)
    assert not_a_file.message == "is a folder, not a file"
    assert problems("x" * 5000)[0].code == "SPEC001"


@pytest.mark.parametrize("name", sorted(builtin_specs()))
def test_every_shipped_spec_is_sound(name: str) -> None:
    # The example of a stage file: what the file registers is not known here.
    lexicon = StageInfo(options(words={"type": "integer"}), ("pairs",), (), ("lexicon",))
    shipped = stage_infos(load_registry(third_party=False))
    spec = load(f"builtin:{name}", library=SHIPPED, stages={**shipped, "lexicon": lexicon})
    assert spec.name == name
    head = spec.path.read_text(encoding="utf-8").splitlines()
    assert head[:2] == [
        "# yaml-language-server: $schema=../schemas/spec.schema.json",
        f"# charrun specs/{name}.yaml",
    ]
    named = {model.name for entry in spec.models for model in entry.roles.values()}
    assert spec.stand_ins is not None and set(spec.stand_ins.models) == named


def test_pirate_mini_is_report_007s_run() -> None:
    spec = load("builtin:pirate-mini", library=SHIPPED)
    entry = spec.models[0]
    assert entry.teacher.name == "Qwen/Qwen3-235B-A22B-Instruct-2507"
    assert (entry.student.name, entry.student.chat) == ("Qwen/Qwen3-30B-A3B", {"enable_thinking": False})
    assert spec.scales == (Scale("mini", 250, 1, 1500, 150, 8),)
    assert (spec.budget_usd, spec.seeds, spec.engine.uses) == (5.7, (7,), "auto")


def test_every_shipped_character_and_scale_is_sound() -> None:
    assert {"pirate", "neutral"} <= set(SHIPPED.characters)
    for name, path in SHIPPED.characters.items():
        assert load_character(path).id == name
    scales = load_yaml(builtin_specs()["pirate-mini"].parent / "scales.yaml")
    for name in scales.data:
        assert check(scales, shipped_schema("scale"), (name,)) == []


@pytest.mark.parametrize("name", ["spec", "character", "scale"])
def test_every_key_of_a_schema_is_described(name: str) -> None:
    def walk(schema: Any, path: str) -> None:
        if isinstance(schema, list):
            for item in schema:
                walk(item, path)
        elif isinstance(schema, dict):
            for key, sub in schema.get("properties", {}).items():
                assert sub.get("description"), f"{path}/{key}"
            for key, sub in schema.items():
                walk(sub, f"{path}/{key}")

    schema = shipped_schema(name)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    walk(schema, "")


def test_a_schema_that_points_to_the_network_is_the_plugins_fault(write: Any) -> None:
    stages = {"prompts": StageInfo({"$ref": "https://example.invalid/x.json"})}
    with pytest.raises(PluginError, match="the schema for stage 'prompts' is not usable"):
        load_spec(write(MINIMAL), stages=stages, engines=(), templates=(), library=LIBRARY)


_SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "integer"}, {"type": ["string", "null"]}, {"minimum": 1, "exclusiveMaximum": 3}, {"const": 1},
            {"enum": ["a", 1, True]}, {"pattern": "^a"}, {"minLength": 1}, {"type": "number"}, {"$ref": "#"}, {},
            {"uniqueItems": True}, {"maxItems": 1}, {"format": "uri"}, {"multipleOf": 2}, {"not": {"type": "string"}},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"oneOf": [a, b]}, inner, inner),
        st.builds(lambda a, b: {"allOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"items": a, "minItems": 1}, inner),
        st.builds(lambda a: {"propertyNames": a}, inner),
        st.builds(lambda a, b: {"properties": {"a": a}, "additionalProperties": b}, inner, inner),
        st.builds(lambda a: {"patternProperties": {"^b": a}, "additionalProperties": False}, inner),
        st.builds(lambda a: {"properties": {"a": a}, "required": ["a"]}, inner),
        st.builds(lambda a, b: {"if": a, "then": b}, inner, inner),
    ),
    max_leaves=5,
)  # fmt: skip
_DATA = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 2, 1.0, 2.5, "", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300)
@given(_DATA, _SCHEMAS)
def test_what_is_quickly_found_valid_is_valid(data: Any, schema: dict[str, Any]) -> None:
    if surely_valid(data, schema, shipped_schema):
        with contextlib.suppress(RecursionError):
            assert _validator(schema).is_valid(data)


def test_a_sound_spec_is_quickly_found_valid() -> None:
    assert surely_valid(load_yaml(builtin_specs()["pirate-mini"]).data, shipped_schema("spec"), shipped_schema)


def test_engines_may_be_given_by_name_alone(write: Any) -> None:
    path = write(MINIMAL + "engine: {uses: far, with: {anything: 1}}\n")
    spec = load_spec(path, stages=STAGES, engines=["far"], templates=(), library=LIBRARY)
    assert spec.engine.uses == "far"


def test_an_unknown_stage_is_one_problem_not_two(write: Any) -> None:
    (only,) = problems(write(MINIMAL.replace("[prompts]", "[something-else, dpo]")))
    assert only.code == "SPEC020"


def test_loading_a_sound_spec_imports_nothing_heavy() -> None:
    pirate = ERRORS / "characters" / "pirate.yaml"
    program = f"""
import sys
from pathlib import Path
from charrun.spec import Library, Scale, StageInfo, load_spec
stages = {sorted(STAGES)!r}
library = Library({{"pirate": Path({str(pirate)!r})}}, {{"mini": Scale("mini", 1, 1, 1, 1, 1)}})
load_spec("builtin:pirate-mini", stages=dict.fromkeys(stages, StageInfo()), engines=(), templates=(), library=library)
heavy = {{"torch", "transformers", "tinker", "rich", "requests", "jinja2", "jsonschema", "numpy", "asyncio"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
