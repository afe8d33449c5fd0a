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
from conftest import REPOSITORY, SPECS, charrun
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
    assert stages.keys() >= STAGES - {"dpo"}  # a patch of dpo is there already
    assert stages["pairs"]["documentation"].lower().startswith("gates, then preference pairs")
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


def test_a_spec_that_extends_another_is_completed_explained_and_checked(editor: Editor) -> None:
    base = f"{HEAD}extends: {CURSOR}builtin:pirate-mini\nbudget: null\nvars: {{lr: 2e-4}}\nname: stronger\n"
    shown = editor.show(
        f"{base}{CURSOR}\nstages:\n  {CURSOR}\n  dpo:\n    with:\n      beta: 0.2\n      learning_rate: ${{vars.lr}}\n"
        f"      {CURSOR}\n  sft: null\n"
    )
    assert shown.messages == []
    specs, keys, stages, options = (shown.completions(place) for place in range(4))
    assert {f"builtin:{name}" for name in builtin_specs()} <= specs.keys()
    assert {"scales", "characters", "stand_ins"} <= keys.keys() and "budget" not in keys
    assert STAGES - {"dpo", "sft"} <= stages.keys()
    assert "lora_rank" in options and "beta" not in options
    assert "Strength of the pull" in shown.hover("beta:")
    assert "DPO of the student" in shown.hover("dpo:")

    wrong = f"{base}stages:\n  dpo: {{with: {{betta: 0.2}}}}\n  sft: {{wiht: {{}}}}\nsead: 1\n"
    assert sorted(editor.show(wrong.replace(CURSOR, "")).messages) == [
        "Property betta is not allowed.",
        "Property sead is not allowed.",
        "Property wiht is not allowed.",
    ]
    replaced = f"{base}stages: [prompts, {{uses: dpo, with: {{betta: 0.2}}}}]\n"
    assert editor.show(replaced.replace(CURSOR, "")).messages == ["Property betta is not allowed."]


MINI = (SPECS / "pirate-mini.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("  - reflection ", "  - reflectoin "), 'Value is not accepted. Valid values: "capability", "coherence"'),
        (("uses: dpo", "uses: dpoo"), 'Value is not accepted. Valid values: "capability", "coherence"'),
        (("uses: dpo", "id: dpo"), 'Missing property "uses".'),
        (("beta: 0.1", "beta: much"), "Expected a number."),
        (("beta: 0.1", "beta: -1"), "Value is below the exclusive minimum of 0."),
        (("lora_rank: 64", "lora_rank: 63"), "Value is not accepted. Valid values: 1, 2, 4, 8, 16, 32, 64, 128, 256."),
        (("[pirate]", "[pirat]"), 'Value is not accepted. Valid values: "astronomer"'),
        (("[mini]", "[minni]"), "Value is not accepted. Valid values:"),
        (("engine: auto", "engine: tinkr"), 'Value is not accepted. Valid values: "auto", "local", "tinker".'),
        (("engine: auto", "engine: {uses: tinker, with: {url: x}}"), "Property url is not allowed."),
        (("name: pirate-mini", "name: My Run"), "Expected a slug of at most 64 lower-case letters"),
        (("version: 1", "version: 2"), "Value must be 1."),
        (("scales: [mini]\n", ""), 'Missing property "scales".'),
        (("[pirate]", "pirate"), "Expected a list."),
        (("dpo: {learning_rate", "dpo: {learning_rat"), "Property learning_rat is not allowed."),
    ],
)
def test_a_mistake_is_marked_once_and_in_plain_words(change: tuple[str, str], message: str, editor: Editor) -> None:
    assert change[0] in MINI
    (marked,) = editor.show(MINI.replace(*change, 1)).messages
    assert marked.startswith(message)


@pytest.mark.parametrize(
    "change",
    [
        ("[pirate]", "[./mine.yaml]"),
        ("[pirate]", "[{id: x, name: X, description: Y, traits: [{trait: t, questions: [q]}]}]"),
        ("beta: 0.1", "beta: '${vars.b}'"),
        ("lora_rank: 64", "lora_rank: '${vars.r}'"),
        ("seed: 7", "plugins: [./mine.py]\ntemplates: {mine: mine.j2}"),
        ("  - reflection ", "  - '${vars.stage}' "),
        ("engine: auto", "engine: {uses: local, with: {device: cpu}}"),
    ],
)
def test_what_is_right_is_not_marked(change: tuple[str, str], editor: Editor) -> None:
    assert change[0] in MINI
    assert editor.show(MINI.replace(*change, 1)).messages == []


def test_names_of_characters_scales_and_engines_are_completed(editor: Editor) -> None:
    text = MINI.replace("[pirate]", f"[{CURSOR}]").replace("[mini]", f"[{CURSOR}]")
    text = re.sub("engine: auto.*", f"engine: {CURSOR}", text)
    shown = editor.show(text)
    engines, characters, scales = (shown.completions(place) for place in range(3))
    assert {"auto", "local", "tinker"} <= engines.keys()
    assert "sea dog" in characters["pirate"]["documentation"]
    assert scales["mini"]["documentation"].startswith("250 pairs, 1,500 reflections")


def test_a_character_file_is_completed_explained_and_checked(editor: Editor) -> None:
    folder = SPECS / "characters"
    text = (folder / "pirate.yaml").read_text(encoding="utf-8")
    assert editor.show(text, folder).messages == []
    cut = editor.show(text.replace("description:", "descripton:") + CURSOR, folder)
    assert sorted(cut.messages) == ['Missing property "description".', "Property descripton is not allowed."]
    assert "description" in cut.completions()
    assert "what the assistant is called" in editor.show(text, folder).hover("name:").lower()


def test_a_project_of_ones_own_has_its_plugins_completed(editor: Editor, tmp_path: Path) -> None:
    """The way that docs/editor.md tells: the schema is written into the project, and a modeline leads to it."""
    info = tmp_path / "site" / "charrun_wordcount-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: charrun-wordcount\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[charrun]\nwordcount = charrun_wordcount\n")
    source = REPOSITORY / "tests" / "plugin_package" / "charrun_wordcount.py"
    (info.parent / source.name).write_text(source.read_text())
    env = {"PYTHONPATH": os.fspath(info.parent)}
    assert charrun("schema", "-o", ".charrun/spec.schema.json", env=env, cwd=tmp_path).code == 0

    head = "# yaml-language-server: $schema=../.charrun/spec.schema.json\nextends: builtin:pirate-mini\nstages:\n"
    item = f"  - {CURSOR}\n  - uses: wordcount\n    with:\n      {CURSOR}\n"
    shown = editor.show(head + item, tmp_path / "specs")
    assert shown.completions(0)["wordcount"]["documentation"] == "counts the words of the pairs"
    assert "side" in shown.completions(1)
    wrong = editor.show(f"{head}  - {{uses: wordcount, with: {{sides: chosen}}}}\n", tmp_path / "specs")
    assert wrong.messages == ["Property sides is not allowed."]
