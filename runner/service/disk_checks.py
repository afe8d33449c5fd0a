"""Whether the disk takes what a run writes: room, writing, locks between processes, time stamps, compiled code."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.service.checks import Check

_LITTLE, _TOO_LITTLE = 2 << 30, 200 << 20
_FEW_FILES = 1000
_MOST_ENTRIES = 20_000
_FUTURE_SECONDS = 60
_HELD = 3
_TRY_TO_LOCK = f"""
import sys
from filelock import FileLock, Timeout
try:
    FileLock(sys.argv[1]).acquire(blocking=False)
except Timeout:
    sys.exit({_HELD})
"""


def runs_folder(runs_dir: Path) -> Iterator[Check]:
    """The runs folder, or where it will be made: writing, room, locks, time stamps.

    Raises:
        EnvironmentProblem: Nothing can be written there.
    """
    place = _existing(runs_dir)
    with _probe_folder(place) as probe:
        _write(probe)
        made = "" if place == runs_dir.absolute() else f", to be made in {place}"
        yield Check("runs", "ok", f"{runs_dir} can be written{made}")
        yield from _room(place)
        yield from _locks(probe)
    yield from _future(place if not made else None)


def require_room(runs_dir: Path) -> None:
    """Check that the disk of the runs folder has room.

    Raises:
        EnvironmentProblem: It has not: what is paid for could not be kept.
    """
    for check in _room(_existing(runs_dir)):
        if check.level == "problem":
            raise EnvironmentProblem(f"{check.what} for {runs_dir}: nothing was begun", check.advice)


def compiled_code() -> Iterator[Check]:
    """Where the local engine keeps its compiled loops from one start to the next."""
    from charrun.engine import kernels

    compiled: Any = kernels.exp2
    folder = compiled.stats.cache_path
    if folder:
        yield Check("cache", "ok", f"compiled loops are kept in {folder}")
    else:
        what = "compiled loops cannot be kept, so that each start of the local engine compiles them"
        yield Check("cache", "warning", what, "set NUMBA_CACHE_DIR to a folder that can be written")


def _existing(runs_dir: Path) -> Path:
    """The runs folder, or the nearest folder above it that is there."""
    place = runs_dir.absolute()
    while not place.exists():
        place = place.parent
    return place


@contextlib.contextmanager
def _probe_folder(place: Path) -> Iterator[Path]:
    try:
        folder = Path(tempfile.mkdtemp(prefix=".charrun-doctor-", dir=place))
    except OSError as error:
        raise EnvironmentProblem(
            f"{place} cannot be written: {error.strerror or error}", "choose another place with --runs-dir"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path) -> None:
    """What every file of a run is written by: beside its place, synced, renamed."""
    try:
        with (folder / "aside").open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
        os.replace(folder / "aside", folder / "whole")
    except OSError as error:
        raise EnvironmentProblem(
            f"writing in {folder.parent} fails: {error.strerror or error}", "choose another place with --runs-dir"
        ) from error


def _room(place: Path) -> Iterator[Check]:
    free = shutil.disk_usage(place).free
    shown = f"{free / 2**30:,.1f} GiB"
    advice = "make room, or choose another place with --runs-dir"
    if free < _LITTLE:
        yield Check("disk", "problem" if free < _TOO_LITTLE else "warning", f"only {shown} are free", advice)
    else:
        yield Check("disk", "ok", f"{shown} are free")
    if hasattr(os, "statvfs"):
        files = os.statvfs(place)
        if files.f_files and files.f_favail < _FEW_FILES:
            yield Check("disk", "problem", f"only {files.f_favail} more files fit on this disk", advice)


def _locks(folder: Path) -> Iterator[Check]:
    """A lock that is held must keep a second process out, and one that is free must not."""
    from filelock import FileLock

    path = str(folder / "lock")
    try:
        with FileLock(path, blocking=False):
            held = _try_to_lock(path)
        free = _try_to_lock(path)
    except OSError as error:
        held, free = 1, 1
        reason = f": {error.strerror or error}"
    else:
        reason = ""
    if (held, free) == (_HELD, 0):
        yield Check("lock", "ok", "a lock keeps a second process out")
    else:
        what = f"locks between processes do not work there{reason}"
        yield Check("lock", "problem", what, "put the runs on a local disk with --runs-dir")


def _try_to_lock(path: str) -> int:
    command = [sys.executable, "-c", _TRY_TO_LOCK, path]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).returncode


def _future(runs_dir: Path | None) -> Iterator[Check]:
    """Files of a coming time: a clock that went back, or a disk of another machine."""
    if runs_dir is None:
        return
    limit = time.time() + _FUTURE_SECONDS
    late = 0
    newest = runs_dir
    for path, stamp in itertools.islice(_stamps(runs_dir, 3), _MOST_ENTRIES):
        if stamp > limit:
            late, newest = late + 1, path
    if late:
        what = f"{late:,} files have time stamps to come, such as {newest}"
        yield Check("stamps", "warning", what, "check the clock, and that of the machine that holds the disk")
    else:
        yield Check("stamps", "ok", "no time stamps to come")


def _stamps(folder: Path, depth: int) -> Iterator[tuple[Path, float]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                yield Path(entry.path), entry.stat(follow_symlinks=False).st_mtime
                if depth > 1 and entry.is_dir(follow_symlinks=False):
                    yield from _stamps(Path(entry.path), depth - 1)
