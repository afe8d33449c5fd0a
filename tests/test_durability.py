"""docs/durability.md is what the modules promise, and every promise is a test's name."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest
from conftest import REPOSITORY

DOCS = REPOSITORY / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("durability_page", DOCS / "_durability.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGE = generator()


def test_the_page_is_what_its_generator_writes() -> None:
    text = (DOCS / "durability.md").read_text()
    assert text == PAGE.page(text)


def test_the_table_of_faults_has_been_counted() -> None:
    text = (DOCS / "durability.md").read_text()
    table = text[text.index(PAGE.BEGIN) : text.index(PAGE.END)]
    assert re.search(r"^\|.*\| *\d", table, re.MULTILINE)


@pytest.mark.parametrize("name", PAGE.MODULES.values())
def test_every_sentence_of_a_contract_is_the_name_of_a_test(name: str) -> None:
    tests = {
        found
        for path in (REPOSITORY / "tests").rglob("*.py")
        for found in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    sentences = PAGE.sentences(REPOSITORY / name)
    assert sentences
    assert [each for each in sentences if PAGE.test_name(each) not in tests] == []
