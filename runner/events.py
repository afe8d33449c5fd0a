"""What a run tells those who watch it: one frozen event for each thing that happens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunStarted:
    """A run begins or continues.

    Attributes:
        run: Name and number of the run, such as `pirate-mini/1`.
        folder: Its folder.
        engine: Name of the engine.
        stand_ins: Named model to the model that stands in for it, where the run uses stand-ins.
        cells: Names of the cells that it will do.
    """

    run: str
    folder: Path
    engine: str
    stand_ins: Mapping[str, str]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class RunFinished:
    """Every cell is done.

    Attributes:
        run: Name and number of the run.
        folder: Its folder.
        seconds: Wall time since it began or continued.
    """

    run: str
    folder: Path
    seconds: float


@dataclass(frozen=True)
class RunFailed:
    """The run ended early; what is recorded stays.

    Attributes:
        run: Name and number of the run.
        folder: Its folder.
        error: What is wrong, for a person.
        exit_code: The code that the command ends with; 130 where a person interrupted it.
    """

    run: str
    folder: Path
    error: str
    exit_code: int


@dataclass(frozen=True)
class StageStarted:
    """A stage of a cell begins, or begins again for more rows.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        uses: Name of the stage.
        summary: One sentence of what it does.
    """

    cell: str
    stage: str
    uses: str
    summary: str


@dataclass(frozen=True)
class StageWaits:
    """A stage has asked for what it can before its inputs are all there, and begins again when they are.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        awaited: Ids of the stage items that it waits for.
    """

    cell: str
    stage: str
    awaited: tuple[str, ...]


@dataclass(frozen=True)
class StageProgressed:
    """A stage got on.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        done: Units of work done.
        total: Units of work in all; 0 where nobody knows.
        tokens: Tokens so far, of every kind.
        usd: US dollars that the ended requests of the run have cost so far, at the most; it never falls.
        usd_held: US dollars that its requests without an end may cost beside that, which count against a budget; 0
            without one.
    """

    cell: str
    stage: str
    done: int
    total: int
    tokens: int
    usd: float
    usd_held: float = 0.0


@dataclass(frozen=True)
class StageFinished:
    """A stage has published its rows, now or in an earlier run.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        rows: Rows by published kind.
        seconds: Wall time of the work, of the run that did it.
        usage: Counts of requests, tokens and steps by name, of the run that did it.
        cached: Whether this run found it done.
    """

    cell: str
    stage: str
    rows: Mapping[str, int]
    seconds: float
    usage: Mapping[str, int]
    cached: bool


STOPPED = "stopped before it was done"
"""The error of a stage that was interrupted."""


@dataclass(frozen=True)
class StageFailed:
    """A stage stopped.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        error: What is wrong, for a person; `STOPPED` where it was interrupted.
    """

    cell: str
    stage: str
    error: str


@dataclass(frozen=True)
class RowStored:
    """One response of the engine is in the store.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        model: Model name or checkpoint path that was asked.
        sequences: Sequences in it; 0 for a score.
        prompt_tokens: Tokens of the prompt.
        sampled_tokens: Tokens that were generated.
    """

    cell: str
    stage: str
    model: str
    sequences: int
    prompt_tokens: int
    sampled_tokens: int


@dataclass(frozen=True)
class StepDone:
    """One optimiser step is done.

    Attributes:
        cell: Name of the cell.
        stage: Id of the stage item.
        step: Its index, from 0.
        steps: Steps in all.
        metrics: What the loss reports, by name.
    """

    cell: str
    stage: str
    step: int
    steps: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Message:
    """One line for the person who watches.

    Attributes:
        text: The line.
        cell: Name of the cell; empty where it is about the run.
        stage: Id of the stage item; empty where it is about the run.
    """

    text: str
    cell: str = ""
    stage: str = ""


Event = (
    RunStarted
    | RunFinished
    | RunFailed
    | StageStarted
    | StageWaits
    | StageProgressed
    | StageFinished
    | StageFailed
    | RowStored
    | StepDone
    | Message
)
