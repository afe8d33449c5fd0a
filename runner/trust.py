"""Which local files a person has allowed to run, by path and content."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrun.home import home


def trust_file() -> Path:
    """`$XDG_STATE_HOME/charrun/trusted.json`, by default under `~/.local/state`."""
    state = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else home() / ".local/state"
    return folder / "charrun" / "trusted.json"


@dataclass(frozen=True)
class TrustStore:
    """The file of allowed files: absolute path to the sha256 of the content that was allowed.

    Whatever is wrong with the file, it allows nothing then: the worst of it is to be asked again.
    """

    path: Path = field(default_factory=trust_file)

    def trusts(self, file: Path, digest: str) -> bool:
        """Whether this content of the file was allowed."""
        return self._allowed().get(os.path.realpath(file)) == digest

    def knows(self, file: Path) -> bool:
        """Whether any content of the file was allowed."""
        return os.path.realpath(file) in self._allowed()

    def remember(self, file: Path, digest: str) -> None:
        """Allow this content of the file from now on, and no earlier one.

        Raises:
            OSError: It cannot be written down.
        """
        files = {**self._allowed(), os.path.realpath(file): digest}
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = self.path.with_name(f".tmp-{os.getpid()}-{self.path.name}")
        try:
            with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as new:
                json.dump({"version": 1, "files": files}, new, indent=2, sort_keys=True)
                new.flush()
                os.fsync(new.fileno())
            os.replace(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)

    def _allowed(self) -> Mapping[str, str]:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                # What others may write says nothing about what this person has allowed.
                if status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    return {}
                data: Any = json.load(file)
        except (OSError, ValueError, RecursionError):
            return {}
        files = data.get("files") if isinstance(data, dict) else None
        return {k: v for k, v in files.items() if isinstance(v, str)} if isinstance(files, dict) else {}
