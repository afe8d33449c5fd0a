"""The documentation says what the code does."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from charrun import errors
from charrun.plugin_manager import load_registry

DOCS = REPOSITORY / "docs"
PAGES = [REPOSITORY / "README.md", *DOCS.glob("*.md")]


@pytest.mark.parametrize("name", ["stages", "fidelity"])
def test_a_page_is_what_its_generator_writes(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"{name}_page", DOCS / f"_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    assert (DOCS / f"{name}.md").read_text() == module.page()


def test_every_exit_code_is_documented() -> None:
    text = (DOCS / "design.md").read_text()
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert codes == {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}


def test_every_stage_is_in_the_designs_table() -> None:
    text = (DOCS / "design.md").read_text()
    for name, stage in load_registry(third_party=False).stages.items():
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE), name
        for kind in (*stage.consumes, *stage.produces):
            assert kind in text


def test_every_run_time_code_is_documented() -> None:
    sources = (path.read_text() for path in (REPOSITORY / "runner").rglob("*.py"))
    used = {code for source in sources for code in re.findall(r"\b(RUN\d{3})\b", source)}
    assert used == set(re.findall(r"^### (RUN\d{3})", (DOCS / "errors.md").read_text(), re.MULTILINE))


def test_every_link_to_a_file_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_nothing_cites_what_a_clone_does_not_have() -> None:
    for path in REPOSITORY.rglob("*"):
        inside = path.relative_to(REPOSITORY)
        hidden = any(part.startswith(".") or part in ("runs", "build") for part in inside.parts)
        if (
            path.suffix in (".md", ".py", ".yaml", ".toml", ".j2")
            and not hidden
            and inside != Path("tests/test_docs.py")
        ):
            assert "../shared" not in path.read_text(errors="replace"), inside


def test_the_readme_shows_the_two_commands() -> None:
    text = (REPOSITORY / "README.md").read_text()
    assert "python -m pip install -e . && charrun specs/pirate-mini.yaml\n" in text
    assert "python -m pip install -e '.[dev]' && python -m pytest\n" in text
