"""`charrun show` prints the spec that is run, and where its values come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import SPECS
from hypothesis import given
from hypothesis import strategies as st

from charrun.commands.loading import load
from charrun.commands.show import show
from charrun.spec import builtin_specs
from charrun.spec.emit import WIDTH, emit
from charrun.spec.yaml import parse_yaml

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Co"]), max_size=20) | st.text(
    "ab:-#'\"[]{},&*!|>%@` .0123456789etrufalsn\n\t\u2028\x85", max_size=12
)
SCALARS = st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(-1e9, 1e9) | TEXTS
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)


def shown(*args: str) -> str:
    outcome = CliRunner().invoke(show, args, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome.stdout


@given(st.dictionaries(TEXTS, DATA, min_size=1, max_size=3), st.booleans())
def test_what_is_printed_reads_back_as_the_same_data(data: dict[str, Any], with_comments: bool) -> None:
    text = emit(data, (lambda path: "somewhere") if with_comments else None)
    document = parse_yaml(text.encode(), Path("x.yaml"), "x.yaml")
    assert document.problems == ()
    assert document.data == data


@pytest.mark.parametrize("name", sorted(builtin_specs()))
def test_what_is_shown_is_the_same_spec_in_one_piece(name: str, tmp_path: Path) -> None:
    for folder in ("characters", "stages"):
        if (SPECS / folder).exists():
            (tmp_path / folder).symlink_to(SPECS / folder)
    text = shown(str(SPECS / f"{name}.yaml"), "--trust")
    assert "extends" not in text
    assert max(map(len, text.splitlines())) <= WIDTH
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    again = load(str(tmp_path / "x.yaml"), trust=True).spec
    assert again.to_dict() == load(f"builtin:{name}", trust=True).spec.to_dict()


def test_paths_of_a_base_are_shown_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    character = (SPECS / "characters" / "grump.yaml").read_text(encoding="utf-8")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "me.yaml").write_text(character.replace("id: grump", "id: me"), encoding="utf-8")
    base = "extends: builtin:pirate-smoke\ncharacters: [./me.yaml]\ntemplates: {character: mine.j2}\n"
    (tmp_path / "lib" / "base.yaml").write_text(base, encoding="utf-8")
    (tmp_path / "lib" / "mine.j2").write_text("You are {{ name }}. {{ traits }}", encoding="utf-8")
    (tmp_path / "x.yaml").write_text("extends: lib/base.yaml\n", encoding="utf-8")
    text = shown("x.yaml")
    assert "characters: [./lib/me.yaml]\n" in text and "templates: {character: ./lib/mine.j2}\n" in text


def test_every_value_has_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(
        "extends: builtin:pirate-smoke\nname: mine\nvars:\n  rate: 1e-3\nstages:\n"
        "  dpo: {with: {learning_rate: '${vars.rate}'}}\n",
        encoding="utf-8",
    )
    text = shown("x.yaml", "--origins", "--set", "stages.dpo.with.beta=0.3")
    lines = {line.split("  #")[0].strip(): line.rpartition("  # ")[2] for line in text.splitlines()}
    assert lines["name: mine"] == "x.yaml:2"
    assert lines["beta: 0.3"] == "--set #1"
    assert lines["learning_rate: 0.001"] == "vars.rate (x.yaml:4)"
    assert lines["eps: 1e-12"] == "default"
    assert lines["- smoke"].startswith("builtin:pirate-smoke:")
    assert "vars:" not in text

    document = json.loads(shown("x.yaml", "--origins", "--json", "--set", "stages.dpo.with.beta=0.3"))
    assert document["cells"] == ["pirate-qwen3-30b-a3b-smoke"]
    assert document["origins"]["stages.4.with.beta"] == "--set #1"
    assert document["spec"]["stages"][4]["with"]["beta"] == 0.3
    assert set(json.loads(shown("x.yaml", "--json"))) == {"spec", "cells"}


def test_what_a_preset_says_has_the_presets_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    preset = Path(SPECS / "presets" / "paper.yaml").read_text(encoding="utf-8")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "own.yaml").write_text(preset, encoding="utf-8")
    (tmp_path / "lib" / "base.yaml").write_text(
        "version: 1\nname: base\nengine: local\npreset: ./own.yaml\ncharacters: [pirate]\nscales: [smoke]\n"
        "models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]\n"
        "stages: [prompts, teacher, student, pairs, {uses: dpo, with: {batch_size: 7}}]\n",
        encoding="utf-8",
    )
    (tmp_path / "x.yaml").write_text("extends: lib/base.yaml\nname: mine\n", encoding="utf-8")
    for named, spec in (("./own.yaml", "x.yaml"), ("paper", "y.yaml")):
        (tmp_path / "y.yaml").write_text("extends: lib/base.yaml\nname: mine\npreset: paper\n", encoding="utf-8")
        told = json.loads(shown(spec, "--origins", "--json"))
        assert told["spec"]["stages"][4]["with"]["beta2"] == 0.98
        assert told["origins"]["stages.4.with.beta2"] == f"preset {named}"
        assert told["origins"]["stages.4.with.batch_size"] == "lib/base.yaml:8"
        assert told["origins"]["stages.4.with.checkpoint_every"] == "default"
