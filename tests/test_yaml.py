"""YAML is read with the scalars of YAML 1.2 and within limits that no file can break through."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charrun.errors import SpecError
from charrun.spec import Mark, load_yaml
from charrun.spec.yaml import parse_yaml, read_yaml


def parse(text: str) -> Any:
    document = parse_yaml(text.encode(), Path("x.yaml"), "x.yaml")
    assert document.problems == ()
    return document.data


def refusal(raw: bytes) -> str:
    with pytest.raises(SpecError) as caught:
        parse_yaml(raw, Path("x.yaml"), "x.yaml")
    return caught.value.problems[-1].code


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("5E3", 5000.0), (".5", 0.5), ("1.", 1.0), ("-3", -3), ("+3", 3), ("0", 0),
        ("0x1F", 31), ("0o17", 15),
        ("true", True), ("False", False), ("null", None), ("~", None),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"),
        ("012", "012"), ("1_000", "1_000"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("0b11", "0b11"),
        ("1e", "1e"), ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("!!float 1", 1.0), ("! 1", "1"),
        ("=", "="), ("tRue", "tRue"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"a: {text}")["a"]
    assert (type(found), found) == (type(value), value)


def test_every_key_and_value_has_its_place() -> None:
    document = parse_yaml(b"a: 1\nb:\n  - {c: 'x y'}\n  - d\n", Path("x.yaml"), "x.yaml")
    assert document.mark(("a",), "key") == Mark(1, 1, 1)
    assert document.mark(("a",)) == Mark(1, 4, 1)
    assert document.mark(("b", 0, "c")) == Mark(3, 9, 5)
    assert document.mark(("b", 1), "key") == Mark(4, 5, 1)
    assert document.mark(("b", 1, "nothing", "there")) == Mark(4, 5, 1)


def test_an_alias_stands_for_a_copy_of_what_it_names() -> None:
    data = parse("a: &a {x: [1]}\nb: *a\n")
    assert data["b"] == {"x": [1]}
    assert data["a"] is not data["b"] and data["a"]["x"] is not data["b"]["x"]


def test_every_problem_of_a_file_is_told_by_load_yaml(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: 1\na: 2\nb: .nan\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_yaml(path)
    assert [(p.code, p.line, p.column) for p in caught.value.problems] == [
        ("SPEC010", 2, 1),
        ("SPEC011", 3, 4),
    ]
    assert read_yaml(path).data["a"] == 1


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"[" * 50_000, "SPEC005"),
        (b"{" * 50_000, "SPEC005"),
        (b"- " * 50_000, "SPEC005"),
        (b"? " * 50_000, "SPEC005"),
        (b"[" * 65 + b"]" * 65, "SPEC005"),
        (b"a: &a " + b"[" * 40 + b"]" * 40 + b"\nb: " + b"[" * 40 + b"*a" + b"]" * 40, "SPEC005"),
        (b"a: &a [x, x, x, x]\n" + b"".join(b"k%d: &a [*a, *a, *a, *a]\n" % i for i in range(40)), "SPEC006"),
        (b"a: &a '" + b"x" * 100_000 + b"'\nb: [" + b"*a, " * 100 + b"]", "SPEC006"),
        (b"a: &a {b: *a}", "SPEC006"),
        (b"x" * (1 << 20) + b"x", "SPEC002"),
        (b"[" + b"a," * 500_000 + b"]", "SPEC002"),
        (b"\xff\xfea\x00", "SPEC003"),
        (b'a: "\\ud800"', "SPEC004"),
        (b"a: *b", "SPEC004"),
        (b"", "SPEC009"),
        (b"---\n...\n", "SPEC009"),
        (b"a: 1\n---\nb: 1\n", "SPEC007"),
    ],
)
def test_hostile_files_are_refused_at_once(raw: bytes, code: str) -> None:
    assert refusal(raw) == code


@given(st.binary(max_size=200) | st.text("[]{}&*!:-?,#|>'\"%@\n\t 01ae.", max_size=60).map(str.encode))
def test_no_bytes_make_it_fail_otherwise(raw: bytes) -> None:
    try:
        document = parse_yaml(raw, Path("x.yaml"), "x.yaml")
    except SpecError as error:
        assert error.problems
        told = error.problems
    else:
        told = document.problems
        assert not _has_odd_number(document.data)
    for problem in told:
        problem.render().encode()


def _has_odd_number(data: Any) -> bool:
    if isinstance(data, dict):
        return any(map(_has_odd_number, data.values()))
    if isinstance(data, list):
        return any(map(_has_odd_number, data))
    return isinstance(data, float) and not math.isfinite(data)
