"""A killed `supervised.train.main` goes on where its checkpoints.jsonl says, with the optimizer's state."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import chz
import tinker
from client import RENDERER, Arguments, Figures, arguments, report
from supervised import config
from tinker_cookbook import checkpoint_utils
from tinker_cookbook.supervised import train

KILL_AFTER, STEPS = 9, 22
AGAIN = "CHARRUN_COOKBOOK_TRAIN"


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that another process may be writing, without one that is not yet complete."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def run(given: Arguments, kill: bool) -> None:
    """Trains in a process of its own; kills it, where wanted, when its checkpoints are far enough."""
    process = subprocess.Popen([sys.executable, *sys.argv], env={**os.environ, AGAIN: "1"})
    while kill and process.poll() is None:
        if any(row["batch"] >= KILL_AFTER for row in rows(given.out / "checkpoints.jsonl")):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.05)
    if process.wait() != (-signal.SIGKILL if kill else 0):
        sys.exit(f"the training process ended with {process.returncode}")


def compare(given: Arguments) -> Figures:
    """The killed run, the one that goes on, and what the checkpoint's run says of itself."""
    run(given, kill=True)
    killed = {row["step"]: row["train_mean_nll"] for row in rows(given.out / "metrics.jsonl")}
    start = rows(given.out / "checkpoints.jsonl")[-1]
    run(given, kill=False)
    resumed = rows(given.out / "metrics.jsonl")[len(killed) :]
    kept = checkpoint_utils.get_renderer_name_from_checkpoint(tinker.ServiceClient(), start["state_path"])
    steps = [row["step"] for row in resumed]
    whole = steps == list(range(start["batch"], STEPS))
    first, last = resumed[0]["train_mean_nll"], resumed[-1]["train_mean_nll"]
    passed = whole and kept == RENDERER and last < first < 0.9 * killed[0]
    note = f"killed after step {max(killed)}, went on from {steps[0]}; the run began at {killed[0]:.2f}"
    return Figures("train NLL/token", first, last, len(steps), passed, note)


def main() -> None:
    """Compare; or train, where this is the process that `run` started."""
    given = arguments()
    if AGAIN in os.environ:
        usual = config(given, str(given.data / "conversations.jsonl"))
        asyncio.run(train.main(chz.replace(usual, save_every=3, rolling_save_every=0, eval_every=0, max_steps=STEPS)))
    else:
        report(given, compare(given))


if __name__ == "__main__":
    main()
