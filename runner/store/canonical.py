"""Canonical JSON and the digests made of it: the identity of requests, inputs and rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20


def canonical(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: The value holds NaN or infinity.
        TypeError: The value is not made of JSON types.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_rows(rows: Iterable[Any]) -> str:
    """SHA-256 over rows in their order."""
    state = hashlib.sha256()
    for row in rows:
        state.update(canonical(row).encode() + b"\n")
    return state.hexdigest()


def seed_from(*parts: Any) -> int:
    """A 31-bit seed that depends on the parts alone."""
    return int(digest(list(parts))[:8], 16) & 0x7FFFFFFF


def folder_digest(folder: Path) -> str:
    """Identity of a local model folder: small files whole, large ones by size, first and last megabyte."""
    state = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.is_file()):
        size = path.stat().st_size
        state.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            state.update(file.read(_BLOCK))
            if size > 2 * _BLOCK:
                file.seek(size - _BLOCK)
            state.update(file.read(_BLOCK))
    return state.hexdigest()
