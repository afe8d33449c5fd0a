"""Folders that are being written or replaced, and what a process that died has left of them.

Several engines may share one storage folder. Each holds a lock for as long as it lives, and the names of its drafts
carry the lock's: whoever opens the storage clears up after owners whose lock is free, that is, whose process is gone,
however it ended, and leaves the others alone.
"""

from __future__ import annotations

import re
import shutil
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

_DRAFT = re.compile(r"\.(?P<kind>new|old)-(?:(?P<owner>[0-9a-f]{32})-)?(?P<name>.+)")


class Drafts:
    """The drafts of one process under a root of `<run>/<kind>/<name>` folders.

    Args:
        root: The storage folder; it exists.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._owner = uuid.uuid4().hex
        with FileLock(root / ".opening.lock"):  # else one that opens now could take another's new lock for a free one
            self._lock = FileLock(self._lock_path(self._owner))
            self._lock.acquire()
            self._clear_up()

    def new(self, parent: Path) -> Path:
        """A new empty folder, invisible to readers."""
        draft = parent / f".new-{self._owner}-{uuid.uuid4().hex}"
        draft.mkdir()
        return draft

    def aside(self, folder: Path) -> Path:
        """Moves a folder out of its place; should this process die before the place is taken, it moves back."""
        old = folder.parent / f".old-{self._owner}-{folder.name}"
        folder.rename(old)
        return old

    def away(self, folder: Path) -> Path:
        """Takes a folder out of its place for good; whoever calls this, or whoever clears up, removes it."""
        gone = folder.parent / f".new-{self._owner}-{uuid.uuid4().hex}"
        folder.rename(gone)
        return gone

    def _lock_path(self, owner: str) -> Path:
        return self._root / f".owner-{owner}.lock"

    def _clear_up(self) -> None:
        living = set[str]()
        for path in self._root.glob(".owner-*.lock"):
            owner = path.name.removeprefix(".owner-").removesuffix(".lock")
            if owner == self._owner or not _free(path):
                living.add(owner)
            else:
                path.unlink(missing_ok=True)
        for folder in self._root.glob("*/*/.*"):
            draft = _DRAFT.fullmatch(folder.name)
            if draft is None or draft["owner"] in living:
                continue
            place = folder.parent / draft["name"]
            if draft["kind"] == "old" and not place.exists():
                folder.rename(place)
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _free(path: Path) -> bool:
    """Whether nobody holds a lock."""
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False
