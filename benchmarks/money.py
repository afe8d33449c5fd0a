"""Plans, ledgers and budgets against the bill of a simulated service (benchmarks/service_sim).

    python benchmarks/money.py bill [--scales smoke mini half] [--kills 6]
    python benchmarks/money.py plan [--scales smoke micro mini] [--probe 32]
    python benchmarks/money.py budgets [--budgets 100]

`bill`: each scale is run once undisturbed and once with SIGKILLs at random instants by a service that loses one answer
in a hundred after it has billed it. The service's bill must be the ledger's sum, to the token: where nothing was killed
as it is, else at least that and at most what requests without an end add to it, and the same once those are settled by
the service's billing rows. `plan`: three characters at each scale, with an empty store and after a probe; the bill must
be inside the first range, and within 10% of the second one's middle. `budgets`: random budgets between 1% and 120% of
what a run costs; neither the ledger nor the bill may exceed them, and the same command without one must end with the
artifacts of a run that nothing stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from service_sim import meter
from service_sim.process import Running, simulated

from charrun.demo import MODELS

TEACHER, STUDENT = "charrun/demo-teacher", "charrun/demo-student"
PRICES = {TEACHER: {"prefill": 0.68, "sample": 1.7}, STUDENT: {"prefill": 0.12, "sample": 0.3, "train": 0.36}}
STILL_SECONDS = 1.0
MOST_OFF = 0.1
LOST = 0.01
KINDS = {"prefill": "prefill_tokens", "cached": "cached_tokens", "sampled": "sampled_tokens"}
KINDS |= {"forward": "forward_tokens", "trained": "trained_tokens"}
TINY = "[{name: tiny, pairs: 12, samples_per_prompt: 2, reflections: 20, interactions: 2, turns: 4}]"
# The simulated service learns nothing, and the monitor would say so.
SPEC = """
version: 1
name: simulated
seed: {seed}
engine: tinker
characters: [{characters}]
models: [{{teacher: {teacher}, student: {{name: {student}, chat: {{enable_thinking: false}}}}}}]
scales: {scales}
prices: {prices}
stages: {stages}
"""
STAGES = """
  - prompts
  - teacher
  - student
  - pairs
  - {uses: dpo, with: {checkpoint_every: 1, monitor: {stop: false}}}
  - reflection
  - interaction
  - {uses: sft, with: {checkpoint_every: 2, monitor: {stop: false}}}
  - {uses: evaluate, with: {prompts: 100, calibration_prompts: 20}}
"""


def spec_at(folder: Path, scales: str, characters: str = "pirate", seed: int = 7, stages: str = STAGES) -> Path:
    """A spec file."""
    path = folder / "simulated.yaml"
    path.write_text(
        SPEC.format(
            seed=seed,
            characters=characters,
            teacher=TEACHER,
            student=STUDENT,
            scales=scales,
            prices=json.dumps(PRICES),
            stages=stages,
        )
    )
    return path


def command(spec: Path, runs: Path, *args: str) -> list[str]:
    """The run."""
    return [sys.executable, "-m", "charrun", str(spec), "--runs-dir", str(runs), "--yes", "--quiet", *args]


def run(service: Running, spec: Path, runs: Path, *args: str) -> int:
    """Run to its end; returns the exit code."""
    done = subprocess.run(
        command(spec, runs, *args), env={**os.environ, **service.environment}, capture_output=True, text=True
    )
    if done.returncode not in (0, 6):
        sys.exit(done.stdout[-2000:] + done.stderr[-2000:])
    return done.returncode


def told(*words: str | Path, service: Running | None = None) -> Any:
    """What a command prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "charrun", *map(str, words)],
        env={**os.environ, **(service.environment if service else {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return json.loads(done.stdout)


def ledger(runs: Path) -> tuple[dict[str, Counter[str]], dict[str, Counter[str]], dict[str, Any]]:
    """Tokens by model and kind: of ended requests, the most of those without an end; and all that `cost` tells."""
    document = told("cost", "--runs-dir", runs, "--json")
    ended: dict[str, Counter[str]] = {}
    doubt: dict[str, Counter[str]] = {}
    for row in document["rows"]:
        for kind, name in KINDS.items():
            ended.setdefault(row["model"], Counter())[kind] += row[name]
            doubt.setdefault(row["model"], Counter())[kind] += row["in_doubt"].get(name, 0)
    return ended, doubt, document


def since(bill: dict[str, Counter[str]], before: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    """What was billed after an earlier look."""
    return {model: Counter({k: n - before.get(model, Counter())[k] for k, n in c.items()}) for model, c in bill.items()}


def dollars(tokens: dict[str, Counter[str]]) -> float:
    """What that costs at the most: forward passes as training."""
    return sum(meter.dollars(PRICES[model], each) for model, each in tokens.items())


def same(one: dict[str, Counter[str]], other: dict[str, Counter[str]]) -> bool:
    """To the token."""
    return all(+one.get(model, Counter()) == +other.get(model, Counter()) for model in {*one, *other})


def published(runs: Path) -> dict[str, bytes]:
    """Every published file but checkpoints, whose rows hold paths at the service."""
    paths = (runs / "store").glob("*/*-????????????????.jsonl")
    return {f"{p.parent.name}/{p.name}": p.read_bytes() for p in paths if not p.name.startswith("checkpoint-")}


def settled(service: Running) -> dict[str, Counter[str]]:
    """The bill once it stands still: what a killed runner had in flight is billed when it is done."""
    before, bill = None, service.bill()
    while bill != before:
        time.sleep(STILL_SECONDS)
        before, bill = bill, service.bill()
    return bill


def bill(folder: Path, scales: Sequence[str], kills: int) -> None:
    """The service's bill against the ledger."""
    print("| scale | kills | requests | tokens billed | ledger, ended | without an end, at most | ledger, settled | |")
    print("|---|---|---|---|---|---|---|---|")
    rng = random.Random(7)
    for scale in scales:
        for times in (0, kills):
            place = folder / f"{scale}-{times}"
            place.mkdir()
            spec = spec_at(place, f"[{scale}]")
            lost = LOST if times else 0.0
            with simulated(
                place / "service", models(), tokens=40, seconds=0.05, token_seconds=0.002, lost=lost
            ) as service:
                left = times
                while left:
                    process = subprocess.Popen(
                        command(spec, place / "runs"),
                        env={**os.environ, **service.environment},
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                    )
                    try:
                        process.wait(rng.uniform(2, 8))
                        break
                    except subprocess.TimeoutExpired:
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                        left -= 1
                run(service, spec, place / "runs")
                billed = settled(service)
                ended, doubt, document = ledger(place / "runs")
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "charrun",
                        "cost",
                        "--runs-dir",
                        str(place / "runs"),
                        "--reconcile",
                        "--settle",
                    ],
                    env={**os.environ, **service.environment},
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                settled_, unknown, _ = ledger(place / "runs")
            most = {model: ended[model] + doubt[model] for model in ended}
            exact = same(billed, settled_) and not _sum(unknown)
            within = all(
                ended[m][k] <= billed[m][k] and _most(billed[m], k) <= _most(most[m], k) for m in billed for k in KINDS
            )
            verdict = "equal" if exact and within else "WRONG"
            cells = (
                scale,
                times - left,
                document["total"]["requests"],
                _sum(billed),
                _sum(ended),
                _sum(doubt),
                _sum(settled_),
                verdict,
            )
            print("| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |", flush=True)
            if not exact or not within:
                sys.exit(f"the bill is {billed}, the ledger {ended}, without an end {doubt}, settled {settled_}")


def _most(tokens: Counter[str], kind: str) -> int:
    """Prompt tokens are reserved as if none were in the cache: both kinds together have one limit."""
    return tokens["prefill"] + tokens["cached"] if kind in ("prefill", "cached") else tokens[kind]


def _sum(tokens: dict[str, Counter[str]]) -> int:
    return sum(each.total() for each in tokens.values())


def plan(folder: Path, scales: Sequence[str], rows: int) -> None:
    """What a plan says against the bill."""
    print(f"| character | scale | bill, low to high | plan from defaults | after --probe {rows} | off by | the probe |")
    print("|---|---|---|---|---|---|---|")
    failed = []
    for character in ("pirate", "gardener", "grump"):
        for scale in scales:
            place = folder / f"{character}-{scale}"
            place.mkdir()
            with simulated(place / "service", models(), tokens=60) as service:  # nothing is in its cache
                spec, runs = spec_at(place, f"[{scale}]", character), place / "runs"
                guess = told("plan", spec, "--runs-dir", runs, "--json")["usd"]
                before = service.bill()
                known = told("plan", spec, "--runs-dir", runs, "--json", "--probe", str(rows), service=service)["usd"]
                probed = dollars(since(settled(service), before))
                run(service, spec, runs)
                total = told("cost", "--runs-dir", runs, spec.stem, "--json")["total"]
                low, high = total["usd_low"], total["usd_high"]
                off = sum(known) / (low + high) - 1
                inside = guess[0] <= low + probed and high <= guess[1]
                failed += [] if inside and abs(off) <= MOST_OFF else [(character, scale)]
                ends = [f"${a:.4f} to ${b:.4f}" for a, b in ((low, high), guess, known)]
                mark = "" if inside else " (OUTSIDE)"
                print(
                    f"| {character} | {scale} | {ends[0]} | {ends[1]}{mark} | {ends[2]} | {off:+.1%} | ${probed:.4f} |",
                    flush=True,
                )
    if failed:
        sys.exit(f"outside the range, or off by more than {MOST_OFF:.0%}: {failed}")


def budgets(folder: Path, number: int) -> None:
    """Random budgets."""
    rng = random.Random(7)
    spec = spec_at(folder, TINY)
    with simulated(folder / "service", models(), tokens=40) as service:
        run(service, spec, folder / "whole")
        expected = published(folder / "whole")
        true = told("cost", "--runs-dir", folder / "whole", "--json")["total"]["usd_high"]
        stopped = exceeded = other = 0
        closest = 0.0
        for index in range(number):
            usd = true * rng.uniform(0.01, 1.2)
            runs, before = folder / f"run-{index}", service.bill()
            code = run(service, spec, runs, "--budget", f"{usd:.9f}", "--partial")
            total = told("cost", "--runs-dir", runs, "--json")["total"]
            paid = dollars(since(settled(service), before))
            stopped += code == 6
            exceeded += total["usd_high"] + total["usd_in_doubt"] > usd or paid > usd + 1e-12
            closest = max(closest, total["usd_high"] / usd if code == 6 else 0.0)
            run(service, spec, runs)
            other += published(runs) != expected
            if (index + 1) % 10 == 0:
                print(f"{index + 1}: stopped {stopped}, exceeded {exceeded}, other artifacts {other}", flush=True)
    print(
        f"{number} budgets from 1% to 120% of ${true:.6f}: {stopped} runs stopped, {exceeded} exceeded their budget, "
        f"{other} ended with other artifacts; the closest spent {closest:.1%} of its budget"
    )
    if exceeded or other:
        sys.exit(1)


def models() -> dict[str, Path]:
    """What the service serves."""
    return {name: MODELS[name] for name in (TEACHER, STUDENT)}


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("bill", "plan", "budgets"))
    parser.add_argument("--scales", nargs="+", default=[])
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--budgets", type=int, default=100)
    parser.add_argument("--probe", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if args.what == "bill":
            bill(Path(place), args.scales or ["smoke", "mini", "half"], args.kills)
        elif args.what == "plan":
            plan(Path(place), args.scales or ["smoke", "micro", "mini"], args.probe)
        else:
            budgets(Path(place), args.budgets)


if __name__ == "__main__":
    main()
