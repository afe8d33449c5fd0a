"""What tests of paid runs share: a small spec with a budget and prices, and its plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from conftest import charrun

SPEC = """
version: 1
name: paid
seed: 7
engine: tinker
characters: [pirate]
models: [{teacher: charrun/demo-teacher, student: {name: charrun/demo-student-small, chat: {enable_thinking: false}}}]
scales: [{name: tiny, pairs: 8, samples_per_prompt: 2, reflections: 10, interactions: 1, turns: 2}]
budget: {usd: 1}
prices:
  charrun/demo-teacher: {prefill: 0.68, sample: 1.7}
  charrun/demo-student-small: {prefill: 0.12, sample: 0.3, train: 0.36}
stages:
  - prompts
  - teacher
  - student
  - pairs
  - {uses: dpo, with: {batch_size: 4, checkpoint_every: 1}}
  - {uses: reflection, with: {gates: {cues: false}}}   # what gates drop no plan foresees
  - interaction
  - {uses: sft, with: {batch_size: 4}}
"""


def planned(spec: Path, runs: Path, *args: str, code: int = 0) -> Any:
    told = charrun("plan", spec, "--runs-dir", runs, "--json", *args)
    assert told.code == code, told.text
    return json.loads(told.out) if code == 0 else told
