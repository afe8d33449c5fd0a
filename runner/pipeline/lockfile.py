"""What a run was made with: package versions, models and schemas, for `lock.json`. Never a secret."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from charrun.store.canonical import digest

if TYPE_CHECKING:
    from charrun.pipeline.shared import Shared

PACKAGES = ("charrun", "tinker", "torch", "transformers", "peft", "tokenizers", "numpy")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def lock_entries(shared: Shared) -> dict[str, Any]:
    """The run's lock: digests of spec and characters, models by role with their identity, versions, seed."""
    spec = shared.spec
    return {
        "spec_sha256": digest(spec.to_dict()),
        "characters": {c["id"]: digest(c) for c in spec.to_dict()["characters"]},
        "models": [{role: shared.namespace(ref.name) for role, ref in entry.roles.items()} for entry in spec.models],
        "engine": shared.engine.name,
        "seeds": list(spec.seeds),
        "versions": versions(),
    }
