"""What tests of `charrun gc` share."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from run_copies import Call, events_of

from charrun.store.run import RunFolder


def told(gc: Call, *args: str) -> dict[str, Any]:
    outcome = gc("--json", *args)
    assert outcome.code == 0, outcome.text
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def store_folders(runs: Path) -> set[str]:
    return {path.name for path in (runs / "store").iterdir()}


def state(folder: Path) -> dict[str, tuple[str, int]]:
    """Every file with its content and the time of its last change."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in files
    }


def second_run(runs: Path, *stages: str) -> Path:
    """Another run, which refers to what some stages of the first one made."""
    folder = RunFolder.open(runs, "pirate-smoke", {"seed": 8})
    for event in events_of(runs / "pirate-smoke" / "1"):
        if event.get("stage") in stages:
            fields = {k: v for k, v in event.items() if k not in ("v", "seq", "time", "event", "sum")}
            folder.record(event["event"], **fields)
    return folder.folder
