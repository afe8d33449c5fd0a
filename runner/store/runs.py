"""Runs as they lie on disk: found, read and never written.

A run may be in the making, cut off at any instant, damaged by hand, or another program's folder: what can be read is
told, and what cannot is named. Nothing here takes a lock, so that looking at a run never stands in its way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from charrun.errors import CharrunError, UsageProblem
from charrun.store.cells import CellView, cells_of
from charrun.store.files import read_json
from charrun.store.journal import Journal, last_time, read_journal
from charrun.store.replay import Replay, text_of

JOURNAL = "journal.jsonl"
NOT_RUNS = ("store", "engine")
"""Folders beside the runs: no spec's runs are there."""


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        name: The spec's name.
        number: Which resolved spec of that name.
        folder: Its folder, `<runs-dir>/<name>/<number>`.
        status: running, finished, failed, interrupted (by a person), or stopped (ended without a word).
        started: When it first began, in seconds since 1970; None where its journal does not tell.
        last: Time of its last event.
        engine: Name of the engine.
        stand_ins: Named model to the model that stands in for it.
        cells: Its cells, in the spec's order.
        error: Why it failed.
        hint: What to do next, where the journal tells.
        command: The command that began or continued it last, where the journal tells.
        damage: What of it cannot be read, in one line; empty where all can.
        selection: The part of the spec that it was begun or continued with last.
        spec_path: The spec file of that time; empty where the journal does not tell.
        folders: By stage item, the folders of its options' paths that are not beside that file.
        rates: By base model, what its tokens cost in picodollars each, as it was told last; None where nobody knows.
        budget: US dollars that it may cost, as it was told last.
    """

    name: str
    number: int
    folder: Path
    status: str
    started: float | None
    last: float | None
    engine: str
    stand_ins: Mapping[str, str]
    cells: tuple[CellView, ...]
    error: str = ""
    hint: str = ""
    command: str = ""
    damage: str = ""
    selection: Mapping[str, Any] = field(default_factory=dict)
    spec_path: str = ""
    folders: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, int | None] | None] = field(default_factory=dict)
    budget: float | None = None

    @property
    def id(self) -> str:
        """Name and number, such as `pirate-mini/2`."""
        return f"{self.name}/{self.number}"

    @property
    def runs_dir(self) -> Path:
        """The folder that holds the run, its store and its engine's checkpoints."""
        return self.folder.parent.parent

    @property
    def tokens(self) -> int:
        """Tokens behind all of its rows, whichever run spent them; what cells share counts once."""
        stages = [stage for cell in self.cells for stage in cell.stages]
        counted = {(stage.folder or id(stage), stage.seconds, stage.tokens): stage.tokens for stage in stages}
        return sum(counted.values())

    @property
    def spec(self) -> Mapping[str, Any]:
        """The frozen spec; empty where it is damaged."""
        return _mapping(self.folder / "spec.json")


@dataclass(frozen=True)
class Found:
    """The runs of a folder.

    Attributes:
        runs: Those that can be read at least in part, the latest last.
        strange: Numbered folders that are no runs, each with the reason.
    """

    runs: tuple[Run, ...]
    strange: tuple[tuple[Path, str], ...]


def find_runs(runs_dir: Path) -> Found:
    """Every run of a folder; none where the folder is missing.

    Raises:
        OSError: The folder is there and can't be read.
    """
    runs, strange = [], []
    for folder in _numbered(runs_dir):
        try:
            runs.append(read_run(folder))
        except (CharrunError, OSError) as error:
            strange.append((folder, _reason(error)))
    return Found(tuple(sorted(runs, key=lambda run: (run.last or 0.0, run.name, run.number))), tuple(strange))


def run_ids(runs_dir: Path) -> list[str]:
    """Name and number of every run of a folder, by name; no run is read."""
    return [f"{folder.parent.name}/{folder.name}" for folder in _numbered(runs_dir) if _is_run(folder)]


def find_run(runs_dir: Path, text: str = "") -> Run:
    """The run that a person names.

    Args:
        runs_dir: Where runs are kept.
        text: `name/number`, a name for its latest run, the path of a run's folder, or nothing for the latest of all.

    Raises:
        UsageProblem: There is no such run; the text has what there is.
    """
    folders = [folder for folder in _numbered(runs_dir) if _is_run(folder)]
    meant = [f for f in folders if text in ("", f.parent.name, f"{f.parent.name}/{f.name}")]
    if not meant and text and _is_run(Path(text)):
        meant = [Path(os.path.abspath(text))]
    if not meant:
        raise _unknown(runs_dir, text, folders)
    return read_run(max(meant, key=lambda folder: (last_time(folder / JOURNAL), int(folder.name))))


def read_run(folder: Path, journal: Journal | None = None) -> Run:
    """A run's folder, `<runs-dir>/<name>/<number>`, as it is now.

    Args:
        folder: The folder.
        journal: What to take its journal for; by default what lies there.

    Raises:
        UsageProblem: The folder is not a run's.
        OSError: Something in it can't be read.
    """
    if not _is_run(folder):
        raise UsageProblem(f"{folder} is not a run: it has neither spec.json nor {JOURNAL}")
    spec, journal = _mapping(folder / "spec.json"), journal or read_journal(folder / JOURNAL)
    whole = isinstance(spec.get("stages"), list)
    replay = Replay()
    replay.feed(journal.events)
    trace = replay.trace()
    return Run(
        name=folder.parent.name,
        number=int(folder.name),
        folder=folder,
        status=trace.status,
        started=trace.started,
        last=trace.last,
        engine=trace.engine or text_of(_mapping_in(spec, "engine"), "uses"),
        stand_ins=trace.stand_ins,
        cells=cells_of(folder, spec, trace),
        error=trace.error,
        hint=trace.hint,
        command=trace.command,
        selection=trace.selection,
        spec_path=trace.spec_path,
        folders=trace.folders,
        rates=trace.rates,
        budget=trace.budget,
        damage=journal.damage or ("" if whole else "spec.json is missing or damaged"),
    )


def _numbered(runs_dir: Path) -> Iterator[Path]:
    if not runs_dir.exists():
        return
    for home in sorted(runs_dir.absolute().iterdir()):
        if home.name not in NOT_RUNS and not home.name.startswith(".") and home.is_dir() and os.access(home, os.R_OK):
            yield from sorted(p for p in home.iterdir() if _is_number(p.name) and p.is_dir())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10


def _is_run(folder: Path) -> bool:
    return _is_number(folder.resolve().name) and any((folder / name).is_file() for name in ("spec.json", JOURNAL))


def _mapping(path: Path) -> Mapping[str, Any]:
    value = read_json(path)
    return value if isinstance(value, dict) else {}


def _mapping_in(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _reason(error: Exception) -> str:
    if isinstance(error, CharrunError):
        return error.message.rpartition(": ")[2]
    return str(getattr(error, "strerror", "") or error)


def _unknown(runs_dir: Path, text: str, folders: list[Path]) -> UsageProblem:
    if not folders:
        hint = "`charrun SPEC` makes one; --runs-dir names another place"
        return UsageProblem(f"there are no runs in {runs_dir}", hint)
    ids = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    names = list(dict.fromkeys(folder.parent.name for folder in folders))
    near = [id for id in names if id.startswith(text)] or get_close_matches(text, [*names, *ids], n=1, cutoff=0.6)
    known = ", ".join(ids[-8:]) + (f" and {len(ids) - 8} more (`charrun runs` lists them)" if len(ids) > 8 else "")
    meant = f"did you mean '{near[0]}'? " if near else ""
    return UsageProblem(f"there is no run '{text}' in {runs_dir}", f"{meant}there is {known}")
