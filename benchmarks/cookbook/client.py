"""What the cookbook programs share: their arguments, the renderer, and the figures that they leave.

The model is named by its absolute folder, which the engine serves and from which the tokenizer loads without a hub.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tinker_cookbook import renderers
from tinker_cookbook.tokenizer_utils import get_tokenizer

RENDERER = "qwen3_disable_thinking"
LORA_RANK = 32


@dataclass(frozen=True)
class Arguments:
    """Where things are.

    Attributes:
        model: Absolute folder of the trained model.
        teacher: Absolute folder of the model that answers in character.
        untied: Absolute folder of the trained model with an output layer of its own.
        data: Folder of the data files.
        out: The program's own folder.
        loss: The loss of reinforcement learning.
    """

    model: str
    teacher: str
    untied: str
    data: Path
    out: Path
    loss: str


@dataclass(frozen=True)
class Figures:
    """What a program reports.

    Attributes:
        measure: What was measured.
        first: Its value at the beginning.
        last: Its value at the end.
        steps: Optimizer steps; 0 where nothing was trained.
        passed: Whether it moved the right way, by the program's own rule.
        note: Anything else that a reader should see.
    """

    measure: str
    first: float
    last: float
    steps: int
    passed: bool
    note: str = ""


def arguments() -> Arguments:
    """The command line."""
    parser = argparse.ArgumentParser()
    for name in ("model", "teacher", "untied"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("data", "out"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--loss", default="importance_sampling")
    return Arguments(**vars(parser.parse_args()))


def renderer(folder: str) -> renderers.Renderer:
    """The renderer of these programs for a model."""
    return renderers.get_renderer(RENDERER, get_tokenizer(folder))


def metrics(out: Path, name: str) -> list[float]:
    """A metric's values over a run, in the order of steps."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [float(row[name]) for row in rows if name in row]


def ends(values: Sequence[float], count: int) -> tuple[float, float]:
    """Means of the first and of the last values."""
    return fmean(values[:count]), fmean(values[-count:])


def checkpoint(out: Path, kind: str = "state_path") -> str:
    """Path of the run's last checkpoint."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in (out / "checkpoints.jsonl").read_text().splitlines()]
    return str(rows[-1][kind])


def report(given: Arguments, *figures: Figures) -> None:
    """Leaves the figures for whoever started the program."""
    (given.out / "figures.json").write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
