"""Interruptions: a stage must find what it has stored, and ask for nothing twice."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from charrun.stage import Row, Stage
from charrun.testing.engines import RunningEngine
from charrun.testing.pipeline import Moment
from charrun.testing.running import StageOutcome, run_stage, temporary_folder

_RECORDS = ("items.jsonl", "scores.jsonl")
_PATIENCE_SECONDS = 300
_TOLD = 2000


def assert_resumes(stage: type[Stage], **arguments: Any) -> StageOutcome:
    """Run a stage four times in one place and check what each time asks of the engine.

    1. From nothing.
    2. Again: it is found done, and the engine is asked nothing.
    3. With all records but without outputs, as if it had died just before its end: a stage that trains nothing asks
       nothing, one that trains samples nothing; the rows are the same.
    4. With half of the records, the last one torn, as if it had died at half time: it asks for the missing ones
       alone, and the rows are the same.

    Args:
        stage: The class.
        **arguments: Those of `run_stage`, but `watch`.

    Returns:
        The first run's outcome.

    Raises:
        AssertionError: It does not resume; the text says at which of these.
    """
    first = run_stage(stage, **_placed(arguments))
    arguments = {**arguments, "runs_dir": first.runs_dir}
    again = run_stage(stage, **arguments)
    _same(stage, first, again, "run again when it was done")
    assert again.cached and not again.asked, (
        f"stage '{stage.name}' was not found done: the second run asked {_told(again)}; "
        "its options, templates or further_inputs differ from one run to the next"
    )
    _forget_outputs(first.folder)
    late = run_stage(stage, **arguments)
    _same(stage, first, late, "run again with all its records")
    _asked_only(stage, late, 0, "all its records were stored")
    kept, dropped = _halve(first.folder)
    if dropped:
        _forget_outputs(first.folder)
        half = run_stage(stage, **arguments)
        _same(stage, first, half, f"run again with {kept} of its {kept + dropped} records")
        _asked_only(stage, half, dropped, f"{kept} of {kept + dropped} records were stored")
    return first


def assert_survives_kill(
    stage: type[Stage], *, after: int = 1, moment: Moment = "row", **arguments: Any
) -> StageOutcome:
    """SIGKILL a run of the stage in a process of its own, run it again here, and compare with a run that lived.

    Args:
        stage: The class, at the top level of a module: the other process imports it, by its name or from its file.
        after: How many moments it lives to see.
        moment: "row", a response is stored, or "step", an optimiser step is done.
        **arguments: Those of `run_stage`, but `watch`; of JSON types.

    Returns:
        The outcome of the run after the kill.

    Raises:
        AssertionError: The stage ended before it could be killed, a stored row was asked for again, or the rows
            differ from those of a run that nobody killed.
    """
    arguments = _placed(arguments)
    runs_dir: Path = arguments["runs_dir"]
    whole = run_stage(stage, **{**arguments, "runs_dir": runs_dir / "whole"})
    killed = runs_dir / "killed"
    _kill(stage, after, moment, {**arguments, "runs_dir": killed})
    kept = sum(_count(folder) for folder in (killed / "store").glob(f"{stage.name}-*"))
    if moment == "row":
        assert kept >= after, f"{after} rows were told to be stored and {kept} are"
    resumed = run_stage(stage, **{**arguments, "runs_dir": killed})
    _same(stage, whole, resumed, f"killed after {after} {moment}s and run again")
    _asked_only(stage, resumed, _count(whole.folder) - kept, f"{kept} records were stored when it was killed")
    return resumed


def _placed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with a place of its own for the runs."""
    given: Path | None = arguments.get("runs_dir")
    if given is None:
        return {**arguments, "runs_dir": temporary_folder()}
    given.mkdir(parents=True, exist_ok=True)
    return {**arguments, "runs_dir": Path(tempfile.mkdtemp(dir=given))}


def _same(stage: type[Stage], one: StageOutcome, other: StageOutcome, when: str) -> None:
    for kind in stage.produces:
        a, b = ([_content(row) for row in outcome.rows[kind]] for outcome in (one, other))
        assert len(a) == len(b), f"stage '{stage.name}', {when}, published {len(b)} {kind}, not {len(a)}"
        for index, (mine, theirs) in enumerate(zip(a, b, strict=True)):
            assert mine == theirs, (
                f"stage '{stage.name}', {when}, published other {kind}; row {index} was\n"
                f"  {json.dumps(mine, ensure_ascii=False)[:_TOLD]}\nand is\n"
                f"  {json.dumps(theirs, ensure_ascii=False)[:_TOLD]}"
            )


def _content(row: Row) -> Any:
    """A checkpoint made again has another path at the engine, and the same fingerprint."""
    return row.get("fingerprint", row)


def _asked_only(stage: type[Stage], outcome: StageOutcome, records: int, when: str) -> None:
    """No more than the missing records; what a stage asks while it trains is not recorded, and so not counted."""
    asked = outcome.asked.get("sample", 0)
    if not stage.trains:
        asked = sum(outcome.asked.values())
    assert asked <= records, (
        f"stage '{stage.name}' asked {_told(outcome)} where {when} and {records} were missing; "
        "ask through ctx.sample and ctx.score, with the same request each time: nothing random in it but ctx.rng"
    )


def _told(outcome: StageOutcome) -> str:
    return ", ".join(f"{name} {count} times" for name, count in sorted(outcome.asked.items())) or "nothing"


def _forget_outputs(folder: Path) -> None:
    """Leave the records alone: what a process leaves that dies just before its stage is done."""
    for path in (folder / "done").iterdir():
        path.unlink()


def _halve(folder: Path) -> tuple[int, int]:
    """Keep the first half of the records, and a torn piece of the next one; how many are kept and dropped."""
    kept = dropped = 0
    for path in _records(folder):
        lines = path.read_bytes().splitlines(keepends=True)
        half = len(lines) // 2
        torn = lines[half][: len(lines[half]) // 2] if half < len(lines) else b""
        path.write_bytes(b"".join(lines[:half]) + torn)
        kept, dropped = kept + half, dropped + len(lines) - half
    return kept, dropped


def _count(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in _records(folder))


def _records(folder: Path) -> Sequence[Path]:
    return [folder / name for name in _RECORDS if (folder / name).exists()]


def _kill(stage: type[Stage], after: int, moment: Moment, arguments: Mapping[str, Any]) -> None:
    engine: RunningEngine | None = arguments.get("engine")
    order = {
        "module": stage.__module__,
        "file": inspect.getfile(stage),
        "name": stage.__qualname__,
        "after": after,
        "moment": moment,
        "engine": engine.address if engine else None,
        "arguments": {name: value for name, value in arguments.items() if name != "engine"},
    }
    try:
        text = json.dumps(order, default=_as_text)
    except TypeError as error:
        raise ValueError(f"the arguments of a run in another process must be of JSON types: {error}") from error
    done = subprocess.run(
        [sys.executable, "-P", "-m", "charrun.testing.killed"],
        input=text,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_SECONDS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode != 0, (
        f"stage '{stage.name}' ended before it could be killed: it saw fewer than {after} {moment}s"
    )
    assert done.returncode == -signal.SIGKILL, f"stage '{stage.name}' failed in the other process:\n{done.stderr}"


def _as_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value.absolute())
    raise TypeError(f"{type(value).__name__} is none")
