"""One lab and one table for all tests of faults."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from faults.lab import Lab, laboratory
from faults.matrix import Matrix

WRITES = "CHARRUN_FAULTS_TABLE"
"""Set by whoever wants the table in docs/durability.md to be written anew: CHARRUN_FAULTS_TABLE=1 pytest -m faults."""


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """An engine, a proxy, a spec, and what an undisturbed run of it makes."""
    with laboratory(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture(scope="session")
def matrix() -> Iterator[Matrix]:
    """What was tried and survived."""
    counted = Matrix()
    yield counted
    print(f"\n{counted.table()}")
    if os.environ.get(WRITES):
        counted.write()
