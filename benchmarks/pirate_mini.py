"""The README's run, measured: seconds and tokens/s a stage, peak memory, and how long the model computed.

    python benchmarks/pirate_mini.py [SPEC] [--json FILE]

Runs `charrun SPEC` (by default specs/pirate-mini.yaml) in a fresh folder and a process of its own. The share of wall
time in which the model computed is the engine's own count of busy seconds over the run's wall time; memory is the
largest sum of resident pages over the runner and its engine, sampled every 50 ms, shared pages counted once each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
SAMPLE_SECONDS = 0.05


def main() -> None:
    """Run, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", nargs="?", type=Path, default=REPOSITORY / "specs" / "pirate-mini.yaml")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.spec, Path(folder))
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def measure(spec: Path, runs_dir: Path) -> dict[str, Any]:
    """One run's figures."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TINKER_")}
    environment["HOME"] = str(runs_dir)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "charrun", str(spec), "--runs-dir", str(runs_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=environment,
    )
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(proportional_bytes(pid) for pid in family(process.pid)))
        time.sleep(SAMPLE_SECONDS)
    wall = time.monotonic() - started
    if process.returncode:
        sys.exit(f"charrun {spec} ended with {process.returncode}")
    (run,) = runs_dir.glob("*/1/run.json")
    (cell,) = json.loads(run.read_text())["cells"]
    busy = busy_seconds(run.parent / "engine.log")
    return {"spec": spec.name, "wall_seconds": wall, "busy_seconds": busy, "peak_bytes": peak, "cell": cell}


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    try:  # each thread lists the children that it started
        lists = [task.joinpath("children").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return []
    found = [int(child) for children in lists for child in children.split()]
    return [pid, *(member for child in found for member in family(child))]


def proportional_bytes(pid: int) -> int:
    """A process's resident memory, pages shared with others divided among them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def busy_seconds(log: Path) -> float:
    """The engine's own count of seconds in which its compute thread worked, from its last words."""
    words = [line for line in log.read_text().splitlines() if "busy_seconds" in line]
    return float(json.loads(words[-1][words[-1].index("{") :])["busy_seconds"]) if words else float("nan")


def table(figures: dict[str, Any]) -> str:
    """The figures as a markdown table with a line of totals."""
    lines = ["| stage | rows | seconds | tokens | tokens/s |", "|---|---|---|---|---|"]
    for stage in figures["cell"]["stages"]:
        usage = stage["usage"]
        tokens = sum(count for name, count in usage.items() if name.endswith("_tokens"))
        rows = ", ".join(f"{n} {kind}" for kind, n in stage["rows"].items())
        rate = f"{tokens / stage['seconds']:,.0f}" if tokens else "-"
        lines.append(f"| {stage['id']} | {rows} | {stage['seconds']:.1f} | {tokens:,} | {rate} |")
    wall, busy = figures["wall_seconds"], figures["busy_seconds"]
    lines.append("")
    lines.append(
        f"{figures['spec']}: {wall:.1f} s wall; the model computed for {busy:.1f} s, {busy / wall:.0%} of it; "
        f"at most {figures['peak_bytes'] / 2**30:.2f} GiB over all processes"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
