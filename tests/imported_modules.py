"""Which modules a command imports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from conftest import REPOSITORY

# `-X importtime` leaves out what is imported by a name in a text, as commands and plugins are.
_PROGRAM = """
import atexit, sys
atexit.register(lambda: print("\\n".join(f"imported {name}" for name in sys.modules), file=sys.stderr))
from charrun.cli import main
main()
"""


def imported_by(*args: str, variables: Mapping[str, str] | None = None, folder: Path = REPOSITORY) -> set[str]:
    """Names of the modules that `charrun ARGS` has imported when it ends."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *args],
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, **(variables or {})},
    )
    return set(re.findall(r"^imported (\S+)$", done.stderr, re.MULTILINE))
