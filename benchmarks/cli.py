"""How long the command line takes before it does anything, and with many specs and large matrices.

    python benchmarks/cli.py [--runs 20]

Measures the `charrun` that is installed beside the Python that runs this. The first table has medians of interleaved
runs and what they are above `python -c pass`, which is measured with them. An editable install pays for its import hook
in every Python process, also in the reference; install with `pip install .` to see what users pay.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

SPEC = Path(__file__).parent.parent / "specs" / "pirate-mini.yaml"
CHARRUN = str(Path(sys.executable).parent / "charrun")
PASS = (sys.executable, "-c", "pass")
STARTS: dict[str, tuple[tuple[str, ...], float]] = {
    "charrun --help": ((CHARRUN, "--help"), 0.15),
    "charrun validate specs/pirate-mini.yaml": ((CHARRUN, "validate", str(SPEC)), 0.4),
}
"""Commands with the most seconds that they may take beyond `python -c pass`."""
HEAVY = {"torch", "transformers", "tinker"}
HEAVY_FOR_HELP = {*HEAVY, "numpy", "rich", "jsonschema", "yaml"}
SPECS, SPECS_SECONDS = 1000, 5.0
CELLS_SECONDS = 3.0
CHARACTERS, SCALES = 50, 5

_IMPORTS = """
import atexit, sys
atexit.register(lambda: print("\\n".join(f"imported {name}" for name in sys.modules), file=sys.stderr))
from charrun.cli import main
main()
"""
_OWN = """\
version: 1
name: spec-{number}
seed: {number}
characters: [pirate]
models: [{{teacher: charrun/demo-teacher, student: charrun/demo-student}}]
scales: [mini]
engine: local
stages:
  - prompts
  - teacher
  - student
  - pairs
  - {{uses: dpo, with: {{beta: 0.{number:04d}1, learning_rate: 5e-4}}}}
  - reflection
  - interaction
  - {{uses: sft, with: {{learning_rate: 1.25e-4}}}}
  - evaluate
  - export
"""
_EXTENDING = (
    "extends: spec-0.yaml\nname: spec-{number}\nseed: {number}\nstages: {{dpo: {{with: {{beta: 0.{number:04d}2}}}}}}\n"
)
_CHARACTER = """\
  - id: person-{number}
    name: Person {number}
    description: a person who is number {number}
    traits:
      - trait: I think of the number {number}.
        questions: [What is {number} plus one?, Is {number} a large number?]
      - trait: I never forget where I was in the year {number}.
        questions: [Where were you in {number}?, What do you remember of {number}?]
"""


def seconds(command: Sequence[str], folder: Path) -> float:
    """Wall time of a command that must succeed."""
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)[:200]}\nended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
        )
    return took


def imported(words: Sequence[str], folder: Path) -> set[str]:
    """Modules that `charrun WORDS` has imported when it ends."""
    command = [sys.executable, "-c", _IMPORTS, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return set(re.findall(r"^imported (\S+)$", done.stderr, re.MULTILINE))


def starts(runs: int, folder: Path) -> bool:
    """Prints the first table; whether all is within its limit."""
    commands = {"python -c pass": PASS, **{name: command for name, (command, _) in STARTS.items()}}
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        seconds(command, folder)  # compiled files, the disk's cache
    for _ in range(runs):
        for name, command in commands.items():
            taken[name].append(seconds(command, folder))
    reference = statistics.median(taken["python -c pass"])
    print(f"{'command':<42}{'median':>8}{'more':>8}{'limit':>8}   ({runs} runs each)")
    good = True
    for name, each in taken.items():
        median = statistics.median(each)
        line = f"{name:<42}{median:>7.3f}s"
        if name in STARTS:
            limit = STARTS[name][1]
            good &= median - reference <= limit
            line += f"{median - reference:>7.3f}s{limit:>7.2f}s   {verdict(median - reference, limit)}"
        print(line)
    return good


def imports(folder: Path) -> bool:
    """Prints whether a start imports what it must not."""
    good = True
    for words, heavy in ((["--help"], HEAVY_FOR_HELP), (["validate", str(SPEC)], HEAVY)):
        found = imported(words, folder)
        bad = sorted(found & heavy)
        good &= not bad
        told = f"imports {', '.join(bad)}" if bad else f"none of {', '.join(sorted(heavy))} among {len(found)} modules"
        print(f"charrun {words[0]:<12} {told}")
    return good


def many_specs(folder: Path) -> bool:
    """Prints how long it takes to validate many specs at once."""
    paths = []
    for number in range(SPECS):
        text = _EXTENDING if number % 3 == 1 else _OWN
        paths.append(folder / f"spec-{number}.yaml")
        paths[-1].write_text(text.format(number=number))
    took = seconds([CHARRUN, "validate", *map(str, paths)], folder)
    told = verdict(took, SPECS_SECONDS)
    print(f"validate {SPECS:,} specs, a third with extends: {took:.2f} s, limit {SPECS_SECONDS:.0f} s   {told}")
    return took <= SPECS_SECONDS


def large_matrix(folder: Path) -> bool:
    """Prints how long a plan of a large matrix takes."""
    numbers = range(CHARACTERS)
    scales = [
        f"{{name: scale-{n}, pairs: {n + 10}, samples_per_prompt: 1, reflections: 10, interactions: 2, turns: 4}}"
        for n in range(SCALES)
    ]
    models = ["{teacher: charrun/demo-teacher, student: charrun/demo-student, id: one}"]
    models += ["{teacher: charrun/demo-teacher, student: charrun/demo-student-small, id: two}"]
    text = _OWN.format(number=1).replace("scales: [mini]", f"scales: [{', '.join(scales)}]")
    text = text.replace("characters: [pirate]", "characters:\n" + "".join(_CHARACTER.format(number=n) for n in numbers))
    text = re.sub("^models: .*$", f"models: [{', '.join(models)}]", text, flags=re.MULTILINE)
    path = folder / "matrix.yaml"
    path.write_text(text)
    cells = CHARACTERS * len(models) * SCALES
    took = seconds([CHARRUN, "plan", str(path)], folder)
    print(f"plan a matrix of {cells} cells: {took:.2f} s, limit {CELLS_SECONDS:.0f} s   {verdict(took, CELLS_SECONDS)}")
    return took <= CELLS_SECONDS


def verdict(took: float, limit: float) -> str:
    return "ok" if took <= limit else "TOO SLOW"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("TINKER_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        results = [starts(asked.runs, folder), imports(folder), many_specs(folder), large_matrix(folder)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
