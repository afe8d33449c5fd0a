"""What tests of `charrun lock` share: a folder with a spec of its own, and edits."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import REPOSITORY, SPECS

from charrun.demo import MODELS

SPEC = """
version: 1
name: mine
seed: 7
engine: local
characters: [./character.yaml]
models: [{teacher: charrun/demo-teacher, student: {name: ./models/mine, chat: {enable_thinking: false}}}]
scales: [{name: tiny, pairs: 4, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}]
stages: [{uses: prompts, with: {sources: [constitution, more.jsonl]}}, teacher, student, pairs, dpo]
templates: {character: ./character.j2}
"""
LOCK = "mine.yaml.lock"
Edit = Callable[[], None]


def fill(folder: Path) -> Path:
    (folder / "mine.yaml").write_text(SPEC)
    shutil.copy(SPECS / "characters" / "pirate.yaml", folder / "character.yaml")
    shutil.copy(REPOSITORY / "plugins" / "templates" / "character.j2", folder / "character.j2")
    (folder / "more.jsonl").write_text('{"prompt": "Is it far?"}\n{"prompt": "How deep is it?"}\n')
    shutil.copytree(MODELS["charrun/demo-student-small"], folder / "models" / "mine")
    return folder


def replace(path: str | Path, old: str, new: str) -> None:
    text = Path(path).read_text(encoding="utf-8")
    assert old in text, old
    Path(path).write_text(text.replace(old, new, 1), encoding="utf-8")


def edit(path: str | Path, change: Callable[[Any], Any]) -> None:
    value = json.loads(Path(path).read_text(encoding="utf-8"))
    change(value)
    Path(path).write_text(json.dumps(value, indent=2), encoding="utf-8")


def lines(text: str) -> list[str]:
    """The differences that a command told, without their front."""
    return re.findall(rf"^{re.escape(LOCK)} LOCK004 (.*)$", text, re.MULTILINE)
