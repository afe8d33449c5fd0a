"""Runs that take seconds: one that samples from the demo models, and one whose stages need no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import Outcome, RunningEngine

Until = Callable[[Callable[[], bool]], None]

SAMPLED = """
version: 1
name: tiny
seed: 7
engine: auto
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: {name: charrun/demo-student-small, chat: {enable_thinking: false}}}]
scales: [{name: tiny, pairs: 6, samples_per_prompt: 1, reflections: 10, interactions: 1, turns: 2}]
stages: [prompts, teacher, student, pairs]
"""

OFFLINE = """
version: 1
name: offline
seed: 7
engine: local
plugins: [./stages.py]
characters: [{characters}]
models: [{{teacher: charrun/demo-teacher, student: charrun/demo-student-small}}]
scales: [smoke]
stages: [first, second]
"""

STAGES = """
import time
from pathlib import Path
from charrun import Stage, StageFailed, hookimpl

class First(Stage):
    name = "first"
    summary = "writes rows"
    produces = ("numbers",)
    character_fields = ()
    options_schema = {
        "type": "object",
        "properties": {
            "rows": {"type": "integer", "default": 3, "description": "How many."},
            "fails": {"type": "string", "default": "", "description": "A file whose presence makes it fail."},
            "waits": {"type": "string", "default": "", "description": "A file that it waits for."},
        },
        "additionalProperties": False,
    }

    async def run(self, ctx):
        import asyncio
        if self.path(ctx, "fails").is_file():
            raise StageFailed("it was told to fail")
        while ctx.options["waits"] and not self.path(ctx, "waits").is_file():
            await asyncio.sleep(0.01)
        ctx.publish("numbers", [{"n": n, "text": "x" * 1000} for n in range(ctx.options["rows"])])

    def path(self, ctx, name):
        return ctx.path(ctx.options[name])


class Second(Stage):
    name = "second"
    summary = "adds them up"
    consumes = ("numbers",)
    produces = ("sum",)
    character_fields = ("name",)

    async def run(self, ctx):
        ctx.publish("sum", [{"sum": sum(row["n"] for row in await ctx.rows("numbers"))}])


@hookimpl
def charrun_register_stages():
    return [First, Second]
"""


def events(runs_dir: Path, run: str) -> list[dict[str, Any]]:
    path = runs_dir / run / "journal.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines()]


def names(runs_dir: Path, run: str) -> list[str]:
    return [event["event"] for event in events(runs_dir, run)]


def stored(runs_dir: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in (runs_dir / "store").glob("*/items.jsonl"))


def published(runs_dir: Path) -> dict[str, bytes]:
    paths = (runs_dir / "store").glob("*/*-????????????????.jsonl")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in paths}


def key(engine: RunningEngine, address: str) -> dict[str, str]:
    return {"TINKER_API_KEY": engine.api_key, "TINKER_BASE_URL": address}


def start(*args: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "charrun", *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def ended(process: subprocess.Popen[str]) -> Outcome:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err, out + err
    return Outcome(process.returncode, out, err)
