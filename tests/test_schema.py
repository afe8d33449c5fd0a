"""`charrun schema`: what editors are told agrees with what the validator says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, SPECS, charrun
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from charrun.commands.schema import every_schema, schema_text
from charrun.errors import PluginError, SpecError
from charrun.plugin_manager import Registry, load_registry
from charrun.spec import builtin_specs, load_yaml
from charrun.spec.editor import Choice, Vocabulary, options_schema, published
from charrun.spec.loosen import loosened, sentence

ERRORS = REPOSITORY / "tests" / "errors"
SEEN_BY_SCHEMAS = {"SPEC012", "SPEC013", "SPEC014", "SPEC015", "SPEC016", "SPEC017", "SPEC020", "SPEC025", "SPEC026"}
STAGES = sorted(load_registry(third_party=False).stages)


@cache
def registry() -> Registry:
    return load_registry(third_party=False)


@cache
def spec_schema() -> Any:
    return json.loads(schema_text(registry()))


def accepts(schema: Any, value: Any) -> bool:
    return bool(Draft7Validator(schema).is_valid(value))


def shipped(name: str) -> Any:
    return load_yaml(builtin_specs()[name]).data


def test_the_committed_schemas_are_what_the_command_writes() -> None:
    for name, text in every_schema(registry()).items():
        assert (REPOSITORY / "schemas" / name).read_text(encoding="utf-8") == text, (
            f"run: charrun schema --no-plugins --all schemas ({name})"
        )


@pytest.mark.parametrize("name", ["spec", "character", "scale"])
def test_a_schema_is_sound_and_needs_no_other_file(name: str) -> None:
    schema = json.loads(schema_text(registry(), name))
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(schema)
    for ref in references(schema):
        target = schema
        for step in ref.removeprefix("#/").split("/"):
            target = target[step]


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from references(item)
    elif isinstance(schema, dict):
        if "$ref" in schema:
            assert schema["$ref"].startswith("#/definitions/")
            yield schema["$ref"]
        for item in schema.values():
            yield from references(item)


@pytest.mark.parametrize("name", sorted(builtin_specs()))
def test_every_shipped_spec_is_accepted(name: str) -> None:
    errors = [(error.json_path, error.message) for error in Draft7Validator(spec_schema()).iter_errors(shipped(name))]
    assert errors == []


def test_every_shipped_character_is_accepted() -> None:
    schema = json.loads(schema_text(registry(), "character"))
    for path in (SPECS / "characters").glob("*.yaml"):
        assert accepts(schema, load_yaml(path).data), path


def is_yaml(path: Path) -> bool:
    try:
        load_yaml(path)
    except SpecError:
        return False
    return True


def cases() -> list[str]:
    """The malformed specs whose own text breaks a rule that a schema can hold.

    Where a spec extends another, it may be the other one's text, or what is left of both.
    """
    found = []
    for path in sorted(ERRORS.glob("*.yaml")):
        if re.search(rb"^extends:", path.read_bytes(), re.MULTILINE):
            continue
        told = path.with_suffix(".txt").read_text(encoding="utf-8")
        codes = set(re.findall(rf"^{re.escape(path.name)}:\d+:\d+ (SPEC\d+)", told, re.MULTILINE))
        # A schema takes 16.0 for a whole number, and does not know the values of variables.
        unseen = re.search(r"whole number, got \d+\.0", told) or b"${" in path.read_bytes()
        if codes & SEEN_BY_SCHEMAS and is_yaml(path) and not unseen:
            found.append(path.stem)
    return found


@pytest.mark.parametrize("case", cases())
def test_a_malformed_spec_is_refused_by_the_schema_too(case: str) -> None:
    assert not accepts(spec_schema(), load_yaml(ERRORS / f"{case}.yaml").data)


def with_options(name: str, options: Any) -> Any:
    spec = deepcopy(shipped("pirate-mini"))
    spec["stages"].append({"uses": name, "id": "another", "with": options})
    return spec


def with_stand_in(name: str, options: Any) -> Any:
    spec = deepcopy(shipped("pirate-mini"))
    spec["stand_ins"]["with"] = {name: options}
    return spec


def with_patch(name: str, options: Any) -> Any:
    return {"extends": "builtin:pirate-mini", "stages": {name: {"with": options}}}


JUNK = st.one_of(
    st.sampled_from([-1, 0, 0.5, 1, 1.5, 2, 16, 64, 100, 1000, 1e-4, True, "", "auto", "constitution", "x"]),
    st.just(None),
    st.lists(st.sampled_from(["constitution", "general", "", 1]), max_size=2),
    st.just({}),
)


def _may_be_patched(option: Any) -> bool:
    """Whether a mapping of nothing may be laid over an option's value."""
    return option.get("type") == "array" or (option.get("type") == "object" and not option.get("minProperties"))


@pytest.mark.parametrize("name", STAGES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stages_options_are_accepted_exactly_where_its_own_schema_accepts_them(name: str, data: Any) -> None:
    own = registry().stages[name].options_schema
    keys = st.sampled_from([*own["properties"], "betta"])
    options = data.draw(st.dictionaries(keys, JUNK, max_size=3))
    sound = accepts(own, options)
    assert accepts(spec_schema(), with_options(name, options)) == sound
    assert accepts(spec_schema(), with_stand_in(name, options)) == sound
    # In a patch null removes, and a mapping changes the items of a list.
    patched = {key: value for key, value in options.items() if key not in own["properties"] or value not in (None, {})}
    wrong = any(value == {} and not _may_be_patched(own["properties"].get(key, {})) for key, value in options.items())
    assert accepts(spec_schema(), with_patch(name, options)) == (accepts(own, patched) and not wrong)


def test_a_variable_may_stand_for_any_value() -> None:
    spec = with_options("dpo", {"beta": "${vars.b}", "lora_rank": "${vars.r}"})
    spec |= {"vars": {"b": 0.1, "r": 64, "s": 7}, "seed": "${vars.s}", "name": "run-${vars.s}", "scales": ["${vars.x}"]}
    assert accepts(spec_schema(), spec)
    assert not accepts(spec_schema(), with_options("dpo", {"beta": "0.1"}))


def test_a_spec_that_extends_another_needs_nothing_and_may_remove_and_patch() -> None:
    patch: dict[str, Any] = {
        "extends": "./base.yaml",
        "budget": None,
        "stages": {"dpo": {"with": {"beta": None}}, "sft": None, "mine": {"with": {"any": 1}}},
    }
    assert accepts(spec_schema(), patch)
    assert accepts(spec_schema(), {"extends": "./base.yaml", "stages": ["prompts", {"uses": "dpo"}]})
    assert not accepts(spec_schema(), {**patch, "bugdet": None})
    assert not accepts(spec_schema(), {**patch, "stages": {"dpo": {"wiht": {}}}})
    assert not accepts(spec_schema(), {**patch, "stages": {"dpo": {"uses": "sft", "with": {"beta": 1}}}})
    del patch["extends"]
    assert not accepts(spec_schema(), patch)


def test_stages_of_a_specs_own_files_are_not_called_unknown() -> None:
    spec = deepcopy(shipped("pirate-mini"))
    spec["stages"] += ["of_my_own", {"uses": "of_my_own", "id": "second", "with": {"any": 1}}]
    assert not accepts(spec_schema(), spec)
    spec["plugins"] = ["./my_stage.py"]
    assert accepts(spec_schema(), spec)
    spec["stages"].append({"uses": "dpo", "id": "wrong", "with": {"betta": 1}})
    assert not accepts(spec_schema(), spec)


def test_an_item_that_is_called_like_another_stage_has_its_own_options() -> None:
    spec = deepcopy(shipped("pirate-mini"))
    spec["stages"].append({"uses": "sft", "id": "dpo", "with": {"learning_rate": 1e-5}})
    spec["stand_ins"]["with"] = {"dpo": {"grad_clip_norm": 1}}
    assert accepts(spec_schema(), spec)


def test_names_are_offered_with_what_they_stand_for() -> None:
    found = [
        (known["enum"], known["enumDescriptions"])
        for known in walk(spec_schema())
        if "enumDescriptions" in known and "dpo" in known["enum"]
    ]
    assert found
    for names, descriptions in found:
        assert dict(zip(names, descriptions, strict=True)) == {
            name: stage.summary for name, stage in registry().stages.items()
        }


def walk(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, list):
        for item in schema:
            yield from walk(item)
    elif isinstance(schema, dict):
        yield schema
        for item in schema.values():
            yield from walk(item)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {"description": "Pull.", "type": "number", "exclusiveMinimum": 0, "default": 0.1},
            "Pull (a number above 0; 0.1 if left out).",
        ),
        (
            {"description": "share", "type": "number", "minimum": 0, "maximum": 1},
            "Share (a number of at least 0 and of at most 1).",
        ),
        ({"description": "rank", "enum": [1, 2], "default": 2}, "Rank (one of 1, 2; 2 if left out)."),
        ({"description": "on", "type": "boolean", "default": False}, "On (true or false; false if left out)."),
        (
            {"description": "where", "type": "array", "default": ["a", {"b": None}]},
            "Where ([a, {b: null}] if left out).",
        ),
        ({"description": "a name", "type": "string"}, "A name."),
    ],
)
def test_a_description_tells_range_and_default_in_one_sentence(schema: dict[str, Any], expected: str) -> None:
    assert sentence(schema) == expected


def vocabulary_of(options: dict[str, Any]) -> Vocabulary:
    return Vocabulary({"mine": Choice("is mine", options)}, {}, {"pirate": ""}, {"mini": ""}, {}, ["builtin:x"], {}, {})


def test_a_plugins_schema_keeps_its_references_and_choices() -> None:
    options = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "https://example.invalid/mine.json",
        "type": "object",
        "additionalProperties": False,
        "required": ["size"],
        "properties": {
            "size": {"description": "how large", "$ref": "#/definitions/size"},
            "mode": {"oneOf": [{"type": "integer"}, {"const": "off"}]},
        },
        "definitions": {"size": {"type": "integer", "minimum": 1}},
    }
    schema = published("spec", vocabulary_of(options))
    Draft7Validator.check_schema(schema)
    assert not any("example.invalid" in str(part.get("$id")) for part in walk(schema))
    spec = shipped("pirate-mini") | {"scales": ["mini"], "characters": ["pirate"], "engine": "auto"}
    del spec["stand_ins"]
    for chosen, sound in (
        ({"size": 1}, True),
        ({"size": 0}, False),
        ({"size": 1, "mode": "off"}, True),
        ({"size": 1, "mode": "on"}, False),
        ({"size": "${vars.n}", "mode": "${vars.m}"}, True),
        ({}, False),
    ):
        assert accepts(schema, {**spec, "stages": [{"uses": "mine", "with": chosen}]}) == sound, chosen
    stands_in = {"models": {}, "with": {"mine": {"mode": 1}}}
    assert accepts(schema, {**spec, "stages": ["mine"], "stand_ins": stands_in})
    own = options_schema("mine", options)
    assert accepts(own, {"size": 1}) and not accepts(own, {"size": 0})


def test_a_schema_that_leads_elsewhere_is_the_plugins_fault() -> None:
    options = {"type": "object", "properties": {"a": {"$ref": "https://example.invalid/a.json"}}}
    with pytest.raises(PluginError, match=r"the schema of stage 'mine' refers to 'https://example.invalid/a.json'"):
        published("spec", vocabulary_of(options))


def test_what_accepts_anything_still_does_after_loosening() -> None:
    for schema in (True, {}, {"properties": {"a": True}}):
        for patch in (False, True):
            assert accepts(loosened(schema, patch), {"a": 1})


def test_the_command_writes_compares_and_prints(tmp_path: Path) -> None:
    target = tmp_path / "new" / "spec.schema.json"
    written = charrun("schema", "--no-plugins", "-o", target)
    assert (written.code, written.out) == (0, "") and f"wrote {target}" in written.err
    assert target.read_text(encoding="utf-8") == schema_text(registry())
    assert charrun("schema", "--no-plugins", "--check", target).code == 0
    target.write_text("{}\n", encoding="utf-8")
    stale = charrun("schema", "--no-plugins", "--check", target)
    assert stale.code == 1 and f"charrun schema --no-plugins -o {target}" in stale.err
    assert charrun("schema", "--check", tmp_path / "none.json").code == 1


def test_one_stages_options_can_be_had_alone() -> None:
    printed = charrun("schema", "--no-plugins", "--stage", "dpo")
    schema = json.loads(printed.out)
    assert schema["properties"]["beta"]["default"] == 0.1
    assert "effective scale is 32 / rank" in schema["properties"]["lora_rank"]["description"]
    assert accepts(schema, {"beta": 0.2}) and not accepts(schema, {"betta": 0.2})
    wrong = charrun("schema", "--no-plugins", "--stage", "dpoo")
    assert wrong.code == 2 and "did you mean 'dpo'?" in wrong.err
    assert charrun("schema", "-o", "a", "--check", "b").code == 2


def test_installed_plugins_take_part_unless_told_otherwise(tmp_path: Path) -> None:
    info = tmp_path / "charrun_wordcount-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: charrun-wordcount\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[charrun]\nwordcount = charrun_wordcount\n")
    source = REPOSITORY / "tests" / "plugin_package" / "charrun_wordcount.py"
    (tmp_path / "charrun_wordcount.py").write_text(source.read_text())
    env = {"PYTHONPATH": os.fspath(tmp_path)}
    schema = json.loads(charrun("schema", env=env).out)
    item = {"uses": "wordcount", "with": {"side": "rejected"}}
    spec = {**shipped("pirate-mini"), "stages": [item]}
    assert accepts(schema, spec)
    assert not accepts(schema, {**spec, "stages": [{**item, "with": {"side": "both"}}]})
    assert not accepts(json.loads(charrun("schema", "--no-plugins", env=env).out), spec)
