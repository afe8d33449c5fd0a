"""Whatever a spec holds, it is loaded or refused in words; the quick check says yes only where the slow one does."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz_inputs
import pytest
import yaml
from fuzz_spec import Fuzz, hostile_times
from hypothesis import given, settings
from hypothesis import strategies as st

from charrun.plugin_manager import load_registry
from charrun.spec import builtin_specs, load_yaml, shipped_schema
from charrun.spec.document import UNPRINTABLE
from charrun.spec.quick import surely_valid
from charrun.spec.schema import _validator_class
from charrun.spec.yaml import parse_yaml


@pytest.fixture
def fuzz(tmp_path: Path) -> Iterator[Fuzz]:
    yield Fuzz.begin(tmp_path)


def test_two_thousand_mutated_specs_break_no_rule(fuzz: Fuzz) -> None:
    fuzz.run(0, range(2_000))
    assert not fuzz.finds, fuzz.finds[0][1]
    assert len(fuzz.outcomes) > 30 and fuzz.outcomes["sound"] > 15


@pytest.mark.slow
def test_five_thousand_mutated_specs_break_no_rule(fuzz: Fuzz) -> None:
    fuzz.run(0, range(5_000))
    assert not fuzz.finds, fuzz.finds[0][1]
    assert len(fuzz.outcomes) > 30 and fuzz.outcomes["sound"] > 30


@pytest.mark.faults
def test_twenty_thousand_mutated_specs_break_no_rule(fuzz: Fuzz) -> None:
    fuzz.run(1, range(20_000))
    assert not fuzz.finds, fuzz.finds[0][1]


def test_hostile_files_are_refused(fuzz: Fuzz) -> None:
    codes = {name: code for name, (_, code) in hostile_times(fuzz).items()}
    assert codes.pop("a million digits") == "SPEC015"
    refusals = {"SPEC002", "SPEC003", "SPEC004", "SPEC005", "SPEC006", "SPEC007", "SPEC018", "SPEC045"}
    assert set(codes.values()) == refusals


def test_an_input_is_the_same_whenever_it_is_made(fuzz: Fuzz) -> None:
    for number in range(200):
        assert fuzz_inputs.make(fuzz.corpus, 3, number) == fuzz_inputs.make(fuzz.corpus, 3, number)


# Line breaks of YAML 1.1 that are none in JSON, and the byte order mark, are for the other tests.
_TEXT = st.text(max_size=20).filter(
    lambda text: not UNPRINTABLE.search(text) and not set("\x85\u2028\u2029\ufeff") & set(text)
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(1 - (1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
)
_DATA = st.recursive(
    _SCALARS | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_TEXT, _DATA, min_size=1, max_size=4), st.booleans(), st.booleans())
def test_what_is_written_as_yaml_is_read_as_the_same_data(data: dict[str, Any], flow: bool, wide: bool) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=None if flow else 2)
    read = parse_yaml(text.encode(), Path("x.yaml"), "x.yaml")
    assert (read.problems, read.data) == ((), data)
    # Every text in quotes: which plain words are numbers differs between YAML 1.1, which is written, and 1.2.
    text = yaml.dump(data, Dumper=_Quoting, default_flow_style=flow, allow_unicode=wide)
    read = parse_yaml(text.encode(), Path("x.yaml"), "x.yaml")
    assert (read.problems, read.data) == ((), data)


class _Quoting(yaml.SafeDumper):
    """Writes texts in quotes, numbers as YAML 1.2 has them, and nothing as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))
_Quoting.add_representer(float, lambda dumper, n: dumper.represent_scalar("tag:yaml.org,2002:float", repr(n)))


def schemas() -> dict[str, Any]:
    registry = load_registry(third_party=False)
    plugins = {**registry.stages, **registry.engines}
    return {"spec": shipped_schema("spec")} | {name: plugin.options_schema for name, plugin in plugins.items()}


SCHEMAS = schemas()
SPECS = [load_yaml(path).data for path in builtin_specs().values()]


def slow_check(schema: Any, data: Any) -> bool:
    from charrun.spec.schema import _registry

    return bool(_validator_class()(schema, registry=_registry()).is_valid(data))


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 1 << 40))
def test_what_is_quickly_valid_is_valid_among_mutated_specs(seed: int) -> None:
    maker = mutating(seed)
    spec = json.loads(json.dumps(maker.random.choice(SPECS)))
    maker.change(spec)
    if surely_valid(spec, SCHEMAS["spec"], shipped_schema):
        assert slow_check(SCHEMAS["spec"], spec), spec


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 1 << 40))
def test_what_is_quickly_valid_is_valid_by_mutated_schemas(seed: int) -> None:
    """Schemas of options, in which keywords and limits are changed, with options near to their defaults."""
    maker = mutating(seed)
    schema = json.loads(json.dumps(maker.random.choice(list(SCHEMAS.values()))))
    properties = schema.get("properties", {})
    options = {
        key: sub.get("default", maker.value(1)) for key, sub in properties.items() if maker.random.random() < 0.5
    }
    for _ in range(maker.random.randint(0, 3)):
        change_schema(maker, schema)
    if maker.random.random() < 0.5:
        maker.change(options)
    try:
        _validator_class().check_schema(schema)
    except Exception:
        return
    try:
        quick = surely_valid(options, schema, shipped_schema)
        assert not quick or slow_check(schema, options), (options, schema)
    except RecursionError:
        assert not quick


def mutating(seed: int) -> Any:
    corpus = fuzz_inputs.Corpus(
        (b"",), tuple(SPECS), tuple(sorted(set(_KEYWORDS) | {"a", "pirate", "mini", "dpo", "x-a"}))
    )
    return fuzz_inputs._Maker(corpus, random.Random(seed))


_KEYWORDS: dict[str, list[Any]] = {
    "type": ["string", "number", "integer", "boolean", "array", "object", "null", ["integer", "null"], ["string"]],
    "minimum": [0, 1, 0.5, -1], "maximum": [1, 16, 0.5], "exclusiveMinimum": [0, 1], "exclusiveMaximum": [1, 2.5],
    "minLength": [0, 1, 3], "maxLength": [0, 1, 3], "minItems": [0, 1, 2], "maxItems": [0, 1],
    "uniqueItems": [True, False], "minProperties": [0, 1, 3], "maxProperties": [0, 1],
    "enum": [[1, 2], ["a", None], [True], [[1]], [1.0]], "const": [1, 1.0, True, None, "a", {"a": 1}, [1]],
    "pattern": ["^a", "a$", "x|^$"], "required": [["a"], [], ["beta"]],
    "additionalProperties": [False, True, {"type": "integer"}],
    "items": [{"type": "string"}, True, [{"type": "null"}]],
    "properties": [{"a": {"type": "integer"}}, {"a": False}, {}], "patternProperties": [{"^a": {"type": "null"}}, {}],
    "propertyNames": [{"minLength": 2}, {"pattern": "^[a-z]+$"}, False], "not": [{}, {"type": "string"}],
    "anyOf": [[{"type": "integer"}, {"minLength": 1}], [{"const": 1}]],
    "allOf": [[{"type": "number"}, {"minimum": 1}]], "oneOf": [[{"type": "number"}, {"type": "integer"}]],
    "if": [{"type": "object"}], "then": [{"required": ["a"]}],
    "$ref": ["#", "#/definitions/a", "#/properties/beta", "scale.schema.json", "#/x~1y"],
    "definitions": [{"a": {"type": "integer"}, "x~1y": {}, "x/y": False}], "dependencies": [{"a": ["b"]}],
    "contains": [{"const": 1}], "multipleOf": [2, 0.5], "format": ["date", "email"], "default": [None, 1],
    "title": ["t"], "additionalItems": [False], "$id": ["http://x/y.json", "#a"],
}  # fmt: skip


def change_schema(maker: Any, schema: Any) -> None:
    """Set or remove a keyword somewhere in a schema."""
    places = [schema]
    for place in places:
        for key in ("properties", "definitions", "patternProperties"):
            held = place.get(key)
            places += [sub for sub in held.values() if isinstance(sub, dict)] if isinstance(held, dict) else []
        for key in ("items", "additionalProperties", "propertyNames"):
            places += [place[key]] if isinstance(place.get(key), dict) else []
    place = maker.random.choice(places)
    if place and maker.random.random() < 0.25:
        del place[maker.random.choice(list(place))]
    else:
        keyword = maker.random.choice(list(_KEYWORDS))
        place[keyword] = json.loads(json.dumps(maker.random.choice(_KEYWORDS[keyword])))
