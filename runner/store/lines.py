"""Files of sealed JSON lines that only grow: records, training steps, usage, the journal.

Contract:
1. A line is appended by one write.
2. A line carries a checksum of its own bytes.
3. A torn last line is dropped when its file is next opened for writing.
4. A damaged line is named and never used.
5. A line that the disk cuts short leaves nothing behind.
6. Closing a file makes it durable.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charrun.errors import EnvironmentProblem, disk_problem
from charrun.secrets import hide
from charrun.store import sync
from charrun.store.canonical import canonical
from charrun.store.files import sync_folder

_LENGTH = 16
_HEAD = b',"sum":"'
_TAIL = b'"}\n'
_SEAL = len(_HEAD) + _LENGTH + len(_TAIL)
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Line:
    """One whole, sound line.

    Attributes:
        value: What it says, without the checksum.
        offset: Where it begins in its file, in bytes.
        length: Its bytes, line break included.
    """

    value: dict[str, Any]
    offset: int
    length: int


def sealed(value: dict[str, Any]) -> bytes:
    """A value as a line with its checksum, which is the last field."""
    body = hide(canonical(value)).encode()
    return body[:-1] + _HEAD + hashlib.sha256(body).hexdigest()[:_LENGTH].encode() + _TAIL


def unsealed(line: bytes) -> dict[str, Any] | None:
    """What a line says; None where it is damaged."""
    body = line[:-_SEAL] + b"}"
    seal = _HEAD + hashlib.sha256(body).hexdigest()[:_LENGTH].encode() + _TAIL
    if line[-_SEAL:] != seal:
        return None
    value: dict[str, Any] = json.loads(body)
    return value


def read_lines(path: Path, damaged: list[int] | None = None) -> Iterator[Line]:
    """The sound lines of a file, in order; none where there is no file. A torn last line is not a line.

    Args:
        path: The file.
        damaged: Gets the number, from 1, of each line that is damaged.

    Raises:
        OSError: The file is there and can't be read.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    offset = 0
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            value = unsealed(line)
            if value is not None:
                yield Line(value, offset, len(line))
            elif damaged is not None:
                damaged.append(number)
            offset += len(line)


class GrowingFile:
    """A file of sealed lines that is open for appending.

    Attributes:
        path: Where it lies.
        failure: Why it could not be made durable in the background.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: OSError | None = None
        with self.told():
            is_new = not path.exists()
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            if is_new:
                sync_folder(path.parent)

    def fileno(self) -> int:
        """Its descriptor.

        Raises:
            ValueError: It is closed.
        """
        if self._handle < 0:
            raise ValueError("closed")
        return self._handle

    def close(self) -> None:
        """Make the lines durable and close the file; closing it twice is fine."""
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                os.fsync(self._handle)
            os.close(self._handle)
            self._handle = -1

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """What the system says of the file within the block is told as a person needs it.

        Raises:
            EnvironmentProblem: The disk is full or fails.
        """
        try:
            yield
        except OSError as error:
            raise disk_problem(f"cannot write {self.path}", error) from error

    def write(self, line: bytes, *, durable: bool = False) -> None:
        """Append a sealed line by one write; the disk has it within a second, or now with `durable`.

        Raises:
            OSError: The disk is full or fails; nothing of the line is left.
        """
        if self.failure is not None:
            raise self.failure
        if os.write(self._handle, line) != len(line):
            self._cut()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            os.fsync(self._handle)
        else:
            sync.grown(self)

    def _cut(self) -> None:
        """Drop the part of a line that the disk took."""
        raise NotImplementedError


class AppendFile(GrowingFile):
    """Such a file that nobody else writes: whoever opens it holds its folder's lock.

    Attributes:
        size: Bytes of its whole lines.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self.told():
            self.size = cut_torn_line(self._handle)

    def append(self, value: dict[str, Any], *, durable: bool = False) -> Line:
        """Append a line; the kernel has it when this returns, the disk within a second, or now with `durable`.

        Raises:
            EnvironmentProblem: The disk is full or fails; nothing of the line is left.
        """
        offset, line = self.size, sealed(value)
        with self.told():
            self.write(line, durable=durable)
        self.size += len(line)
        return Line(value, offset, len(line))

    def sync(self) -> None:
        """Make all lines durable now.

        Raises:
            EnvironmentProblem: The disk fails.
        """
        with self.told():
            os.fsync(self._handle)

    def read(self, offset: int, length: int) -> dict[str, Any]:
        """A line that was found sound before.

        Raises:
            EnvironmentProblem: It is not any more.
        """
        value = unsealed(os.pread(self._handle, length, offset))
        if value is None:
            raise EnvironmentProblem(f"{self.path} was changed or damaged meanwhile", "run the same command again")
        return value

    def _cut(self) -> None:
        os.ftruncate(self._handle, self.size)


def write_whole(handle: int, line: bytes, size: int) -> None:
    """One write at the end of a file of `size` bytes.

    Raises:
        OSError: The line could not be written whole; nothing of it is left.
    """
    written = os.write(handle, line)
    if written != len(line):
        os.ftruncate(handle, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def cut_torn_line(handle: int) -> int:
    """Drop what follows the last line break: a line that was being appended when its writer died.

    Returns:
        Bytes that are left.
    """
    end = size = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - _BLOCK)
        found = os.pread(handle, end - start, start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    if end < size:
        os.ftruncate(handle, end)
    return end
