"""Copies of a finished run that a test may damage, and the command line in the test's own process."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun, Outcome

from charrun.cli import main
from charrun.pipeline.identity import content
from charrun.store.files import write_json
from charrun.store.lines import sealed
from charrun.store.runs import Run
from charrun.store.tickets import described, publish, tickets

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


def reseal(path: Path) -> None:
    """Give a file of the store that a test has edited its checksums anew."""
    text = path.read_text()
    if path.suffix == ".json":
        value = json.loads(text)
        value.pop("sum", None)
        write_json(path, value)
    else:
        values = [json.loads(line) for line in text.splitlines()]
        path.write_bytes(b"".join(sealed({k: v for k, v in value.items() if k != "sum"}) for value in values))


def replace_text(path: Path, *pairs: tuple[str, str]) -> None:
    """Edit a file of the store as its writer would have written it."""
    text = path.read_text()
    for old, new in pairs:
        text = text.replace(old, new)
    path.write_text(text)
    reseal(path)


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    """Edit a JSON file of the store as its writer would have written it."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    reseal(path)


def publish_instead(run: Run, id: str, kind: str, rows: Sequence[Any]) -> None:
    """Pretend that a stage of a run published other rows: its tickets and the journal tell of them as of its own."""
    (stage,) = [stage for stage in run.cells[0].stages if stage.id == id]
    old = stage.outputs[kind]
    told = described({kind: publish(old.file.parent, kind, rows, content)})

    def change(value: Any) -> None:
        if value.get("outputs", {}).get(kind, {}).get("sha256") == old.sha256:
            value["outputs"].update(told)

    for path in tickets(old.file.parent):
        edit_json(path, change)
    events = events_of(run.folder)
    for event in events:
        change(event)
    write_events(run.folder, events)


def events_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def write_events(folder: Path, events: Iterable[dict[str, Any]]) -> None:
    whole = b"".join(sealed({k: v for k, v in event.items() if k != "sum"}) for event in events)
    (folder / "journal.jsonl").write_bytes(whole)


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
