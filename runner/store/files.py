"""Files that are whole or absent.

Contract:
1. A file is replaced whole or not at all.
2. A file is on the disk before its name is.
3. A new folder's name is on the disk before anything is written into it.
4. A damaged JSON file counts as missing.
5. A write that fails leaves no file behind.
6. What is set aside is renamed and never deleted.

A crash before the rename leaves the old file and a `.tmp-*` file that nothing reads and `charrun gc` lists; after it,
the new file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.faults import reached
from charrun.secrets import hide
from charrun.store.canonical import canonical, digest

ASIDE = ".tmp-"
"""Names of files that are being written begin so."""
_SUM = "sum"
_LENGTH = 16
_BLOCK = 1 << 20


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents, durably.

    Raises:
        EnvironmentProblem: The folder can't be made, or a file is in its place.
    """
    try:
        missing = []
        place = folder
        while not place.is_dir():
            missing.append(place)
            place = place.parent
        for place in reversed(missing):
            place.mkdir(exist_ok=True)
            sync_folder(place.parent)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot make the folder {folder}: {error.strerror or error}",
            "choose another place with --runs-dir",
        ) from error
    return folder


def write_atomic(path: Path, text: str | Iterable[str]) -> str:
    """Replace `path` by a text, or by pieces of one, whole or not at all.

    Returns:
        SHA-256 of what was written, as 64 hex digits.
    """
    aside = path.with_name(f"{ASIDE}{os.getpid()}-{path.name}")
    state = hashlib.sha256()
    try:
        with aside.open("wb") as file:
            for piece in [text] if isinstance(text, str) else text:
                block = hide(piece).encode()
                state.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        reached("file.written")
        try:
            os.replace(aside, path)
        except OSError as error:  # told of the file that was wanted, not of its draft
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)
    reached("file.renamed")
    sync_folder(path.parent)
    return state.hexdigest()


@contextlib.contextmanager
def alone(handle: int) -> Iterator[None]:
    """Keep other processes that do the same out of an open file; where files can't be locked, nobody is kept out."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with contextlib.suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)


def sync_file(path: Path) -> None:
    """Make a file's content durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    sync_file(folder)


def set_aside(folder: Path, names: Iterable[str]) -> list[Path]:
    """Rename entries of a folder so that nothing reads them any more, and nothing is lost; returns the new names."""
    names = list(names)
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if not any(f"{name}.aside-{n}" in taken for name in names))
    moved = [folder / f"{name}.aside-{number}" for name in names if name in taken]
    for path in moved:
        os.rename(path.with_name(path.name.removesuffix(f".aside-{number}")), path)
    sync_folder(folder)
    return moved


def write_rows(path: Path, rows: Iterable[Any]) -> str:
    """Write JSON lines, whole or not at all; returns the SHA-256 of the file."""
    return write_atomic(path, (canonical(row) + "\n" for row in rows))


def write_json(path: Path, value: dict[str, Any]) -> str:
    """Write an object as indented JSON with its checksum, whole or not at all."""
    return write_atomic(path, summed(json.loads(hide(canonical(value)))))


def summed(value: dict[str, Any]) -> str:
    """The text that `write_json` writes for an object without secrets."""
    return indented({**value, _SUM: digest(value)[:_LENGTH]})


def indented(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote, without the checksum; None where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        found = value.pop(_SUM)
        return value if found == digest(value)[:_LENGTH] else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def file_digest(path: Path) -> str | None:
    """SHA-256 of a file's bytes; None where it is missing or can't be read."""
    state = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
    except OSError:
        return None
    return state.hexdigest()


def read_rows(path: Path, sha256: str) -> list[Any] | None:
    """What `write_rows` wrote; None where the file is missing, or its bytes are not those of this SHA-256."""
    try:
        data = path.read_bytes()
        whole = hashlib.sha256(data).hexdigest() == sha256
        return [json.loads(line) for line in data.splitlines()] if whole else None
    except (OSError, ValueError):
        return None
