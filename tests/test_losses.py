"""What goes wrong beside a run takes nothing from it: a reader that leaves, a full disk, a cell that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Outcome, charrun

SPEC = """
version: 1
name: cells
engine: local
characters: [pirate, gardener, grump]
models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]
scales: [smoke]
"""
FAILS = """
from charrun import Stage

class Fails(Stage):
    name, summary, consumes, produces = "fails", "fails for some", ("prompts",), ("done",)

    async def run(self, ctx):
        if ctx.character.id != "pirate":
            raise ValueError("not a pirate")
        ctx.publish("done", [{"done": True}])
"""


def written(folder: Path, rest: str) -> Path:
    spec = folder / "cells.yaml"
    spec.write_text(SPEC + rest)
    return spec


def unread(*words: str | Path) -> Outcome:
    """A command whose reader has left before it began."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "charrun", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    return Outcome(done.returncode, "", done.stderr)


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--plain", "nobody reads this any more; the run goes on: charrun status tells how far it is\n"),
        ("--json", "warning: no more events can be written (Broken pipe); the run goes on\n"),
    ],
)
def test_a_run_goes_on_when_its_reader_leaves(option: str, told: str, tmp_path: Path) -> None:
    spec, runs = written(tmp_path, "stages: [prompts]\n"), tmp_path / "runs"
    outcome = unread(spec, "--runs-dir", runs, option)
    assert (outcome.code, outcome.err) == (0, told)
    last = (runs / "cells" / "1" / "journal.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["event"] == "run_finished"


def test_a_listing_whose_reader_leaves_ends_without_a_word(tmp_path: Path) -> None:
    spec = written(tmp_path, "stages: [prompts]\n")
    outcome = unread("show", spec)
    assert (outcome.code, outcome.err) == (141, "")


def test_cells_that_fail_are_named_at_once_and_those_that_finish_are_reported(tmp_path: Path) -> None:
    (tmp_path / "fails.py").write_text(FAILS)
    spec = written(tmp_path, "plugins: [./fails.py]\nstages: [prompts, fails]\n")
    outcome = charrun(spec, "--trust", "--runs-dir", tmp_path / "runs")
    assert outcome.code == 1
    for who in ("gardener", "grump"):
        assert outcome.out.count(f"  {who}-demo-student-smoke fails failed: ValueError: not a pirate\n") == 1
    several = "gardener-demo-student-smoke, grump-demo-student-smoke: fails: ValueError: not a pirate\n"
    assert outcome.err.startswith(f"error: 2 of 3 cells failed\n{several}")
    report = (tmp_path / "runs" / "cells" / "1" / "report.md").read_text()
    assert "pirate-demo-student-smoke" in report and "gardener" not in report


def test_a_stages_own_files_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    for name, where in (("base", "data"), ("here", ".")):
        folder = tmp_path / name
        (folder / where).mkdir(parents=True)
        rows = (json.dumps({"prompt": f"{name} {number}?"}) for number in range(40))
        (folder / where / "own.jsonl").write_text("\n".join(rows))
    written(
        tmp_path / "base",
        "vars: {file: ./data/own.jsonl}\nstages: [{uses: prompts, with: {sources: ['${vars.file}']}}]\n",
    )
    top = tmp_path / "top.yaml"
    top.write_text("extends: base/cells.yaml\ncharacters: [pirate]\n")
    change = ("--set", "stages.prompts.with.sources=[own.jsonl]")
    for name, words in (("base", ()), ("here", change)):
        outcome = charrun(top, *words, "--runs-dir", tmp_path / name, cwd=tmp_path / "here")
        assert outcome.code == 0, outcome.text
        (made,) = (tmp_path / name / "store").glob("prompts-*/prompts-*.jsonl")
        assert {json.loads(line)["prompt"].split()[0] for line in made.read_text().splitlines()} == {name}
    lost = charrun("plan", top, "--set", "stages.prompts.with.sources=[lost.jsonl]", cwd=tmp_path / "here")
    assert lost.code == 3
    assert "RUN001 cannot read the prompts of lost.jsonl: No such file or directory\n" in lost.text


def test_a_pipe_in_the_place_of_a_spec_is_called_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    outcome = charrun("validate", "pipe.yaml", cwd=tmp_path)
    assert outcome.code == 3
    assert outcome.text.startswith(
        "pipe.yaml SPEC001 is a pipe or a device, not a file\n      save what it gives as a file\n"
    )
