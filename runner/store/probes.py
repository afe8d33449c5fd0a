"""What probes leave in a store: what of prompts was in an engine's cache, and which folders they have filled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from charrun.store.files import make_folder, read_json, write_json

PROBES = "probes"
"""Folder in the store; beside what was found each spec's probes have a ledger there."""
_FOUND = "found.json"
CacheShares = Mapping[bool, float]
"""How much of what could be in the engine's cache was in it: of prompts that are answered, and of such that are scored
(True)."""


def probe_ledger(runs_dir: Path, spec: str) -> Path:
    """Where the ledger of a spec's probes lies."""
    return _home(runs_dir) / f"{spec}.jsonl"


def cache_shares(runs_dir: Path, identity: str) -> CacheShares | None:
    """What a probe has found of a model, by its identity as fingerprints have it; None where there was none."""
    found = _read(runs_dir)["cache"].get(identity)
    return None if found is None else {False: float(found["answered"]), True: float(found["scored"])}


def probed_folders(runs_dir: Path) -> list[str]:
    """Store folders that hold what probes were answered."""
    return [str(name) for name in _read(runs_dir)["folders"]]


def keep_probe(runs_dir: Path, shares: Mapping[str, CacheShares], folders: Iterable[str]) -> None:
    """Keep what a probe has found, by the identities of models, and the folders that it has filled."""
    known = _read(runs_dir)
    told = {identity: {"answered": each[False], "scored": each[True]} for identity, each in shares.items()}
    document = {"cache": {**known["cache"], **told}, "folders": sorted({*known["folders"], *folders})}
    write_json(make_folder(_home(runs_dir)) / _FOUND, document)


def _home(runs_dir: Path) -> Path:
    return runs_dir / "store" / PROBES


def _read(runs_dir: Path) -> dict[str, Any]:
    return {"cache": {}, "folders": [], **(read_json(_home(runs_dir) / _FOUND) or {})}
