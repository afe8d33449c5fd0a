"""Files that are whole or absent.

`write_atomic` writes beside the target, fsyncs the file, renames it over the target and fsyncs the folder. A crash
before the rename leaves the old file and a `.tmp-*` file that nothing reads; after it, the new file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem
from charrun.store.canonical import canonical


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents.

    Raises:
        EnvironmentProblem: The folder can't be made, or a file is in its place.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot make the folder {folder}: {error.strerror or error}",
            "choose another place with --runs-dir",
        ) from error
    return folder


def write_atomic(path: Path, text: str) -> None:
    """Replace `path` by `text`, whole or not at all."""
    aside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a folder's entries durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside(folder: Path, names: Iterable[str]) -> None:
    """Rename entries of a folder so that nothing reads them any more, and nothing is lost."""
    taken = {path.name for path in folder.iterdir()}
    number = next(n for n in range(1, len(taken) + 2) if not any(f"{name}.aside-{n}" in taken for name in names))
    for name in names:
        if name in taken:
            os.rename(folder / name, folder / f"{name}.aside-{number}")
    sync_folder(folder)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines, whole or not at all."""
    write_atomic(path, "".join(canonical(row) + "\n" for row in rows))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, whole or not at all."""
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


def cut_torn_line(path: Path) -> None:
    """Drop what follows the last newline: a line that was being appended when its writer died."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            file.seek(end - 1)
            if file.read(1) == b"\n":
                break
            end -= 1
        file.truncate(end)


def read_json(path: Path) -> Any:
    """The value of a JSON file, or None where the file is missing or holds no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def read_rows(path: Path) -> Iterator[Any]:
    """Rows of a JSON-lines file; a torn last line (a crash while appending) is not a row."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
