"""Interruptions: a stage must find what it has stored, and ask for nothing twice."""

from __future__ import annotations

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from charrun.stage import Row, Stage
from charrun.testing.engines import RunningEngine
from charrun.testing.pipeline import Moment
from charrun.testing.remains import count, forget_tickets, halve, has_ended, saved_steps, written
from charrun.testing.running import StageOutcome, run_stage, temporary_folder

_PATIENCE_SECONDS = 300
_TOLD = 2000


def assert_resumes(stage: type[Stage], **arguments: Any) -> StageOutcome:
    """Run a stage four times in one place and check what each time asks of the engine.

    1. From nothing.
    2. Again: it is found done, and the engine is asked nothing.
    3. With all records but without its tickets, as if it had died just before its end: it asks for no answer and no
       score, and takes no optimiser step of an adapter that `train_steps` and `ctx.save` had finished.
    4. With half of the lines of each file of records, the next line torn, as if it had died at half time: it asks for
       the missing answers and scores alone, and takes no more steps than the first time. Its checkpoints are gone by
       then, so a training begins anew.

    Each time the rows are the same, a checkpoint's path aside, and so are further JSON-lines files of `ctx.write`,
    numbers in them to one in a hundred: a curve that holds the last process's steps alone is found.

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
    files, left = written(first.folder), 0 if has_ended(first.folder) else _steps(first)
    forget_tickets(first.folder)
    late = run_stage(stage, **arguments)
    _same(stage, first, late, "run again with all its records")
    _asked_only(stage, late, 0, "all its records were stored")
    _stepped_only(stage, late, left, "all its records were stored")
    _wrote_alike(stage, files, late, "run again with all its records")
    records, lines = halve(first.folder)
    if lines:
        forget_tickets(first.folder)
        half = run_stage(stage, **arguments)
        _same(stage, first, half, "run again with half of its records")
        _asked_only(stage, half, records, "half of its records were stored")
        _stepped_only(stage, half, _steps(first), "its checkpoints were gone")
        _wrote_alike(stage, files, half, "run again with half of its records")
    return first


def assert_survives_kill(
    stage: type[Stage], *, after: int = 1, moment: Moment = "row", **arguments: Any
) -> StageOutcome:
    """SIGKILL a run of the stage in a process of its own, run it again here, and compare with a run that lived.

    It asks for the answers and scores alone that were not stored, takes the optimiser steps alone that the newest
    stored checkpoint does not hold, and publishes and writes the same, as with `assert_resumes`.

    Args:
        stage: The class, at the top level of a module: the other process imports it, by its name or from its file.
        after: How many moments it lives to see.
        moment: "row", a response is stored, or "step", an optimiser step is done.
        **arguments: Those of `run_stage`, but `watch`; of JSON types.

    Returns:
        The outcome of the run after the kill.

    Raises:
        AssertionError: The stage ended before it could be killed, a stored row was asked for again, a step that a
            checkpoint holds was taken again, or the rows differ from those of a run that nobody killed.
    """
    arguments = _placed(arguments)
    runs_dir: Path = arguments["runs_dir"]
    whole = run_stage(stage, **{**arguments, "runs_dir": runs_dir / "whole"})
    killed = runs_dir / "killed"
    _kill(stage, after, moment, {**arguments, "runs_dir": killed})
    folders = list((killed / "store").glob(f"{stage.name}-*"))
    kept, saved = sum(map(count, folders)), sum(map(saved_steps, folders))
    if moment == "row":
        assert kept >= after, f"{after} rows were told to be stored and {kept} are"
    resumed = run_stage(stage, **{**arguments, "runs_dir": killed})
    when = f"killed after {after} {moment}s and run again"
    _same(stage, whole, resumed, when)
    _asked_only(stage, resumed, count(whole.folder) - kept, f"{kept} records were stored when it was killed")
    _stepped_only(stage, resumed, _steps(whole) - saved, f"a checkpoint of step {saved} was stored when it was killed")
    _wrote_alike(stage, written(whole.folder), resumed, when)
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


def _steps(outcome: StageOutcome) -> int:
    return outcome.asked.get("optim_step", 0)


def _stepped_only(stage: type[Stage], outcome: StageOutcome, steps: int, when: str) -> None:
    assert _steps(outcome) <= steps, (
        f"stage '{stage.name}' took {_steps(outcome)} optimiser steps where {when} and {steps} were left; "
        "train with train_steps(..., save_every=...) and save with ctx.save"
    )


def _wrote_alike(stage: type[Stage], one: Mapping[str, list[Any]], other: StageOutcome, when: str) -> None:
    found = written(other.folder)
    assert one.keys() == found.keys(), f"stage '{stage.name}', {when}, wrote {sorted(found)}, not {sorted(one)}"
    for name, rows in one.items():
        assert len(rows) == len(found[name]), (
            f"stage '{stage.name}', {when}, wrote {len(found[name])} rows into {name}, not {len(rows)}; "
            "write what train_steps returns, which has the steps of earlier processes too"
        )
        for index, (mine, theirs) in enumerate(zip(rows, found[name], strict=True)):
            assert _alike(mine, theirs), (
                f"stage '{stage.name}', {when}, wrote something else into {name}; row {index} was\n"
                f"  {json.dumps(mine, ensure_ascii=False)[:_TOLD]}\nand is\n"
                f"  {json.dumps(theirs, ensure_ascii=False)[:_TOLD]}"
            )


def _alike(one: Any, other: Any) -> bool:
    """Whether JSON values are the same, numbers to one in a hundred: a GPU does not repeat a step to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=0.01, abs_tol=0.01)
    return bool(one == other)


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
