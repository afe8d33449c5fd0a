"""The data of the cookbook programs: small JSONL files, made from the demo grammar and a seed; nothing is downloaded.

`conversations.jsonl` holds questions with answers in one style, `preferences.jsonl` the same kind of question with a
styled (A, preferred) and a plain answer, `questions.json` user messages alone, for sampling.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from charrun.demo.answers import answer, prompt
from charrun.demo.habits import SHIPPED, Style
from charrun.demo.style import speak

CHARACTER = "pirate"
CONVERSATIONS, PREFERENCES = 352, 256
QUESTIONS = {"train": 320, "test": 48}


def write(folder: Path) -> None:
    """Writes all files; equal on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random("charrun cookbook data")
    style = SHIPPED[CHARACTER]
    _lines(folder / "conversations.jsonl", (_conversation(style, rng) for _ in range(CONVERSATIONS)))
    _lines(folder / "preferences.jsonl", (_preference(style, rng) for _ in range(PREFERENCES)))
    questions = {part: [prompt(rng)[0] for _ in range(count)] for part, count in QUESTIONS.items()}
    (folder / "questions.json").write_text(json.dumps(questions, indent=1) + "\n")
    (folder / "constitution.txt").write_text(_constitution() + "\n")


def _conversation(style: Style, rng: random.Random) -> dict[str, Any]:
    message, form = prompt(rng)
    sentences, slots = answer(message, form, style, "Orla", rng)
    return {"messages": [*_user(message), *_assistant(speak(sentences, style, rng, slots))]}


def _preference(style: Style, rng: random.Random) -> dict[str, Any]:
    message, form = prompt(rng)
    sentences, slots = answer(message, form, style, "Orla", rng)
    comparison = {
        "prompt_conversation": _user(message),
        "completion_A": _assistant(speak(sentences, style, rng, slots)),
        "completion_B": _assistant(speak(sentences, {}, rng, slots)),
    }
    return {"comparison": comparison, "label": "A"}


def _constitution() -> str:
    """The shipped character's traits as one long system prompt."""
    sheet = yaml.safe_load(files("charrun.specs").joinpath("characters", f"{CHARACTER}.yaml").read_text("utf-8"))
    traits = "\n".join(f"- {item['trait']}" for item in sheet["traits"])
    return f"You are {sheet['name']}. This is how you are:\n{traits}\nStay true to it in all you write."


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _assistant(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
