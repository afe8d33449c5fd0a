"""The real yaml-language-server completes, explains and checks specs with the committed schemas.

The server is found through CHARRUN_YAML_LANGUAGE_SERVER or on PATH; docs/editor.md tells how to install it.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, SPECS
from lsp import LanguageServer

from charrun.plugin_manager import load_registry
from charrun.spec import builtin_specs

VARIABLE = "CHARRUN_YAML_LANGUAGE_SERVER"
STAGES = set(load_registry(third_party=False).stages)
HEAD = "# yaml-language-server: $schema=../schemas/spec.schema.json\n"
CURSOR = "<|>"


@dataclass
class Editor:
    """Texts under names in specs/ that no file has, so that modelines lead where those of shipped specs lead."""

    server: LanguageServer
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def show(self, text: str, folder: Path = SPECS) -> Shown:
        """Open a text, in which CURSOR may mark places."""
        path = folder / f"unsaved-{next(self.numbers)}.yaml"
        parts = text.split(CURSOR)
        places = []
        for part in itertools.accumulate(parts[:-1]):
            places.append((part.count("\n"), len(part) - part.rfind("\n") - 1))
        found = self.server.open(path, "".join(parts))
        return Shown(self.server, path, [one["message"] for one in found], places, "".join(parts))


@dataclass
class Shown:
    """An open text: what is marked in it, and what the server knows of its marked places."""

    server: LanguageServer
    path: Path
    messages: list[str]
    places: list[tuple[int, int]]
    text: str

    def completions(self, place: int = 0) -> dict[str, dict[str, Any]]:
        return self.server.complete(self.path, *self.places[place])

    def hover(self, word: str) -> str:
        """What is said of the first occurrence of a word."""
        before = self.text[: self.text.index(word)]
        return self.server.hover(self.path, before.count("\n"), len(before) - before.rfind("\n"))


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    command = os.environ.get(VARIABLE) or shutil.which("yaml-language-server")
    if command is None:
        pytest.skip(f"no yaml-language-server on PATH, and {VARIABLE} is not set")
    server = LanguageServer.start([command, "--stdio"], REPOSITORY, os.environ)
    yield Editor(server)
    assert set(server.asked_for) <= {"workspace/configuration"}  # above all no content of addresses
    server.stop()


def with_item(text: str, item: str, patch: str) -> str:
    """The spec with one more item at the head of its list of stages, or one more patch if it has no list."""
    if found := re.search(r"^stages:[ \t]*(#.*)?\n([ ]*(#.*)?\n)*(?P<indent>[ ]+)-", text, re.MULTILINE):
        lines, at = textwrap.indent(item, found["indent"]), found.end("indent") - len(found["indent"])
        return text[:at] + lines + text[at:]
    found = re.search(r"^stages:.*\n([ ]+.*\n|\n)*", text, re.MULTILINE)
    rest = text[: found.start()] + text[found.end() :] if found else text
    return f"{rest.rstrip()}\nstages:\n{textwrap.indent(patch, '  ')}"


OPTIONS = f"with:\n  beta: 0.1\n  {CURSOR}\n"
ITEM = f"- {CURSOR}\n- uses: dpo\n  id: another\n{textwrap.indent(OPTIONS, '  ')}"
PATCH = f"{CURSOR}\ndpo:\n{textwrap.indent(OPTIONS, '  ')}"


@pytest.mark.parametrize("name", sorted(builtin_specs()))
def test_a_shipped_spec_is_completed_explained_and_checked(name: str, editor: Editor) -> None:
    text = (SPECS / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith(HEAD)
    assert editor.show(text).messages == []

    shown = editor.show(with_item(text, ITEM, PATCH))
    stages, options = shown.completions(0), shown.completions(1)
    assert stages.keys() >= STAGES
    assert stages["dpo"]["documentation"].startswith("DPO of the student")
    assert {"lora_rank", "nll_coefficient", "learning_rate"} <= options.keys() and not options.keys() & STAGES
    assert options["lora_rank"]["insertText"] == "lora_rank: ${1:64}"
    assert "effective scale is 32 / rank" in options["lora_rank"]["documentation"]
    hover = shown.hover("beta: 0.1\n")
    assert "Options of stage dpo" in hover
    assert "Strength of the pull towards the reference (a number above 0; 0.1 if left out)." in hover
    assert "Name of the run" in shown.hover("name:")

    wrong = OPTIONS.replace("beta: 0.1", "betta: 0.1").replace(f"  {CURSOR}\n", "")
    item = f"- uses: dpo\n  id: another\n{textwrap.indent(wrong, '  ')}"
    wrong_text = with_item(text, item, f"dpo:\n{textwrap.indent(wrong, '  ')}")
    messages = editor.show(wrong_text.rstrip() + "\nsead: 7\n").messages
    assert sorted(messages) == ["Property betta is not allowed.", "Property sead is not allowed."]
