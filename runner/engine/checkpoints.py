"""Checkpoints on disk: PEFT folders that are complete or not there.

A folder is written beside its final place, every file synced, then renamed. A replaced one is moved aside first and
removed afterwards; should the process die between the two renames, the next opening of the store moves it back.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from charrun.engine.errors import RequestRefused
from charrun.engine.lora import Adapter, LoraSpec, peft_fields

KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}
"""Folder and path segment of each kind of checkpoint, with the protocol's word for it."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RUN = re.compile(r"[A-Za-z0-9-]{1,64}:train:[0-9]{1,9}")
_HOUR, _TEN_YEARS = 3600, 10 * 366 * 24 * 3600


@dataclass(frozen=True)
class CheckpointName:
    """A checkpoint's place: `tinker://<run>/<kind>/<name>`."""

    run: str
    kind: str
    name: str

    @classmethod
    def checked(cls, run: str, kind: str, name: str) -> CheckpointName:
        """From parts that a client sent.

        Raises:
            RequestRefused: A part could not be a folder's name within the store.
        """
        if kind not in KINDS:
            raise RequestRefused(f"There is no kind of checkpoint called {kind!r}; kinds: {', '.join(KINDS)}.")
        if not _RUN.fullmatch(run):
            raise RequestRefused(f"{run!r} is not the id of a training run.")
        if not _NAME.fullmatch(name):
            raise RequestRefused(
                f"{name!r} cannot name a checkpoint: use up to 128 letters, digits, dots, dashes and underscores, "
                "beginning with a letter or digit."
            )
        return cls(run, kind, name)

    @classmethod
    def parse(cls, path: str) -> CheckpointName:
        """From a tinker path.

        Raises:
            RequestRefused: It is not one.
        """
        parts = path.removeprefix("tinker://").split("/")
        if not path.startswith("tinker://") or len(parts) != 3:
            raise RequestRefused(f"{path!r} is not a checkpoint's path: tinker://<run>/<kind>/<name>.")
        return cls.checked(*parts)

    @property
    def path(self) -> str:
        return f"tinker://{self.run}/{self.kind}/{self.name}"

    @property
    def id(self) -> str:
        """The checkpoint's id within its run."""
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Checkpoint:
    """What meta.json says.

    Attributes:
        place: Run, kind and name.
        base_model: Served name of the base model.
        lora: The adapter's shape and seed.
        step: Optimizer steps taken.
        has_optimizer: Whether Adam's state was saved too.
        created: When it was saved.
        expires: When it may no longer be loaded; None means never.
        token: Differs for each save, so that a replaced checkpoint is not taken for the old one.
        size_bytes: Bytes of all files but meta.json.
        user_metadata: What the client attached.
    """

    place: CheckpointName
    base_model: str
    lora: LoraSpec
    step: int
    has_optimizer: bool
    created: datetime
    expires: datetime | None
    token: str
    size_bytes: int
    user_metadata: Mapping[str, str] | None

    @property
    def expired(self) -> bool:
        return self.expires is not None and self.expires <= datetime.now(UTC)


@dataclass(frozen=True)
class SaveRequest:
    """What to save where.

    Attributes:
        place: Run, kind and name.
        base_model: Served name of the base model.
        adapter: The adapter.
        config: PEFT's description of it, a LoraConfig.
        optimizer: Adam's tensors, or None to leave them out.
        step: Optimizer steps taken.
        ttl_seconds: Lifetime, or None.
        overwrite: Whether a checkpoint of this name may be replaced.
        user_metadata: What the client attached.
    """

    place: CheckpointName
    base_model: str
    adapter: Adapter
    config: Any
    optimizer: Mapping[str, Tensor] | None
    step: int
    ttl_seconds: int | None
    overwrite: bool
    user_metadata: Mapping[str, str] | None


class CheckpointStore:
    """The checkpoints under one root folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        for folder in self.root.glob("*/*/.*"):
            kept = folder.parent / folder.name.removeprefix(".old-")
            if folder.name.startswith(".old-") and not kept.exists():
                folder.rename(kept)
            elif folder.name.startswith((".old-", ".new-")):
                shutil.rmtree(folder, ignore_errors=True)

    def folder(self, place: CheckpointName) -> Path:
        """Where a checkpoint lies or would lie; run ids lose their colons, which some tools cannot copy."""
        return self.root / place.run.replace(":", "_") / place.kind / place.name

    def save(self, request: SaveRequest) -> Checkpoint:
        """Writes a checkpoint.

        Raises:
            RequestRefused: The name is taken and may not be replaced.
        """
        final = self.folder(request.place)
        if final.exists() and not request.overwrite:
            raise RequestRefused(f"{request.place.path} exists; choose another name or save with overwrite=True.")
        final.parent.mkdir(parents=True, exist_ok=True)
        draft = final.parent / f".new-{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            meta = _write(draft, request)
            old = final.parent / f".old-{final.name}"
            if final.exists():
                final.rename(old)
            draft.rename(final)
            _sync(final.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return _checkpoint(request.place, meta)

    def find(self, path: str) -> Checkpoint:
        """The checkpoint at a tinker path.

        Raises:
            RequestRefused: There is none, or its time is over.
        """
        place = CheckpointName.parse(path)
        try:
            meta = json.loads((self.folder(place) / "meta.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise RequestRefused(f"There is no checkpoint {place.path}.", 404) from None
        checkpoint = _checkpoint(place, meta)
        if checkpoint.expired:
            raise RequestRefused(f"The checkpoint {place.path} expired at {checkpoint.expires}.", 404)
        return checkpoint

    def adapter(self, checkpoint: Checkpoint) -> Adapter:
        """The adapter's tensors, on the CPU."""
        tensors = load_file(str(self.folder(checkpoint.place) / "adapter_model.safetensors"))
        return Adapter.from_tensors(checkpoint.lora, tensors)

    def optimizer(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """Adam's tensors, on the CPU.

        Raises:
            RequestRefused: They were not saved.
        """
        if not checkpoint.has_optimizer:
            raise RequestRefused(f"{checkpoint.place.path} holds no optimizer state.")
        tensors: dict[str, Tensor] = load_file(str(self.folder(checkpoint.place) / "optimizer.safetensors"))
        return tensors

    def all(self, run: str | None = None) -> Iterator[Checkpoint]:
        """Every checkpoint that is not expired, of one run or of all."""
        pattern = f"{run.replace(':', '_')}/*/*/meta.json" if run else "*/*/*/meta.json"
        for path in sorted(self.root.glob(pattern)):
            folder = path.parent
            if not folder.name.startswith(".") and folder.parent.name in KINDS:
                owner = folder.parent.parent.name.replace("_", ":")
                checkpoint = _checkpoint(
                    CheckpointName(owner, folder.parent.name, folder.name), json.loads(path.read_text())
                )
                if not checkpoint.expired:
                    yield checkpoint

    def delete(self, checkpoint: Checkpoint) -> None:
        """Removes a checkpoint; it is gone for readers at once."""
        folder = self.folder(checkpoint.place)
        gone = folder.parent / f".new-{uuid.uuid4().hex}"
        folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def check_ttl(seconds: int | None) -> None:
    """Raises RequestRefused where a lifetime is outside the protocol's limits."""
    if seconds is not None and not _HOUR <= seconds <= _TEN_YEARS:
        raise RequestRefused(f"ttl_seconds must lie between {_HOUR} (an hour) and {_TEN_YEARS} (ten years).")


def _write(folder: Path, request: SaveRequest) -> dict[str, Any]:
    (folder / "adapter_config.json").write_text(json.dumps(peft_fields(request.config), indent=2) + "\n")
    save_file(request.adapter.tensors(), str(folder / "adapter_model.safetensors"), metadata={"format": "pt"})
    if request.optimizer is not None:
        save_file(dict(request.optimizer), str(folder / "optimizer.safetensors"))
    size = sum(path.stat().st_size for path in folder.iterdir())
    now = datetime.now(UTC)
    expires = now + timedelta(seconds=request.ttl_seconds) if request.ttl_seconds is not None else None
    meta = {
        "version": 1,
        "path": request.place.path,
        "base_model": request.base_model,
        "lora": request.adapter.spec.to_meta(),
        "step": request.step,
        "has_optimizer": request.optimizer is not None,
        "created": now.isoformat(),
        "expires": expires.isoformat() if expires else None,
        "token": uuid.uuid4().hex,
        "size_bytes": size,
        "user_metadata": dict(request.user_metadata) if request.user_metadata else None,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    for path in [*folder.iterdir(), folder]:
        _sync(path)
    return meta


def _checkpoint(place: CheckpointName, meta: Mapping[str, Any]) -> Checkpoint:
    return Checkpoint(
        place=place,
        base_model=meta["base_model"],
        lora=LoraSpec.from_meta(meta["lora"]),
        step=meta["step"],
        has_optimizer=meta["has_optimizer"],
        created=datetime.fromisoformat(meta["created"]),
        expires=datetime.fromisoformat(meta["expires"]) if meta["expires"] else None,
        token=meta["token"],
        size_bytes=meta["size_bytes"],
        user_metadata=meta["user_metadata"],
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
