"""Wall time of a run against its critical path, on a simulated service (benchmarks/service_sim).

    python benchmarks/orchestration.py [mini] [half]

`mini`: 2 seconds a sample, 400 sequences at once, training in clock cycles of 10 seconds. `half`: cycles of 1 second.
The critical path is what the service's own log of jobs comes to if each is begun as soon as what it was made from is
there (service_sim/critical.py): without a limit to how many run at once, and with the service's own. Beside it the same
jobs with 8 samples at a time, first in first out, one stage after the other. Wall time is the whole command's, with its
start; processor time and memory are the runner's.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from money import STAGES, command, models, spec_at
from service_sim.critical import least_seconds, one_by_one, read_jobs, summary
from service_sim.process import simulated

CAP, EIGHT, MOST_RATIO = 400, 8, 1.15
CYCLES = {"smoke": 1.0, "micro": 1.0, "mini": 10.0, "half": 1.0}
HEAD = (
    "| scale | cycle | requests | steps | wall | critical path | wall / path | with the cap | 8 at a time | "
    "runner, CPU a request | memory |"
)


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    wall: float
    cpu: float
    megabytes: float


def timed(args: list[str], environment: dict[str, str], log: Path) -> Ended:
    """Run it and measure it."""
    started = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(args, env=environment, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(log.read_text()[-3000:])
    return Ended(time.monotonic() - started, usage.ru_utime + usage.ru_stime, _megabytes(usage))


def _megabytes(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / 1024


def row(folder: Path, scale: str) -> tuple[str, float]:
    """A row of the table, and the wall time over the critical path."""
    cycle = CYCLES[scale]
    with simulated(folder / "service", models(), tokens=60, seconds=2.0, cap=CAP, cycle=cycle) as service:
        spec = spec_at(folder, f"[{scale}]", stages=re.sub(r"checkpoint_every: \d, ", "", STAGES))
        args = command(spec, folder / "runs")
        ended = timed(args, {**os.environ, **service.environment}, folder / "run.log")
    jobs = read_jobs(folder / "service" / "jobs.jsonl")
    counts = summary(jobs)
    path, capped = least_seconds(jobs, cycle), least_seconds(jobs, cycle, CAP)
    eight = least_seconds(one_by_one(jobs), cycle, EIGHT, in_stages=True)
    cells = (
        scale,
        f"{cycle:g} s",
        f"{len(jobs):,}",
        f"{counts['step']:,}",
        f"{ended.wall:,.0f} s",
        f"{path:,.0f} s",
        f"{ended.wall / path:.3f}",
        f"{capped:,.0f} s",
        f"{eight:,.0f} s",
        f"{ended.cpu / len(jobs) * 1000:.1f} ms",
        f"{ended.megabytes:,.0f} MiB",
    )
    return "| " + " | ".join(cells) + " |", ended.wall / path


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scales", nargs="*", choices=[*CYCLES], default=["mini", "half"])
    parser.add_argument("--keep", type=Path, help="where the folders stay")
    args = parser.parse_args()
    print(HEAD)
    print("|" + "---|" * (HEAD.count("|") - 1), flush=True)
    above = []
    with tempfile.TemporaryDirectory() as place:
        for scale in args.scales:
            folder = (args.keep or Path(place)) / scale
            folder.mkdir(parents=True)
            line, ratio = row(folder, scale)
            print(line, flush=True)
            above += [scale] if ratio > MOST_RATIO else []
    if above:
        sys.exit(f"more than {MOST_RATIO} x the critical path: {', '.join(above)}")


if __name__ == "__main__":
    main()
