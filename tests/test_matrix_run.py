"""Cells of a matrix share the work that is the same: it is asked of the engine once."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SPECS, Outcome, RunningEngine, charrun
from counting_proxy import counting
from rich.console import Console

from charrun.pipeline.results import CellResult, RunResult
from charrun.report.summary import print_summary

SPEC = """
version: 1
name: matrix
seed: 7
engine: auto
characters: [pirate, gardener]
models:
  - {teacher: charrun/demo-teacher, student: {name: charrun/demo-student, chat: {enable_thinking: false}}}
  - {teacher: charrun/demo-teacher, student: {name: charrun/demo-student-small, chat: {enable_thinking: false}}}
scales: [smoke]
stages: [prompts, teacher, student, pairs]
"""


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


RATES = [("base", 0, 0.0, 0.031), ("dpo", 60, 0.412, 0.588), ("sft", 120, 0.969, 1.0)]


class Matrix:
    """Two characters, two students, one teacher; generated twice, through a proxy that counts."""

    def __init__(self, folder: Path, engine: RunningEngine) -> None:
        self.runs = folder / "runs"
        spec = folder / "matrix.yaml"
        spec.write_text(SPEC)
        with counting(engine.base_url) as (address, asked):
            environment = {"TINKER_API_KEY": engine.api_key, "TINKER_BASE_URL": address}
            self.first = charrun(spec, "--runs-dir", self.runs, "--yes", env=environment)
            self.asked = sum(count for path, count in asked.items() if path.endswith("/asample"))
            self.second: Outcome = charrun(spec, "--runs-dir", self.runs, "--yes", env=environment)
            self.asked_in_all = sum(count for path, count in asked.items() if path.endswith("/asample"))

    def stored(self, stage: str) -> list[list[dict[str, Any]]]:
        """Responses in each store folder of a stage."""
        return [rows(path) for path in sorted((self.runs / "store").glob(f"{stage}-*/items.jsonl"))]

    def prompts(self) -> list[set[str]]:
        """The prompts that were answered, by character."""
        folders = {
            stage["folder"]
            for cell in (self.runs / "matrix" / "1").glob("cell-*.json")
            for stage in json.loads(cell.read_text())["stages"]
            if stage["id"] == "teacher"
        }
        paths = [next((self.runs / folder).glob("chosen-*.jsonl")) for folder in sorted(folders)]
        return [{row["prompt"] for row in rows(path)} for path in paths]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, demo_engine: RunningEngine) -> Iterator[Matrix]:
    made = Matrix(tmp_path_factory.mktemp("matrix"), demo_engine)
    assert made.first.code == 0, made.first.text
    yield made


def test_every_request_reaches_the_engine_once(matrix: Matrix) -> None:
    responses = [row for stage in ("teacher", "student") for folder in matrix.stored(stage) for row in folder]
    assert len({row["key"] for row in responses}) == len(responses) == matrix.asked


def test_two_students_pay_for_the_teacher_once(matrix: Matrix) -> None:
    teachers = matrix.stored("teacher")
    assert len(teachers) == 2  # one for each character, not one for each cell
    assert all(16 <= len(responses) <= 24 for responses in teachers)


def test_a_students_plain_answers_serve_every_character(matrix: Matrix) -> None:
    students = matrix.stored("student")
    assert len(students) == 2  # one for each student, not one for each cell
    apart = sum(len(responses) for responses in matrix.stored("teacher"))
    one, other = matrix.prompts()
    assert len(one & other) >= 8  # general prompts keep their places whatever the character's own questions are
    assert all(len(responses) < apart for responses in students)


def test_the_same_command_again_asks_for_nothing(matrix: Matrix) -> None:
    assert matrix.second.code == 0, matrix.second.text
    assert matrix.asked_in_all == matrix.asked


def test_every_cell_says_what_it_used(matrix: Matrix) -> None:
    names = {path.stem for path in (matrix.runs / "matrix" / "1").glob("cell-*.json")}
    assert names == {
        f"cell-{character}-{student}-smoke"
        for character in ("pirate", "gardener")
        for student in ("demo-student", "demo-student-small")
    }


def test_the_summary_gives_each_rate_of_a_cell_with_its_n_and_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    counts = [{"model": model, "in_character": k, "n": 120, "low": low, "high": high} for model, k, low, high in RATES]
    long = "pirate-qwen3-30b-a3b-smoke-s7-other-introspection"
    cells = (
        CellResult(long, (), {"evaluation": [{"rates": counts}]}),
        CellResult("untold", (), {"evaluation": [{"rates": []}]}),
        CellResult("bare", (), {}),
    )
    console = Console(file=io.StringIO(), width=80)
    print_summary(console, RunResult(Path("runs/matrix/1"), cells, "local"), plain=True)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue().split("In character, first and last model:\n")[1].splitlines()
    assert told[2] == f"  {long}"
    assert told[3].split() == ["0/120", "0.0%", "0.0%", "to", "3.1%", "120/120", "100.0%", "96.9%", "to", "100.0%"]
    assert told[4:6] == ["  untold: this scorer cannot tell it", "  bare: no evaluation"]
    assert all(len(line) <= 80 for line in told)


@pytest.mark.slow
def test_the_shipped_matrix_trains_every_cell_side_by_side(tmp_path: Path) -> None:
    outcome = charrun(SPECS / "two-characters.yaml", "--runs-dir", tmp_path, "--plain")
    assert outcome.code == 0, outcome.text
    store, run = tmp_path / "store", tmp_path / "two-characters" / "1"
    cells = {path.stem.removeprefix("cell-") for path in run.glob("cell-*.json")}
    assert cells == {f"{who}-{size}-smoke" for who in ("pirate", "gardener") for size in ("large", "small")}
    folders = {stage: len(list(store.glob(f"{stage}-*"))) for stage in ("teacher", "student", "dpo", "sft", "export")}
    assert folders == {"teacher": 2, "student": 2, "dpo": 4, "sft": 4, "export": 4}
    assert all(name in outcome.out.split("In character, first and last model:")[1] for name in cells)
    started = [event["cell"] for event in rows(run / "journal.jsonl") if event["event"] == "stage_started"]
    assert len(dict.fromkeys(started[:6])) > 1  # not one cell after the other
