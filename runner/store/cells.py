"""The cells of a run and their stages: from the frozen spec and the journal."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrun.store.files import read_rows
from charrun.store.items import RECORDS
from charrun.store.replay import (
    CACHED,
    DONE,
    FINISHED,
    LEFT_OUT,
    WAITING,
    RunTrace,
    StageTrace,
    mapping_of,
    number_of,
    text_of,
)


@dataclass(frozen=True)
class Output:
    """Published rows of one kind.

    Attributes:
        file: The JSON-lines file that holds them.
        rows: How many.
        sha256: Digest over the rows.
    """

    file: Path
    rows: int
    sha256: str

    def read(self) -> list[Any] | None:
        """The rows; None where the file is missing or damaged."""
        return read_rows(self.file, self.sha256)


@dataclass(frozen=True)
class StageView:
    """One stage of one cell.

    Attributes:
        id: The stage item's id.
        uses: Name of the stage.
        state: done, cached, running, failed, interrupted, stopped, waiting, or left out.
        folder: Its folder in the store, where known.
        rows: Rows by published kind.
        usage: Counts by name, of the run that did the work.
        seconds: Wall time of the work; of a running stage the time since it began last is not in it.
        since: When it began last, in seconds since 1970.
        outputs: Published files by kind, where known.
        error: Why it failed.
        saved: The optimiser step that a checkpoint of it would go on from; 0 where it has none.
        expires: Until when the engine keeps that checkpoint, in seconds since 1970.
    """

    id: str
    uses: str
    state: str
    folder: Path | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    since: float | None = None
    outputs: Mapping[str, Output] = field(default_factory=dict)
    error: str = ""
    saved: int = 0
    expires: float = 0.0

    @property
    def tokens(self) -> int:
        """All tokens together."""
        return sum(count for name, count in self.usage.items() if name.endswith("_tokens"))

    @property
    def is_done(self) -> bool:
        """Whether its rows are there."""
        return self.state in (DONE, CACHED)

    def stored(self) -> int:
        """Responses of the engine that its folder holds, used in published rows or not yet."""
        paths = [self.folder / name for name in RECORDS] if self.folder else []
        return sum(path.read_bytes().count(b"\n") for path in paths if path.is_file())


@dataclass(frozen=True)
class CellView:
    """One cell and its stages, in the spec's order."""

    name: str
    stages: tuple[StageView, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all stages."""
        return sum(stage.tokens for stage in self.stages)

    @property
    def is_done(self) -> bool:
        """Whether every stage that the run is about has its rows."""
        return all(stage.is_done or stage.state == LEFT_OUT for stage in self.stages)

    def rows(self, kind: str) -> list[Any]:
        """Rows of the last stage that published a kind."""
        for stage in reversed(self.stages):
            if kind in stage.outputs:
                return stage.outputs[kind].read() or []
        return []

    def every(self, kind: str) -> list[Any]:
        """Rows of all stages that published a kind, in their order."""
        return [row for stage in self.stages if kind in stage.outputs for row in stage.outputs[kind].read() or []]


def cells_of(folder: Path, spec: Mapping[str, Any], trace: RunTrace) -> tuple[CellView, ...]:
    """All cells of a run.

    Args:
        folder: The run's folder.
        spec: Its frozen spec; empty where it is damaged.
        trace: What its events add up to.
    """
    items = {text_of(item, "id"): text_of(item, "uses") for item in _dicts(spec.get("stages"))}
    seen = dict.fromkeys(cell for cell, _ in trace.stages)
    planned = trace.cells or tuple(_planned(spec))
    names = [name for name in planned if name in seen or set(seen) <= set(planned)]
    store = folder.parent.parent / "store"
    return tuple(_cell(store, name, items, trace) for name in dict.fromkeys([*names, *seen]))


def _cell(store: Path, name: str, items: Mapping[str, str], trace: RunTrace) -> CellView:
    told = {stage: found for (cell, stage), found in trace.stages.items() if cell == name}
    stages = []
    for id in dict.fromkeys([*items, *told]):
        mark = told.get(id) or StageTrace()
        state = mark.state or WAITING
        if state == WAITING and trace.status == FINISHED:
            state = LEFT_OUT
        stages.append(_stage(id, items.get(id, id), state, mark, store / mark.folder if mark.folder else None))
    return CellView(name, tuple(stages))


def _stage(id: str, uses: str, state: str, mark: StageTrace, place: Path | None) -> StageView:
    return StageView(
        id=id,
        uses=uses,
        state=state,
        folder=place,
        rows={kind: int(number_of(out, "rows")) for kind, out in _items(mark.outputs)},
        usage={key: n for key, n in mark.usage.items() if isinstance(n, int)},
        seconds=mark.seconds,
        since=mark.since,
        outputs={
            kind: Output(place / Path(text_of(out, "file")).name, int(number_of(out, "rows")), text_of(out, "sha256"))
            for kind, out in _items(mark.outputs)
            if place and text_of(out, "file")
        },
        error=mark.error,
        saved=mark.saved,
        expires=mark.expires,
    )


def _planned(spec: Mapping[str, Any]) -> Iterable[str]:
    """Names of the cells of a frozen spec that no run has told yet: all combinations, as the pipeline names them."""
    seeds = spec.get("seed") if isinstance(spec.get("seed"), list) else [None]
    for character, models, scale, seed in itertools.product(
        _dicts(spec.get("characters")), _dicts(spec.get("models")), _dicts(spec.get("scales")), seeds or [None]
    ):
        student = text_of(mapping_of(models, "student"), "name").rstrip("/").rpartition("/")[2].lower()
        name = f"{text_of(character, 'id')}-{text_of(models, 'id') or student}-{text_of(scale, 'name')}"
        yield name if seed is None else f"{name}-s{seed}"


def _dicts(value: Any) -> tuple[dict[str, Any], ...]:
    return tuple(item for item in value if isinstance(item, dict)) if isinstance(value, list) else ()


def _items(outputs: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((kind, out) for kind, out in outputs.items() if isinstance(out, dict))
