"""One writer per store folder.

Contract:
1. One process writes a folder at a time.
2. A second writer is told who holds it.
3. A dead holder blocks nobody.
4. A lock that nobody holds needs no cleaning up.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys
from pathlib import Path

from charrun.errors import EnvironmentProblem, Locked
from charrun.secrets import hide

LOCK, HOLDER = ".lock", ".holder"


class FolderLock:
    """The kernel's lock of a folder, held from `acquire` to `release` or the process's end."""

    def __init__(self, folder: Path) -> None:
        from filelock import FileLock

        self.folder = folder
        # Its stand-in for file systems without locks would outlive a killed holder.
        self._lock = FileLock(str(folder / LOCK), fallback_to_soft=False)

    def acquire(self) -> None:
        """Take it, or fail at once.

        Raises:
            Locked: Another process holds it; the text says which.
            EnvironmentProblem: The folder can't be locked.
        """
        from filelock import Timeout

        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise Locked(
                f"{self.folder} is being written by {self._holder()}",
                "wait for it to end, then run again; or add --wait",
            ) from None
        except (OSError, NotImplementedError) as error:
            raise EnvironmentProblem(
                f"cannot lock {self.folder}: {getattr(error, 'strerror', None) or error}",
                "charrun needs a file system with locks: choose a local disk with --runs-dir",
            ) from error
        with contextlib.suppress(OSError):  # the note is a courtesy; the lock is the kernel's
            command = hide(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
            note = f"process {os.getpid()} on {socket.gethostname()}: {command}"
            (self.folder / HOLDER).write_text(note, "utf-8")

    def release(self) -> None:
        """Let others in."""
        self._lock.release()

    def _holder(self) -> str:
        try:
            return (self.folder / HOLDER).read_text(encoding="utf-8") or "another process"
        except (OSError, ValueError):
            return "another process"
