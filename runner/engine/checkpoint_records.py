"""Checkpoints in words: their names, what their meta.json says, and what a client may ask for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from charrun.engine.errors import RequestRefused
from charrun.engine.lora import Adapter, LoraSpec
from charrun.engine.storage import KINDS

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
                f"{name!r} cannot name a checkpoint: use up to 128 letters, digits, dots, dashes and "
                "underscores, beginning with a letter or digit."
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
        run_metadata: What the client attached to the training run.
        public: Whether it was published: a mark, for a server has one key and no other users.
        sha256: Digests of its files by name; empty where an earlier version saved it.
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
    run_metadata: Mapping[str, str] | None = None
    public: bool = False
    sha256: Mapping[str, str] = field(default_factory=dict)

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
        run_metadata: What the client attached to the training run.
        recipients: Whom the files are encrypted to; none leaves them readable.
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
    run_metadata: Mapping[str, str] | None
    recipients: Sequence[str] = ()


def check_ttl(seconds: int | None) -> None:
    """Raises RequestRefused where a lifetime is outside the protocol's limits."""
    if seconds is not None and not _HOUR <= seconds <= _TEN_YEARS:
        raise RequestRefused(f"ttl_seconds must lie between {_HOUR} (an hour) and {_TEN_YEARS} (ten years).")


def read_meta(place: CheckpointName, meta: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint from its meta.json.

    Raises:
        ValueError, KeyError, TypeError: The file does not describe one.
    """
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
        run_metadata=meta.get("run_metadata"),
        public=bool(meta.get("public")),
        sha256=meta.get("sha256") or {},
    )
