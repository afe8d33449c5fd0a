"""Exports encrypted with age: tinker-cookbook fetches a training checkpoint through an encrypted copy alone.

The encryption is pyrage's, which is an extra of this package: whoever asks for it without one is told so.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from charrun.engine.errors import RequestRefused

SUFFIX = ".age"
MAX_RECIPIENTS = 10


def check_recipients(recipients: Sequence[str]) -> None:
    """Raises RequestRefused where one cannot be encrypted to, or pyrage is not installed."""
    if len(recipients) > MAX_RECIPIENTS:
        raise RequestRefused(f"There are {len(recipients)} recipients; age_encryption_recipients takes 10 at most.")
    _parsed(recipients)


def encrypt_folder(folder: Path, recipients: Sequence[str]) -> None:
    """Puts an encrypted file, its name with `SUFFIX`, in the place of each file of a folder.

    Raises:
        RequestRefused: As `check_recipients`.
    """
    keys = _parsed(recipients)
    for path in sorted(folder.iterdir()):
        _pyrage().encrypt_file(str(path), f"{path}{SUFFIX}", keys)
        path.unlink()


def _parsed(recipients: Sequence[str]) -> list[Any]:
    pyrage = _pyrage()
    keys = []
    for recipient in recipients:
        kind = pyrage.ssh if recipient.startswith("ssh-") else pyrage.x25519
        try:
            keys.append(kind.Recipient.from_str(recipient))
        except pyrage.RecipientError as error:
            raise RequestRefused(f"{recipient[:80]!r} is not an age recipient: {error}.") from error
    return keys


def _pyrage() -> Any:
    try:
        return importlib.import_module("pyrage")
    except ImportError:
        raise RequestRefused(
            "This engine cannot encrypt what it exports, since pyrage is not installed: install charrun[age], or leave "
            "age_encryption_recipients out."
        ) from None
