"""Whether the process that wrote something still runs."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")
_SLACK_SECONDS = 5.0
"""Boot time is told in whole seconds, and clocks are set."""


def lives(pid: int, at: float) -> bool:
    """Whether the process that had a number at a time still runs.

    A process that began later has only inherited the number. Where the system does not tell when a process began
    (no /proc), any process of that number counts.

    Args:
        pid: The process's number.
        at: When it had it, in seconds since 1970.
    """
    if pid <= 0 or os.name != "posix":
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's process, or no number that a process can have: /proc tells
    try:
        # What follows the program's name, which may hold anything; a zombie (Z) has ended.
        fields = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        began = _boot_time() + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return fields[0] not in "ZX" and began <= at + _SLACK_SECONDS
    except (OSError, ValueError, IndexError):
        return not _PROC.joinpath("self", "stat").exists()


def _boot_time() -> int:
    for line in (_PROC / "stat").read_text(encoding="utf-8").splitlines():
        if line.startswith("btime "):
            return int(line.split()[1])
    raise ValueError("/proc/stat tells no boot time")
