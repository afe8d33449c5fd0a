"""What of a store no run refers to, found and deleted.

Contract:
1. A store folder that a run refers to is never garbage.
2. A run whose journal cannot be read keeps everything.
3. A final checkpoint is never touched.
4. An intermediate checkpoint that a training may go on from is kept.
5. A dry run deletes nothing.
6. A folder that another process writes is left alone.
7. What became used between the list and the deletion is left alone.
8. A collection that was killed leaves nothing that looks whole.

References are what the journals tell: each names every store folder that its run has made, found or used, whether the
run ended or not. Checkpoints lie at an engine, so `charrun.pipeline.garbage` looks after them.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from charrun.errors import EnvironmentProblem, Locked
from charrun.faults import reached
from charrun.store.files import ASIDE, read_json, sync_folder
from charrun.store.journal import ends_whole, folders_in, read_journal
from charrun.store.lock import HOLDER, LOCK, FolderLock
from charrun.store.probes import PROBES, probed_folders
from charrun.store.process import lives
from charrun.store.run import JOURNAL, SNAPSHOT, SPEC
from charrun.store.runs import NOT_RUNS
from charrun.store.tickets import read_ticket, tickets

Kind = Literal["folder", "set aside", "left over", "half deleted"]

_FOLDER = re.compile(r".+-[0-9a-f]{16}")
_SET_ASIDE = re.compile(r".+\.aside-\d+")
_LEFT_OVER = re.compile(rf"{re.escape(ASIDE)}(?:(?P<pid>\d+)-)?.+")
_TRASH = re.compile(r"\.trash-(?P<pid>\d+)-(?P<time>\d+)-.+")
_DEAD_SECONDS = 24 * 3600.0
"""A file that has been in the making for so long has no writer."""


@dataclass(frozen=True)
class Garbage:
    """Something that nothing refers to.

    Attributes:
        path: Where it lies.
        kind: A store folder; what `--force` or a damaged ticket had set aside; a file that its writer never finished;
            a folder that an earlier collection had begun to delete.
        size: Bytes.
        changed: When it was changed last, in seconds since 1970.
        folder: The store folder that it is or lies in, whose lock is taken first; None elsewhere.
    """

    path: Path
    kind: Kind
    size: int
    changed: float
    folder: Path | None = None


@dataclass(frozen=True)
class StoreSurvey:
    """What a folder of runs refers to, and what of its store nothing does.

    Attributes:
        used: By name of a store folder the runs that refer to it.
        kept: Store folders that stay, with their bytes.
        garbage: What nothing refers to.
    """

    used: Mapping[str, tuple[str, ...]]
    kept: Mapping[Path, int]
    garbage: tuple[Garbage, ...]


def references(runs_dir: Path) -> dict[str, tuple[str, ...]]:
    """Every store folder that a run refers to, with those runs; a probe does where it has filled one.

    Raises:
        EnvironmentProblem: A journal can't be read, so that what its run refers to is not known.
    """
    found: dict[str, set[str]] = {}
    for folder in _run_folders(runs_dir):
        for name in _referred(folder):
            found.setdefault(name, set()).add(f"{folder.parent.name}/{folder.name}")
    for name in probed_folders(runs_dir):
        found.setdefault(name, set()).add(PROBES)
    for name in list(found):
        for ticket in map(read_ticket, tickets(runs_dir / "store" / name)):
            for shared in ticket.shared if ticket else ():
                found.setdefault(shared, set()).update(found[name])
    return {name: tuple(sorted(runs)) for name, runs in sorted(found.items())}


def survey(runs_dir: Path) -> StoreSurvey:
    """Look at a store; nothing is locked or written.

    Raises:
        EnvironmentProblem: A journal or a folder can't be read.
    """
    runs_dir = runs_dir.absolute()
    used, store = references(runs_dir), runs_dir / "store"
    kept: dict[Path, int] = {}
    garbage: list[Garbage] = []
    try:
        for path in sorted(store.iterdir()) if store.is_dir() else ():
            if path.is_symlink() or not path.is_dir():
                continue
            if trash := _TRASH.fullmatch(path.name):
                if not lives(int(trash["pid"]), int(trash["time"])):
                    garbage.append(_garbage(path, "half deleted"))
            elif _FOLDER.fullmatch(path.name) and not path.name.startswith("."):
                if path.name in used:
                    kept[path] = size_of(path)
                    garbage += _within(path, path)
                else:
                    garbage.append(_garbage(path, "folder", path))
        for folder in _run_folders(runs_dir):
            garbage += _within(folder, None)
    except OSError as error:
        raise _unreadable(Path(error.filename or store), error.strerror or str(error)) from error
    return StoreSurvey(used, kept, tuple(garbage))


@contextmanager
def locked(folders: Iterable[Path]) -> Iterator[Mapping[Path, str]]:
    """Hold the locks of store folders; yields those that cannot be had, with the reason."""
    reasons: dict[Path, str] = {}
    with ExitStack() as stack:
        for folder in sorted(set(folders)):
            if not folder.is_dir():
                continue
            lock = FolderLock(folder)
            try:
                lock.acquire()
            except (Locked, EnvironmentProblem) as error:
                reasons[folder] = error.message
            else:
                stack.callback(lock.release)
        yield reasons


def delete(garbage: Garbage, store: Path) -> None:
    """Delete it, whole or not at all: what is renamed away first is found by the next collection.

    Raises:
        OSError: It can't be deleted, or not all of it.
    """
    if not garbage.path.is_dir():
        garbage.path.unlink(missing_ok=True)
        return
    gone = garbage.path
    if garbage.kind != "half deleted":
        gone = store / f".trash-{os.getpid()}-{time.time():.0f}-{garbage.path.name}"
        os.rename(garbage.path, gone)
        sync_folder(garbage.path.parent)
        reached("gc.moved")
    shutil.rmtree(gone)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.lstat().st_size for file in _files(path))


def _garbage(path: Path, kind: Kind, folder: Path | None = None) -> Garbage:
    files = [file for file in _files(path) if file.name not in (LOCK, HOLDER)]
    changed = max((file.lstat().st_mtime for file in files), default=path.lstat().st_mtime)
    return Garbage(path, kind, size_of(path), changed, folder)


def _files(path: Path) -> list[Path]:
    if path.is_symlink() or not path.is_dir():
        return [path]
    return [Path(home) / name for home, _, names in os.walk(path) for name in names]


def _within(folder: Path, lock: Path | None) -> Iterator[Garbage]:
    """What is set aside or left over in a folder."""
    for home, inner, names in os.walk(folder):
        for name in sorted([*inner, *names]):
            path = Path(home) / name
            if _SET_ASIDE.fullmatch(name) and lock is not None:
                yield _garbage(path, "set aside", lock)
            elif (found := _LEFT_OVER.fullmatch(name)) and not _is_written(path, found["pid"]):
                yield _garbage(path, "left over", lock)
        inner[:] = [name for name in inner if not _SET_ASIDE.fullmatch(name)]


def _is_written(path: Path, pid: str | None) -> bool:
    """Whether the process that its name tells of may still be at it; one on another machine is given a day."""
    at = path.lstat().st_mtime
    if at < time.time() - _DEAD_SECONDS:
        return False
    return lives(int(pid), at) if pid else True


def _run_folders(runs_dir: Path) -> Iterator[Path]:
    """Every folder that is a run's, or was before it was damaged."""
    try:
        homes = sorted(runs_dir.iterdir()) if runs_dir.exists() else []
        for home in homes:
            if home.name in NOT_RUNS or home.name.startswith(".") or not home.is_dir():
                continue
            for folder in sorted(home.iterdir()):
                if folder.name.isascii() and folder.name.isdigit() and folder.is_dir():
                    names = {path.name for path in folder.iterdir()}
                    if names & {SPEC, JOURNAL, SNAPSHOT} or any(name.startswith("cell-") for name in names):
                        yield folder
    except OSError as error:
        raise _unreadable(Path(error.filename or runs_dir), error.strerror or str(error)) from error


def _referred(folder: Path) -> Iterator[str]:
    """Names of the store folders that a run's journal names."""
    path = folder / JOURNAL
    try:
        if not path.exists() or (path.is_file() and not path.stat().st_size):
            if {each.name for each in folder.iterdir() if not each.name.startswith(ASIDE)} <= {SPEC, JOURNAL}:
                return  # killed before its first event
            raise _unreadable(path, "it is empty" if path.exists() else "it is missing")
        journal = read_journal(path)
        if not ends_whole(path):
            raise _unreadable(path, "it ends within a line, and more of it may be lost")
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    if journal.damage:
        raise _unknown(str(folder / journal.damage))
    yield from folders_in(journal.events)
    for cell in filter(None, map(read_json, folder.glob("cell-*.json"))):  # should the journal's end be lost
        yield from (str(stage.get("folder")).rpartition("/")[2] for stage in cell.get("stages", ()))


def _unreadable(path: Path, reason: str) -> EnvironmentProblem:
    return _unknown(f"{path}: {reason}")


def _unknown(what: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"nothing is deleted, since it is not known what every run refers to: {what}",
        "charrun verify tells more; go on with the run, or move its folder away if nobody needs it, then run the same "
        "command again",
    )
