"""Copies of a finished run that a test may damage, and the command line in the test's own process."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun, Outcome

from charrun.cli import main

WIDTH = 80
Call = Callable[..., Outcome]


def caller(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs a command on a screen of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    handler = signal.getsignal(signal.SIGTERM)

    def invoke(*args: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        signal.signal(signal.SIGTERM, handler)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Outcome(int(ended.value.code or 0), out, err)

    return invoke


def copy_of(smoke: FinishedRun, place: Path) -> Path:
    """The finished run's folder of runs, without the engine's checkpoints."""
    return Path(shutil.copytree(smoke.runs_dir, place / "runs", ignore=shutil.ignore_patterns("engine")))


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def write_events(folder: Path, events: Iterable[dict[str, Any]]) -> None:
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def cut_before(folder: Path, stage: str) -> list[dict[str, Any]]:
    """Leave of a finished run what a kill in the middle of a stage leaves."""
    events = events_of(folder)
    end = next(i for i, e in enumerate(events) if e.get("stage") == stage and e["event"] == "stage_started")
    for path in [*folder.glob("cell-*.json"), folder / "run.json", folder / "report.md"]:
        path.unlink(missing_ok=True)
    write_events(folder, events[: end + 1])
    return events[: end + 1]


def states(document: dict[str, Any]) -> dict[str, str]:
    return {stage["id"]: stage["state"] for cell in document["cells"] for stage in cell["stages"]}
