"""A stage of one's own, in one's own package, runs from a spec; a broken plugin is named and left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SPECS, charrun

from charrun.plugin_manager import BUILT_IN, load_registry

PACKAGE = Path(__file__).parent / "plugin_package"
SHORT = """
version: 1
name: counted
seed: 7
engine: local
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]
scales: [smoke]
stages: [prompts, teacher, student, pairs, {uses: wordcount, with: {side: rejected}}]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in tests/plugin_package, installed by pip into a folder of its own."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for path in PACKAGE.glob("*.*"):
        (source / path.name).write_text(path.read_text())
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def test_a_third_party_stage_runs_from_a_spec(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SHORT)
    env = {"PYTHONPATH": str(installed)}
    outcome = charrun(tmp_path / "spec.yaml", "--runs-dir", tmp_path / "runs", env=env)
    assert outcome.code == 0, outcome.text
    (path,) = (tmp_path / "runs" / "store").glob("wordcount-*/wordcount-*.jsonl")
    row = json.loads(path.read_text())
    assert row["pairs"] == 18 and row["words"] > 18 and row["guess"]


def test_its_options_are_checked_against_its_own_schema(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SHORT.replace("side:", "sid:"))
    outcome = charrun("validate", tmp_path / "spec.yaml", env={"PYTHONPATH": str(installed)})
    assert outcome.code == 3
    assert "unknown option 'sid' for stage 'wordcount'" in outcome.err and "'side'" in outcome.err


def test_a_broken_plugin_is_named_and_the_rest_works(installed: Path, tmp_path: Path) -> None:
    broken = tmp_path / "site"
    info = broken / "charrun_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: charrun-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[charrun]\nbroken = charrun_broken\n")
    (broken / "charrun_broken.py").write_text("raise RuntimeError('no')\n")
    outcome = charrun("validate", SPECS / "pirate-smoke.yaml", env={"PYTHONPATH": str(broken)})
    assert outcome.code == 0
    assert "plugin 'broken' of charrun-broken is left out: RuntimeError: no" in outcome.err


def test_a_misspelled_hook_is_found(tmp_path: Path) -> None:
    info = tmp_path / "charrun_typo-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: charrun-typo\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[charrun]\ntypo = charrun_typo\n")
    (tmp_path / "charrun_typo.py").write_text(
        "from charrun import hookimpl\n\n@hookimpl\ndef charrun_register_stagez():\n    return []\n"
    )
    outcome = charrun("validate", SPECS / "pirate-smoke.yaml", env={"PYTHONPATH": str(tmp_path)})
    assert "plugin 'typo' of charrun-typo is left out" in outcome.err and "stagez" in outcome.err


def test_built_in_stages_are_plugins_and_the_rest_works_without_one() -> None:
    whole = load_registry(third_party=False)
    assert set(whole.stages) == {
        "prompts", "teacher", "student", "pairs", "dpo", "reflection", "interaction", "sft", "evaluate", "export",
    }  # fmt: skip
    assert set(whole.engines) == {"local", "tinker"}
    smaller = load_registry(third_party=False, built_in=[name for name in BUILT_IN if not name.endswith(".sft")])
    assert set(whole.stages) - set(smaller.stages) == {"sft"}


def test_the_core_names_no_stage() -> None:
    """Outside the list of built-in plugins, no module of the core holds a stage's name as a word of its own."""
    import ast

    runner = Path(os.fspath(Path(__file__).parent.parent / "runner"))
    names = set(load_registry(third_party=False).stages) - {"prompts", "pairs"}  # these two are kinds of rows too
    kinds = {"prompts", "pairs", "checkpoint"}
    found = []
    for path in runner.rglob("*.py"):
        inside = path.relative_to(runner)
        if inside.parts[0] in ("demo", "engine", "spec"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names - kinds - {"teacher", "student"}:
                found.append(f"{inside}:{node.lineno} {node.value!r}")
    assert found == []
