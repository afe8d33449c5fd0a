"""The person's home folder, where there is one."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The home folder; where the system knows none, a path at which nothing can be.

    Never a path relative to the working folder, whose files may be a stranger's.
    """
    found = os.path.expanduser("~")
    return Path(found) if os.path.isabs(found) else Path(os.devnull)
