"""One writer per store folder, by a kernel lock that dies with its holder."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from charrun.errors import EnvironmentProblem, Locked


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold a folder's lock.

    Raises:
        Locked: Another process holds it; the text says which.
        EnvironmentProblem: The folder can't be locked.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(str(folder / ".lock"))
    holder = folder / ".holder"
    try:
        lock.acquire(blocking=False)
    except Timeout:
        who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
        raise Locked(f"{folder} is being written by {who}", "wait for it to end, then run again") from None
    except OSError as error:
        raise EnvironmentProblem(f"cannot lock {folder}: {error.strerror or error}") from error
    try:
        with contextlib.suppress(OSError):  # the note is a courtesy; the lock is the kernel's
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}: {' '.join(sys.argv)}", "utf-8")
        yield
    finally:
        lock.release()
