"""A minute of mixed load: answers are right and memory stays flat while clients are killed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.faults
def test_a_minute_of_mixed_load_with_killed_clients_loses_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "soak.py"), "--minutes", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
