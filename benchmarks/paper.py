"""A run of the paper's size: the runner's memory against a smoke run's, and how long a finished run takes to say so.

    python benchmarks/paper.py [--runs-dir DIR] [--scale paper]

Runs `specs/pirate-mini.yaml` at smoke and then at paper scale (9,150 pairs, 10,000 reflections, 2,000 conversations of
10 turns; an hour on two cores), and looks at the runner's resident memory (Rss in /proc, the engine not included)
every second. Then the same command again, on the finished folder, in a fresh process: the time of `charrun SPEC` and
of `charrun --help`, medians of five. A folder given by --runs-dir is kept, and a run in it that is finished is not
made again, so that the last figure can be taken from it later.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SPEC = REPOSITORY / "specs" / "pirate-mini.yaml"
MOST_MIB, MOST_SECONDS = 150, 2.0
TURNS = 5


def command(scale: str, runs_dir: Path) -> list[str]:
    """The run of a scale."""
    return [sys.executable, "-m", "charrun", str(SPEC), "--scale", scale, "--runs-dir", str(runs_dir / scale), "-q"]


def peak_mib(scale: str, runs_dir: Path) -> float:
    """Run a scale; the runner's largest resident memory in MiB."""
    process = subprocess.Popen(command(scale, runs_dir), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes = [int(line.split()[1]) / 1024 for line in lines if line.startswith("Rss:")]
        peak = max([peak, *sizes])
        time.sleep(1)
    if process.returncode:
        sys.exit(f"the {scale} run ended with {process.returncode}")
    return peak


def seconds(words: list[str]) -> float:
    """Median wall time of a command."""
    taken = []
    for _ in range(TURNS):
        started = time.perf_counter()
        subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, help="where the runs are kept; by default a folder that is removed")
    parser.add_argument("--scale", default="paper")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TINKER_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        runs_dir = options.runs_dir or Path(folder)
        small = peak_mib("smoke", runs_dir)
        started = time.monotonic()
        large = peak_mib(options.scale, runs_dir)
        taken = time.monotonic() - started
        again = seconds(command(options.scale, runs_dir))
        idle = seconds([sys.executable, "-m", "charrun", "--help"])
    more = large - small
    print(
        f"runner's memory: {small:,.0f} MiB at smoke scale, {large:,.0f} MiB at {options.scale} scale ({taken:,.0f} s)"
    )
    print(f"  {more:+,.0f} MiB, {'within' if more <= MOST_MIB else 'ABOVE'} the limit of {MOST_MIB} MiB")
    print(f"a finished {options.scale} run says so in {again:.2f} s ({again / idle:.1f} times `charrun --help`)")
    print(f"  {'within' if again <= MOST_SECONDS else 'ABOVE'} the limit of {MOST_SECONDS:.0f} s")


if __name__ == "__main__":
    main()
