"""Checkpoints on disk: PEFT folders that are complete or not there.

A folder is written beside its final place, every file synced, then renamed. A replaced one is moved aside first and
removed afterwards; should the process die between the two renames, the next opening of the store moves it back.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from charrun.engine.age import SUFFIX, encrypt_folder
from charrun.engine.checkpoint_records import Checkpoint, CheckpointName, SaveRequest, read_meta
from charrun.engine.drafts import Drafts
from charrun.engine.errors import RequestRefused
from charrun.engine.lora import Adapter, peft_fields
from charrun.engine.storage import KINDS, META, VERSION, damage, digests, file_digest, folder_of, meta_of, meta_text
from charrun.faults import reached

SWEEP_EVERY = 600.0
"""Seconds between two looks for checkpoints whose time is over."""

logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints under one root folder; any thread may use it."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self._drafts = Drafts(self.root)
        self._names = threading.RLock()  # held while a name changes hands, never while files are written
        self._rewrites = threading.Lock()  # so that of two changes to one meta.json none is lost
        self._sweep_at = 0.0
        self.sweep()

    def folder(self, place: CheckpointName) -> Path:
        """Where a checkpoint lies or would lie."""
        return folder_of(self.root, place.path)

    def save(self, request: SaveRequest) -> Checkpoint:
        """Writes a checkpoint.

        Raises:
            RequestRefused: The name is taken and may not be replaced.
        """
        self.sweep()
        final = self.folder(request.place)
        if not request.overwrite and self._taken(request.place):
            raise RequestRefused(f"{request.place.path} exists; choose another name or save with overwrite=True.")
        final.parent.mkdir(parents=True, exist_ok=True)
        draft = self._drafts.new(final.parent)
        try:
            meta = _write(draft, request)
            reached("engine.written")
            with self._names:
                old = self._drafts.aside(final) if final.exists() else None
                draft.rename(final)
            reached("engine.renamed")
            _sync(final.parent)
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        logger.info("saved %s", request.place.path)
        return read_meta(request.place, meta)

    def _taken(self, place: CheckpointName) -> bool:
        """Whether something that is not expired lies there."""
        found = self._read(self.folder(place), place)
        return self.folder(place).exists() and not (found is not None and found.expired)

    def _read(self, folder: Path, place: CheckpointName) -> Checkpoint | None:
        """What lies in a folder; None where there is nothing, or nothing that can be understood."""
        try:
            return read_meta(place, meta_of(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s is damaged and left alone: %s: %s", folder, type(error).__name__, error)
            return None

    def find(self, path: str) -> Checkpoint:
        """The checkpoint at a tinker path.

        Raises:
            RequestRefused: There is none, or its time is over.
        """
        place = CheckpointName.parse(path)
        with self._names:
            checkpoint = self._read(self.folder(place), place)
        if checkpoint is None:
            raise RequestRefused(f"There is no checkpoint {place.path}.", 404)
        if checkpoint.expired:
            raise RequestRefused(f"The checkpoint {place.path} expired at {checkpoint.expires}.", 404)
        return checkpoint

    def find_sound(self, path: str) -> Checkpoint:
        """The checkpoint at a tinker path, every byte of it read: one that is damaged counts as gone.

        Raises:
            RequestRefused: There is none, its time is over, or it is damaged.
        """
        checkpoint = self.find(path)
        found = damage(self.root, checkpoint.place.path)
        if found is not None:
            raise RequestRefused(f"There is no checkpoint {checkpoint.place.path}: {found[0].name} {found[1]}.", 404)
        return checkpoint

    def adapter(self, checkpoint: Checkpoint) -> Adapter:
        """The adapter's tensors, on the CPU.

        Raises:
            RequestRefused: They are not there any more, or damaged.
        """
        return Adapter.from_tensors(checkpoint.lora, self._load(checkpoint, "adapter_model.safetensors"))

    def optimizer(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Adam's tensors, on the CPU.

        Raises:
            RequestRefused: They were not saved, are not there any more, or damaged.
        """
        if not checkpoint.has_optimizer:
            raise RequestRefused(f"{checkpoint.place.path} holds no optimizer state.")
        return self._load(checkpoint, "optimizer.safetensors")

    def _load(self, checkpoint: Checkpoint, name: str) -> dict[str, Tensor]:
        path = self.folder(checkpoint.place) / name
        try:
            if checkpoint.sha256.get(name, "") not in ("", file_digest(path)):
                raise RequestRefused(f"{name} of {checkpoint.place.path} is damaged: its checksum does not fit.")
            tensors: dict[str, Tensor] = load_file(str(path))
        except FileNotFoundError:
            if (self.folder(checkpoint.place) / f"{name}{SUFFIX}").exists():
                raise RequestRefused(f"{checkpoint.place.path} is encrypted; this engine cannot read it.") from None
            raise RequestRefused(f"The checkpoint {checkpoint.place.path} is gone.", 404) from None
        except SafetensorError as error:
            raise RequestRefused(f"{name} of {checkpoint.place.path} is damaged: {error}.") from error
        return tensors

    def all(self, run: str | None = None) -> list[Checkpoint]:
        """Every checkpoint that is not expired, of one run or of all, newest first."""
        found = [each for each in self._every(run) if not each.expired]
        return sorted(found, key=lambda each: (each.created, each.place.path), reverse=True)

    def _every(self, run: str | None = None) -> Iterator[Checkpoint]:
        pattern = f"{run.replace(':', '_')}/*/*/meta.json" if run else "*/*/*/meta.json"
        for path in self.root.glob(pattern):
            folder, kind = path.parent, path.parent.parent.name
            if folder.name.startswith(".") or kind not in KINDS:
                continue
            place = CheckpointName(folder.parent.parent.name.replace("_", ":"), kind, folder.name)
            checkpoint = self._read(folder, place)
            if checkpoint is not None:
                yield checkpoint

    def sweep(self) -> None:
        """Removes expired checkpoints, if none were looked for lately."""
        if time.monotonic() < self._sweep_at:
            return
        self._sweep_at = time.monotonic() + SWEEP_EVERY
        for checkpoint in [each for each in self._every() if each.expired]:
            self.delete(checkpoint)

    def set_lifetime(self, checkpoint: Checkpoint, seconds: int | None) -> None:
        """Lets a checkpoint expire so many seconds from now; None means never."""
        self._rewrite(checkpoint, {"expires": _expiry(seconds)})

    def set_public(self, checkpoint: Checkpoint, public: bool) -> None:
        """Marks a checkpoint as published or not."""
        self._rewrite(checkpoint, {"public": public})

    def _rewrite(self, checkpoint: Checkpoint, fields: Mapping[str, Any]) -> None:
        folder = self.folder(checkpoint.place)
        with self._rewrites:
            try:
                meta = meta_of(folder)
                draft = _draft_meta(folder, {**meta, **fields})
                with self._names:
                    found = self._read(folder, checkpoint.place)
                    if found is None or found.token != meta["token"]:
                        raise FileNotFoundError
                    draft.replace(folder / META)
                _sync(folder)
            except FileNotFoundError:
                raise RequestRefused(f"The checkpoint {checkpoint.place.path} is gone or was replaced.", 404) from None

    def copy(self, checkpoint: Checkpoint, place: CheckpointName, ttl_seconds: int | None) -> Checkpoint:
        """A checkpoint of its own with the same files; they share the disk's blocks where the disk can.

        Raises:
            RequestRefused: The original is gone.
        """
        final = self.folder(place)
        final.parent.mkdir(parents=True, exist_ok=True)
        draft = self._drafts.new(final.parent)
        try:
            shutil.copytree(self.folder(checkpoint.place), draft, copy_function=_link_or_copy, dirs_exist_ok=True)
            meta = meta_of(draft)
            now = datetime.now(UTC).isoformat()
            fresh = {"path": place.path, "created": now, "token": uuid.uuid4().hex, "public": False}
            _draft_meta(draft, {**meta, **fresh, "expires": _expiry(ttl_seconds)}).replace(draft / META)
            _sync(draft)
            with self._names:
                draft.rename(final)
            _sync(final.parent)
        except (FileNotFoundError, shutil.Error):
            raise RequestRefused(f"The checkpoint {checkpoint.place.path} is gone.", 404) from None
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return self.find(place.path)

    def delete(self, checkpoint: Checkpoint) -> None:
        """Removes a checkpoint, unless it was replaced meanwhile; it is gone for readers at once."""
        folder = self.folder(checkpoint.place)
        with self._names:
            found = self._read(folder, checkpoint.place)
            if found is None or found.token != checkpoint.token:
                return
            gone = self._drafts.away(folder)
        shutil.rmtree(gone, ignore_errors=True)


def _write(folder: Path, request: SaveRequest) -> dict[str, Any]:
    (folder / "adapter_config.json").write_text(json.dumps(peft_fields(request.config), indent=2) + "\n")
    save_file(request.adapter.tensors(), str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    if request.optimizer is not None:
        save_file(dict(request.optimizer), str(folder / "optimizer.safetensors"))
    if request.recipients:
        encrypt_folder(folder, request.recipients)
    size = sum(path.stat().st_size for path in folder.iterdir())
    meta = {
        "version": VERSION,
        "path": request.place.path,
        "base_model": request.base_model,
        "lora": request.adapter.spec.to_meta(),
        "step": request.step,
        "has_optimizer": request.optimizer is not None,
        "created": datetime.now(UTC).isoformat(),
        "expires": _expiry(request.ttl_seconds),
        "token": uuid.uuid4().hex,
        "size_bytes": size,
        "sha256": digests(folder),
        "user_metadata": dict(request.user_metadata) if request.user_metadata else None,
        "run_metadata": dict(request.run_metadata) if request.run_metadata else None,
    }
    (folder / META).write_text(meta_text(meta))
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    return meta


def _expiry(seconds: int | None) -> str | None:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat() if seconds is not None else None


def _draft_meta(folder: Path, meta: Mapping[str, Any]) -> Path:
    """A new meta.json beside the old one, on the disk and ready to take its place."""
    draft = folder / f".meta-{uuid.uuid4().hex}"
    draft.write_text(meta_text(meta))
    _sync(draft)
    return draft


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
