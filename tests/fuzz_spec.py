"""Fuzz of the spec language: whatever a spec holds, it is loaded or refused in words, in time and in its folder.

`python tests/fuzz_spec.py --inputs 1000000 --jobs 2` prints what it found; each find can be made again by its number
(`--seed S --first N --inputs 1`).
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import fuzz_inputs
from fuzz_inputs import SPEC, Corpus, Input

import charrun.plugins
import charrun.spec
from charrun.commands.loading import resolve
from charrun.errors import Problem, SpecError
from charrun.plugin_manager import Registry, load_registry
from charrun.spec import Spec, shipped_schema, specs_folder
from charrun.spec.prices import fetched_file

ERRORS = Path(__file__).parent / "errors"
SECONDS = 2.0
"""Processor time within which every input must be answered."""

_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_CHARRUN = tuple(
    os.path.realpath(folder)
    for folder in (Path(charrun.spec.__file__).parents[1], Path(charrun.plugins.__file__).parent, specs_folder())
)
_FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.spawn", "os.fork", "os.remove", "os.rename", "exec",
              "os.mkdir", "shutil.", "ctypes.", "urllib.")  # fmt: skip
_CONTROLS = {*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F)} - {0x0A}


class Breach(BaseException):
    """Something that no spec may bring about. No `except Exception` of the code under test can hide it."""


class Slow(BaseException):
    """An input that takes too long."""


@dataclass
class Jail:
    """What the process may do while an input is loaded, seen by an audit hook, which can never be taken away again."""

    folder: str = ""
    closed: bool = False

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.closed:
            return
        if event == "open" and isinstance(args[0], str | bytes):
            path = os.path.realpath(os.fsdecode(args[0]))
            inside = any(path.startswith(folder + os.sep) for folder in (self.folder, *_CHARRUN))
            if _writes(args[2]) or not (inside or path == os.path.realpath(fetched_file())):
                raise Breach(f"opens {path}")
        elif event == "exec" and args[0].co_names == ("__jinja_exception__",):
            # jinja2 raises its errors once more, so that a traceback names the template.
            return
        elif event.startswith(_FORBIDDEN):
            raise Breach(f"{event} {args!r:.200}")

    @contextmanager
    def shut(self, folder: str) -> Iterator[None]:
        self.folder, self.closed = os.path.realpath(folder), True
        try:
            yield
        finally:
            self.closed = False


def _writes(flags: Any) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR))


JAIL = Jail()
_hooked: list[Jail] = []


@dataclass
class Fuzz:
    """A folder in which inputs are loaded one after the other.

    Attributes:
        jail: The only folder, beside charrun's own, in which a file may be opened.
        folder: The folder in it that inputs lie in.
        outcomes: How many inputs had which problem first, or were sound.
        finds: What broke a rule: the number of the input and what happened.
    """

    jail: Path
    folder: Path
    registry: Registry
    corpus: Corpus
    outcomes: Counter[str] = field(default_factory=Counter)
    finds: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)

    @classmethod
    def begin(cls, folder: Path) -> Fuzz:
        """Copy what inputs may name into a folder in `folder`, and import what loading needs."""
        jail, folder = folder, folder / "within" / "it"  # so that `../x` and `../../x` stay within
        folder.mkdir(parents=True)
        for name in ("characters", "bases", "broken.j2"):
            source = ERRORS / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
        registry = load_registry(third_party=False)
        schemas: list[Mapping[str, Any]] = [shipped_schema(name) for name in ("spec", "character", "scale")]
        schemas += [stage.options_schema for stage in registry.stages.values()]
        schemas += [engine.options_schema for engine in registry.engines.values()]
        names = [*registry.stages, *registry.engines, *registry.templates, *registry.characters, *registry.scales]
        fuzz = cls(jail, folder, registry, fuzz_inputs.corpus([specs_folder(), ERRORS], schemas, names))
        if not _hooked:
            sys.addaudithook(JAIL)
            _hooked.append(JAIL)
        "".encode("unicode_escape")
        # Modules that are imported when first needed: opening them is no breach.
        for case in ("templates", "template-variables", "options", "not-utf-8"):
            with _in(ERRORS):
                fuzz.load(f"{case}.yaml", ())
        return fuzz

    def load(self, path: str, sets: tuple[str, ...]) -> Spec | SpecError:
        try:
            return resolve(path, sets, self.registry)
        except SpecError as error:
            return error

    def run(self, seed: int, numbers: range) -> None:
        """Load the inputs of these numbers."""
        with _in(self.folder), _watched():
            for number in numbers:
                began = time.process_time()
                try:
                    self.one(fuzz_inputs.make(self.corpus, seed, number))
                except (Exception, Breach, Slow, AssertionError) as error:
                    signal.setitimer(signal.ITIMER_PROF, 0)
                    self.finds.append((number, "".join(traceback.format_exception(error))))
                self.slowest = max(self.slowest, (time.process_time() - began, number))

    def one(self, given: Input) -> None:
        """Load one input and check the answer."""
        # The reader keeps bases by name, size and time of change, which may be the same for two inputs.
        charrun.spec.layers._parsed.clear()  # type: ignore[attr-defined]
        for name, raw in given.files.items():
            (self.folder / name).write_bytes(raw)
        with JAIL.shut(str(self.jail)):
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            answer = self.load(SPEC, given.sets)
            signal.setitimer(signal.ITIMER_PROF, 0)
        if isinstance(answer, SpecError):
            assert answer.problems, "an error without problems"
            assert any(problem.severity == "error" for problem in answer.problems), "warnings alone stop the spec"
            self.outcomes[answer.problems[0].code] += 1
            told = answer.problems
        else:
            names = [cell.name for cell in answer.cells]
            assert names and len(set(names)) == len(names), "cells without names of their own"
            json.dumps(answer.to_dict(), allow_nan=False)
            self.outcomes["sound"] += 1
            told = answer.warnings
        assert len(set(told)) == len(told), "a problem is told twice"
        for problem in told:
            check_problem(problem, given)


def check_problem(problem: Problem, given: Input) -> None:
    """A problem can be shown, in one line each for message and hint, and has a place that is there."""
    text = problem.render()
    assert len(text.splitlines()) <= 4, f"too many lines: {problem}"
    bad = [character for character in text if ord(character) in _CONTROLS or 0xD7FF < ord(character) < 0xE000]
    assert not bad, f"control characters {bad} in {text!r}"
    assert problem.message == problem.message.strip(), f"spaces around: {problem}"
    assert "Traceback" not in text
    if not problem.line:
        return
    lines = _BREAKS.split(_text(problem.file, given).removeprefix("\ufeff"))
    assert 1 <= problem.line <= len(lines), f"line outside of the file: {problem}"
    line = lines[problem.line - 1]
    assert 1 <= problem.column <= len(line) + 1, f"column outside of the line: {problem}"
    assert 1 <= problem.width <= max(1, len(line) + 1 - problem.column), f"caret outside of the line: {problem}"


def _text(name: str, given: Input) -> str:
    if name in given.files:
        return given.files[name].decode("utf-8", "replace")
    if name.startswith("--set #"):
        text = given.sets[int(name.removeprefix("--set #")) - 1]
        try:
            return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        except UnicodeEncodeError:
            return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    path = specs_folder() / f"{name.removeprefix('builtin:')}.yaml" if name.startswith("builtin:") else Path(name)
    return path.read_bytes().decode("utf-8", "replace")


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _watched() -> Iterator[None]:
    """Turns the process's timer into `Slow`."""

    def alarm(signum: int, frame: FrameType | None) -> None:
        raise Slow(f"more than {SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, alarm)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


HOSTILE: dict[str, bytes] = {
    "larger than 1 MiB": b"a: '" + b"x" * (2 << 20) + b"'\n",
    "500,000 values": b"[" + b"a," * 500_000 + b"]",
    "50,000 open brackets": b"[" * 50_000,
    "50,000 open braces": b"{" * 50_000,
    "50,000 dashes": b"- " * 50_000,
    "50,000 question marks": b"? " * 50_000,
    "a million laughs": b"a0: &a0 [x, x]\n"
    + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1) for i in range(1, 60)),
    "an alias within itself": b"a: &a [*a]\n",
    "deep through aliases": b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d]\n" % (i, i, i - 1) for i in range(1, 200)),
    "python tags": b"!!python/object/apply:os.system [ls]\n",
    "100,000 documents": b"---\na\n" * 100_000,
    "a million digits": b"seed: " + b"9" * 1_000_000,
    "one line of a million characters": b"x: {" + b"a" * 1_000_000,
    "variables that double": b"vars:\n  a0: [x, x]\n"
    + b"".join(b"  a%d: ['${vars.a%d}', '${vars.a%d}']\n" % (i, i - 1, i - 1) for i in range(1, 60)),
    "not UTF-8": b"\xff" * 1_000_000,
    "control characters": b"\x01" * 1_000_000,
}
"""Files that must be refused at once, before anything is built of them."""


def hostile_times(fuzz: Fuzz) -> dict[str, tuple[float, str]]:
    """Seconds to refuse each hostile file, and the first code."""
    found = {}
    with _in(fuzz.folder):
        for name, raw in HOSTILE.items():
            Path(SPEC).write_bytes(raw)
            began = time.perf_counter()
            answer = fuzz.load(SPEC, ())
            seconds = time.perf_counter() - began
            found[name] = (seconds, answer.problems[0].code if isinstance(answer, SpecError) else "sound")
    return found


def _job(seed: int, numbers: range) -> Fuzz:
    faulthandler.enable()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz.begin(Path(folder))
        # The last resort against a hang in the C parser, which no signal handler of Python's can end.
        faulthandler.dump_traceback_later(60 + len(numbers) / 20, exit=True)
        fuzz.run(seed, numbers)
        faulthandler.cancel_dump_traceback_later()
        return fuzz


def _told(job: tuple[int, range]) -> tuple[Counter[str], list[tuple[int, str]], tuple[float, int]]:
    fuzz = _job(*job)
    return fuzz.outcomes, fuzz.finds, fuzz.slowest


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=20_000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first input")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--jobs", type=int, default=1, metavar="N")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz.begin(Path(folder))
        for name, (seconds, code) in hostile_times(fuzz).items():
            print(f"{seconds * 1000:8.1f} ms  {code}  {name}")
        if given.inputs == 1:
            one = fuzz_inputs.make(fuzz.corpus, given.seed, given.first)
            for name, raw in one.files.items():
                print(f"--- {name}\n{raw!r}")
            print("--- sets", one.sets)
    began = time.perf_counter()
    last, chunk = given.first + given.inputs, 10_000
    jobs = [(given.seed, range(at, min(at + chunk, last))) for at in range(given.first, last, chunk)]
    outcomes: Counter[str] = Counter()
    finds: list[tuple[int, str]] = []
    slowest = (0.0, -1)
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        for done, future in enumerate(as_completed(pool.submit(_told, job) for job in jobs), 1):
            codes, found, slow = future.result()
            outcomes += codes
            finds += found
            slowest = max(slowest, slow)
            for number, what in found:
                print(f"input {number}: {what}", flush=True)
            print(f"{done * chunk:,} inputs, {time.perf_counter() - began:,.0f} s, {len(finds)} finds", flush=True)
    for code, count in outcomes.most_common():
        print(f"{count:9,}  {code}")
    print(f"slowest: input {slowest[1]} with {slowest[0]:.2f} s")
    last_lines = Counter(what.strip().splitlines()[-1][:120] for _, what in finds)
    for line, count in last_lines.most_common():
        print(f"{count:9,} finds: {line}")
    return 1 if finds else 0


if __name__ == "__main__":
    sys.exit(main())
