"""docs/cli.md shows what the commands print."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import REPOSITORY, FinishedRun

DOCS = REPOSITORY / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_page", DOCS / "_cli.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()
TEXT = (DOCS / "cli.md").read_text(encoding="utf-8")
BLOCKS = GENERATOR.blocks_of(TEXT)


def examples(*compared: str) -> list[Any]:
    return [example for _, example in GENERATOR.examples() if example.compared in compared]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the examples work in, without runs."""
    return Path(GENERATOR.workplace(tmp_path_factory.mktemp("fresh")))


def test_the_page_has_every_command_and_nothing_else() -> None:
    assert GENERATOR.page(BLOCKS) == TEXT


@pytest.mark.parametrize("example", examples("exactly"), ids=lambda example: example.words)
def test_what_a_command_prints_is_on_the_page(example: Any, fresh: Path) -> None:
    assert GENERATOR.printed(example, fresh) == BLOCKS[example.line]


def test_what_is_printed_of_a_run_is_on_the_page(smoke: FinishedRun, tmp_path: Path) -> None:
    folder = GENERATOR.workplace(tmp_path)
    shutil.copytree(smoke.runs_dir, folder / "runs")  # resumed below, which the runs of other tests are not
    made = GENERATOR.shortened(smoke.outcome.out, 0, smoke.runs_dir.parent)
    found = {GENERATOR.EXAMPLES["run"][0].line: made}
    for example in examples("masked"):
        if example.words != GENERATOR.FIRST:
            found[example.line] = GENERATOR.printed(example, folder)
    for line, text in found.items():
        assert GENERATOR.masked(text) == GENERATOR.masked(BLOCKS[line]), line


@pytest.mark.slow
def test_what_is_printed_of_two_runs_and_by_a_model_is_on_the_page(tmp_path: Path) -> None:
    folder = GENERATOR.workplace(tmp_path)
    for words in (GENERATOR.FIRST, GENERATOR.SECOND):
        GENERATOR.printed(GENERATOR.Example(words), folder)
    for example in examples("slow"):
        text = GENERATOR.printed(example, folder)
        assert GENERATOR.masked(text) == GENERATOR.masked(BLOCKS[example.line])
