"""What a run's events add up to: the state of the run and of each stage of each cell."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.store.journal import Event
from charrun.store.process import lives

RUNNING, FINISHED, FAILED, INTERRUPTED, STOPPED = "running", "finished", "failed", "interrupted", "stopped"
"""States of a run. Stopped: it ended without a word, as by kill -9 or a power cut."""

DONE, CACHED, WAITING, LEFT_OUT = "done", "cached", "waiting", "left out"
"""Further states of a stage. Cached: another run or cell made its rows; left out: the run ended without it."""

_ENDS = {"run_finished": FINISHED, "run_failed": FAILED, "run_interrupted": INTERRUPTED}


@dataclass
class StageTrace:
    """One stage of one cell, as the events tell it.

    Attributes:
        state: One of the states above; empty while no event names the stage.
        folder: Name of its folder in the store.
        outputs: By kind, what `stage_finished` told: file, rows, sha256.
        usage: Counts of requests, tokens and steps by name, of all work behind its rows.
        seconds: Wall time of all work behind its rows.
        since: When it began last.
        error: Why it failed.
        saved: The optimiser step that a checkpoint of it would go on from; 0 where it has none.
        expires: Until when the engine keeps that checkpoint, in seconds since 1970.
    """

    state: str = ""
    folder: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    since: float | None = None
    error: str = ""
    saved: int = 0
    expires: float = 0.0


@dataclass
class RunTrace:
    """A run, as its events tell it.

    Attributes:
        status: One of the states of a run.
        engine: Name of the engine.
        stand_ins: Named model to the model that stands in for it.
        cells: Cells that it was begun or continued with.
        stages: By cell and stage id, in the order in which they were first told.
        started: When it first began.
        last: Time of the last event.
        error: Why it failed.
        hint: What to do next, where the events tell.
        command: The command that began it last; empty where the events do not tell.
        pid: The process that began or continued it last.
        selection: The part of the spec that it was begun or continued with last.
        spec_path: The spec file of that time.
        folders: By stage item, the folders of its options' paths that are not beside that file.
    """

    status: str = STOPPED
    engine: str = ""
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    cells: tuple[str, ...] = ()
    stages: dict[tuple[str, str], StageTrace] = field(default_factory=dict)
    started: float | None = None
    last: float | None = None
    error: str = ""
    hint: str = ""
    pid: int = 0
    command: str = ""
    selection: Mapping[str, Any] = field(default_factory=dict)
    spec_path: str = ""
    folders: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    rates: Mapping[str, Mapping[str, int | None] | None] = field(default_factory=dict)
    budget: float | None = None


class Replay:
    """Adds events up as they come; unknown ones mean nothing, and a field of a wrong type counts as absent."""

    def __init__(self) -> None:
        self._run = RunTrace()
        self._begun: list[tuple[int, float]] = []
        self._ended = ""

    def feed(self, events: Iterable[Event]) -> None:
        """Further events, in file order."""
        run = self._run
        for event in events:
            name, time = event["event"], float(event["time"])
            run.last = time
            if name == "run_started":
                _begin(run, event, time)
                self._begun.append((run.pid, time))
                self._ended = ""
            elif name in _ENDS:
                # An end belongs to the latest beginning: a second process that finds the run locked ends first.
                del self._begun[-1:]
                self._ended = _ENDS[name]
                run.error, run.hint = text_of(event, "error"), text_of(event, "hint")
            elif "stage" in event:
                place = text_of(event, "cell"), text_of(event, "stage")
                _stage(run.stages.setdefault(place, StageTrace()), event, time)
                self._ended = self._ended if name == "message" else ""

    def status(self) -> str:
        """The state of the run now: it goes on while a process that began it lives."""
        return RUNNING if any(lives(*begun) for begun in self._begun) else self._ended or STOPPED

    def trace(self) -> RunTrace:
        """All that the events add up to; nothing may be fed afterwards."""
        run = self._run
        run.status = self.status()
        if run.status != FAILED:
            run.error = run.hint = ""
        if run.status != RUNNING:
            for stage in run.stages.values():
                stage.state = STOPPED if stage.state == RUNNING else stage.state
        return run


def _begin(run: RunTrace, event: Event, time: float) -> None:
    run.started = time if run.started is None else run.started
    run.engine = text_of(event, "engine")
    run.stand_ins = {k: v for k, v in mapping_of(event, "stand_ins").items() if isinstance(v, str)}
    cells = event.get("cells")
    named = [c for c in cells if isinstance(c, str)] if isinstance(cells, list) else []
    run.cells = tuple(dict.fromkeys([*run.cells, *named]))
    run.selection, run.spec_path = mapping_of(event, "selection"), text_of(event, "spec_path")
    run.folders = {
        id: {text: place for text, place in found.items() if isinstance(place, str)}
        for id, found in mapping_of(event, "folders").items()
        if isinstance(found, dict)
    }
    run.rates = {model: _rates(each) for model, each in mapping_of(event, "rates").items()}
    budget = event.get("budget")
    run.budget = float(budget) if isinstance(budget, int | float) else None
    pid = event.get("pid")
    run.pid = pid if isinstance(pid, int) else 0
    argv = event.get("argv")
    words = argv if isinstance(argv, list) and all(isinstance(word, str) for word in argv) else []
    run.command = f"charrun {shlex.join(words)}" if words else ""
    for stage in run.stages.values():
        if stage.state in (RUNNING, FAILED, INTERRUPTED):
            stage.state, stage.error = WAITING, ""


def _rates(value: object) -> Mapping[str, int | None] | None:
    if not isinstance(value, dict):
        return None
    return {name: rate if isinstance(rate, int) else None for name, rate in value.items()}


def _stage(stage: StageTrace, event: Event, time: float) -> None:
    name = event["event"]
    stage.folder = text_of(event, "folder") or stage.folder
    if name == "stage_started":
        stage.state, stage.since, stage.error = RUNNING, time, ""
    elif name == "stage_waits":
        stage.state = WAITING
    elif name == "stage_finished":
        found = event.get("cached") is True
        stage.state = CACHED if found and stage.state in ("", WAITING, CACHED) else DONE
        stage.outputs = mapping_of(event, "outputs") or stage.outputs
        stage.usage = mapping_of(event, "usage") or stage.usage
        stage.seconds = number_of(event, "seconds")
    elif name == "checkpoint_saved":
        stage.saved, stage.expires = int(number_of(event, "next_step")), number_of(event, "expires")
    elif name == "stage_failed":
        error = text_of(event, "error")
        stage.state = INTERRUPTED if event.get("interrupted") is True else FAILED
        stage.error = "" if stage.state == INTERRUPTED else error


def text_of(value: Mapping[str, Any], key: str) -> str:
    """A field's text; empty where it is none."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def number_of(value: Mapping[str, Any], key: str) -> float:
    """A field's number; 0 where it is none."""
    found = value.get(key)
    return float(found) if isinstance(found, int | float) and abs(found) < 1e15 else 0.0


def mapping_of(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A field's mapping; empty where it is none."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}
