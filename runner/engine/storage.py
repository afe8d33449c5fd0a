"""A storage folder without an engine: what it holds, whether that is sound, and taking a checkpoint out of it.

An engine may run on the folder meanwhile. A checkpoint is renamed away before it is removed, as the engine itself does
it, so that readers find it whole or not at all; what a kill leaves is cleared up by whichever engine opens the storage
next. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
"""Folder and path segment of each kind of checkpoint, with the protocol's word for it."""
META = "meta.json"
VERSION = 2
"""Of meta.json: from 2 on it holds the SHA-256 of each other file, and one of itself."""
ENCRYPTED = ".age"
_LENGTH = 16
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """A checkpoint in a storage folder.

    Attributes:
        path: `tinker://<run>/<kind>/<name>`.
        folder: Where it lies.
        note: What its client attached to it.
        size: Bytes of its files.
        created: When it was saved, in seconds since 1970.
        expires: When its time is over, in seconds since 1970; None means never.
    """

    path: str
    folder: Path
    note: Mapping[str, str]
    size: int
    created: float
    expires: float | None


def folder_of(storage: Path, path: str) -> Path:
    """Where a checkpoint lies or would lie; run ids lose their colons, which some tools cannot copy."""
    run, _, rest = path.removeprefix("tinker://").partition("/")
    return storage / run.replace(":", "_") / rest


def meta_text(meta: Mapping[str, Any]) -> str:
    """A meta.json's text, with its checksum."""
    plain = {name: value for name, value in meta.items() if name != "sum"}
    return json.dumps({**plain, "version": VERSION, "sum": _sum({**plain, "version": VERSION})}, indent=2) + "\n"


def meta_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint's meta.json says.

    Raises:
        OSError: There is none, or it can't be read.
        ValueError: It is damaged.
    """
    text = (folder / META).read_bytes().decode()
    meta = json.loads(text)
    if not isinstance(meta, dict):
        raise ValueError("it is no object")
    if meta.get("version") != 1 and text != meta_text(meta):
        raise ValueError("its checksum does not fit")
    meta.pop("sum", None)
    return meta


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a checkpoint but its meta.json."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.name != META}


def holds(storage: Path, path: str) -> bool:
    """Whether a checkpoint is there and sound, and its time is not over."""
    try:
        expires = meta_of(folder_of(storage, path))["expires"]
        over = expires is not None and datetime.fromisoformat(expires) <= datetime.now(UTC)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return not over and damage(storage, path) is None


def stored(storage: Path) -> Iterator[Stored]:
    """Every checkpoint of a storage folder, by path; what is damaged or in the making is left out."""
    for place in sorted(storage.glob("*/*/*/" + META)):
        folder, kind = place.parent, place.parent.parent.name
        if kind not in KINDS or folder.name.startswith("."):
            continue
        try:
            meta = meta_of(folder)
            yield Stored(
                path=f"tinker://{folder.parent.parent.name.replace('_', ':')}/{kind}/{folder.name}",
                folder=folder,
                note={str(key): str(value) for key, value in (meta.get("user_metadata") or {}).items()},
                size=int(meta["size_bytes"]),
                created=datetime.fromisoformat(meta["created"]).timestamp(),
                expires=datetime.fromisoformat(meta["expires"]).timestamp() if meta["expires"] else None,
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue


def damage(storage: Path, path: str) -> tuple[Path, str] | None:
    """What is wrong with a checkpoint, every byte of it read: the file and the reason; None where it is sound."""
    folder = folder_of(storage, path)
    try:
        meta = meta_of(folder)
        wanted = meta.get("sha256") or dict.fromkeys(_expected(meta))
    except FileNotFoundError:
        return folder, "is not there"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return folder / META, f"is damaged: {error}"
    for name, sha256 in wanted.items():
        file = folder / name
        if not file.exists() and (folder / f"{name}{ENCRYPTED}").exists():
            continue
        try:
            wrong = file_digest(file) != sha256 if sha256 else not _has_header(file)
        except OSError as error:
            return file, f"cannot be read: {error.strerror or error}"
        if wrong:
            return file, "is damaged"
    return None


def remove(storage: Path, path: str) -> int:
    """Take a checkpoint out for good; returns the bytes of its files, 0 where there is none.

    Raises:
        OSError: It can't be renamed.
    """
    folder = folder_of(storage, path)
    gone = folder.parent / f".new-{uuid.uuid4().hex}-{uuid.uuid4().hex}"  # a draft of an owner that does not live
    try:
        size = sum(file.stat().st_size for file in folder.iterdir())
        folder.rename(gone)
    except FileNotFoundError:
        return 0
    shutil.rmtree(gone, ignore_errors=True)
    return size


def _expected(meta: Mapping[str, Any]) -> list[str]:
    """Files of a checkpoint that an earlier version saved, which says no digests."""
    return ["adapter_model.safetensors", *(["optimizer.safetensors"] if meta["has_optimizer"] else [])]


def _has_header(path: Path) -> bool:
    """Whether a safetensors file begins with its header and has all the bytes that it tells of."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            return False
        try:
            header = json.loads(file.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return False
    return bool(path.stat().st_size == 8 + length + max(ends, default=0))


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        OSError: It can't be read.
    """
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            state.update(block)
    return state.hexdigest()


def _sum(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()[:_LENGTH]
