"""Two hundred malformed specs, each with the exact text that tells what is wrong in it."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import pytest
from conftest import charrun

from charrun.commands.loading import load_with
from charrun.errors import EXIT_SPEC, SpecError
from charrun.plugin_manager import Registry, load_registry

ERRORS = Path(__file__).parent / "errors"
DOCS = (Path(__file__).parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
CASES = sorted(path.stem for path in ERRORS.glob("*.yaml"))
TEXTS = {case: (ERRORS / f"{case}.txt") for case in CASES}

# Files that are not there or too large for this folder, and code that nobody has allowed.
NOT_IN_FILES = {"SPEC001", "SPEC060", "SPEC064"}

_HEAD = re.compile(
    r"^(?P<file>\S.*?)(?::(?P<line>\d+):(?P<column>\d+))? (?:warning )?(?P<code>[A-Z]+\d{3}) (?P<message>.+)$"
)
_CARET = re.compile(r"^ +\| ( *)(\^+)$")


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load_registry(third_party=False)


def sets_of(case: str) -> list[str]:
    path = ERRORS / f"{case}.sets"
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n") if path.exists() else []


@pytest.mark.parametrize("case", CASES)
def test_each_mistake_is_told_in_these_words(case: str, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """`UPDATE_ERRORS=1 pytest tests/test_errors.py` writes the texts anew, to be read in the diff."""
    monkeypatch.chdir(ERRORS)
    with pytest.raises(SpecError) as caught:
        load_with(registry, f"{case}.yaml", sets_of(case), trust=True)
    assert caught.value.exit_code == EXIT_SPEC
    told = str(caught.value) + "\n"
    if os.environ.get("UPDATE_ERRORS"):
        TEXTS[case].write_text(told, encoding="utf-8")
    assert told == TEXTS[case].read_text(encoding="utf-8")


def test_there_are_two_hundred_mistakes_no_two_of_which_are_the_same() -> None:
    assert len(CASES) >= 200
    assert len({(ERRORS / f"{case}.yaml").read_bytes() + repr(sets_of(case)).encode() for case in CASES}) == len(CASES)
    assert {path.stem for path in ERRORS.glob("*.txt")} == set(CASES)


def test_every_code_about_a_spec_occurs_in_one_of_the_texts() -> None:
    told = "".join(path.read_text(encoding="utf-8") for path in TEXTS.values())
    assert (
        set(re.findall(r"^### (SPEC\d{3})", DOCS, re.MULTILINE)) - set(re.findall(r"SPEC\d{3}", told)) <= NOT_IN_FILES
    )


def test_a_spec_that_is_not_there_or_too_large_is_told_by_its_name(tmp_path: Path, registry: Registry) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a: " + b"x" * (1 << 20))
    for path, text in (
        (large, "SPEC002 the file is larger than 1,048,576 bytes"),
        (tmp_path / "no.yaml", "SPEC001 no such"),
    ):
        with pytest.raises(SpecError) as caught:
            load_with(registry, str(path))
        assert str(caught.value).startswith(f"{path} {text}")


@pytest.mark.parametrize("case", CASES)
def test_a_text_is_well_formed(case: str) -> None:
    """No problem twice, no stray spaces, and the caret under what the problem is about."""
    text = TEXTS[case].read_text(encoding="utf-8")
    assert "Traceback" not in text
    lines = text.splitlines()
    heads = [line for line in lines if _HEAD.match(line)]
    assert heads and len(set(heads)) == len(heads)
    for number, line in enumerate(lines):
        assert line == line.rstrip()
        if caret := _CARET.match(line):
            head, source = _HEAD.match(lines[number - 2]), lines[number - 1].split(" | ", 1)
            assert head and int(source[0]) == int(head["line"])
            before, marked = len(caret[1]), len(caret[2])
            under = _between(source[1], before, before + marked)
            if "…" not in source[1]:
                assert source[1].find(under) >= 0 and len(_upto(source[1], before)) == int(head["column"]) - 1
            assert "a tab" in head["message"] or under == under.strip(), (under, line)
            assert under or before == _columns(source[1]), line


def _upto(text: str, columns: int) -> str:
    """The first characters of a text that take so many columns."""
    for end in range(len(text) + 1):
        if _columns(text[:end]) >= columns:
            return text[:end]
    return text


def _between(text: str, start: int, end: int) -> str:
    return _upto(text, end)[len(_upto(text, start)) :]


def _columns(text: str) -> int:
    """Columns by the classes of Unicode, one character at a time."""
    widths = {"W": 2, "F": 2}
    return sum(
        0 if unicodedata.category(one) in {"Mn", "Me", "Cf"} else widths.get(unicodedata.east_asian_width(one), 1)
        for one in text
    )


def test_the_command_line_tells_the_same_of_all_of_them_at_once() -> None:
    names = [f"{case}.yaml" for case in CASES]
    outcome = charrun("validate", "--trust", "--format", "json", *names, cwd=ERRORS)
    assert outcome.code == EXIT_SPEC, outcome.err
    assert "Traceback" not in outcome.text
    document = json.loads(outcome.out)
    assert [spec["file"] for spec in document["specs"]] == names
    told = {
        f"{p['file']}:{p['line']}:{p['column']}" * bool(p["line"]) + f" {p['code']} {p['message']}"
        for p in document["problems"]
    }
    for case in CASES:
        if not sets_of(case):
            for head in map(_HEAD.match, TEXTS[case].read_text(encoding="utf-8").splitlines()):
                if head:
                    place = f"{head['file']}:{head['line']}:{head['column']}" if head["line"] else ""
                    assert f"{place} {head['code']} {head['message']}" in told
    github = charrun("validate", "--trust", "--format", "github", *names, cwd=ERRORS)
    assert github.code == EXIT_SPEC
    lines = github.out.splitlines()
    assert len(lines) == len(document["problems"])
    assert all(line.startswith(("::error file=", "::warning file=")) for line in lines)
