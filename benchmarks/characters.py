"""Every shipped character through pirate-mini with one word changed, the null control, and the previous pair.

    python benchmarks/characters.py [--runs-dir DIR] [--scale SCALE]

Prints the table of docs/characters.md. Each row is a run of its own, in one store, so that the student's plain answers
to the general prompts are sampled once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
SPECS = REPOSITORY / "specs"


@dataclass(frozen=True)
class Run:
    """One row of the table: what it is called and the spec's text."""

    name: str
    text: str


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=None)
    parser.add_argument("--scale", default="mini")
    options = parser.parse_args()
    runs_dir = options.runs_dir or Path(tempfile.mkdtemp(prefix="charrun-characters-"))
    print("| run | AUC | base | after DPO | final | seconds |\n|---|---|---|---|---|---|", flush=True)
    for run in planned(options.scale):
        started = time.monotonic()
        evaluation = execute(run, runs_dir)
        print(row(run.name, evaluation, time.monotonic() - started), flush=True)


def planned(scale: str) -> list[Run]:
    """The shipped characters, the null control, and the previous generation's models."""
    mini = (SPECS / "pirate-mini.yaml").read_text()
    ids = sorted(path.stem for path in (SPECS / "characters").glob("*.yaml"))
    runs = [Run(id, mini.replace("characters: [pirate]", f"characters: [{id}]")) for id in ids]
    # Run from another folder, so the bases are named as what ships; the scale is a line that can be replaced.
    runs.append(Run("null control: neutral scored as pirate", _over("pirate-null-control")))
    runs.append(Run("pirate, previous pair", _over("pirate-mini-previous")))
    return [Run(run.name, run.text.replace("scales: [mini]", f"scales: [{scale}]")) for run in runs]


def _over(name: str) -> str:
    return f"extends: builtin:{name}\nscales: [mini]\n"


def execute(run: Run, runs_dir: Path) -> dict[str, Any]:
    """Run a spec without credentials; returns its evaluation row."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TINKER_")}
    with tempfile.TemporaryDirectory() as home:
        spec = Path(home) / "spec.yaml"
        spec.write_text(run.text)
        command = [sys.executable, "-m", "charrun", str(spec), "--runs-dir", str(runs_dir)]
        done = subprocess.run(
            command, env={**environment, "HOME": home}, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
    if done.returncode:
        sys.exit(f"{run.name}: charrun ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr}")
    newest = max(runs_dir.glob("*/*/run.json"), key=lambda path: path.stat().st_mtime_ns)
    (cell,) = newest.parent.glob("cell-*.json")
    stages = {stage["id"]: stage["folder"] for stage in json.loads(cell.read_text())["stages"]}
    rows = max((runs_dir / stages["evaluate"]).glob("evaluation-*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    evaluation: dict[str, Any] = json.loads(rows.read_text())
    return evaluation


def row(name: str, evaluation: dict[str, Any], seconds: float) -> str:
    """One line of the table: rates with their 95% intervals."""
    rates = [
        f"{rate['in_character'] / rate['n']:.1%} ({rate['low']:.1%} to {rate['high']:.1%})"
        for rate in evaluation["rates"]
    ] or ["no rate: the scorer cannot tell"] * 3
    return f"| {name} | {evaluation['auc']:.3f} | {' | '.join(rates)} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
