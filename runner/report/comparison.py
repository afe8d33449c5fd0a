"""Two runs side by side: spec, versions, data, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charrun.report.compare_data import Pair, Rows, pairs_of, rows_of, stages_of
from charrun.report.compare_measurements import TablePair, tables_of
from charrun.report.compare_results import Results, answer, plain_model, results_of
from charrun.report.compare_spec import Change, changes
from charrun.report.intervals import METHOD
from charrun.statistics import PAIRED_METHOD
from charrun.store.files import read_json
from charrun.store.replay import mapping_of
from charrun.store.runs import Run


@dataclass(frozen=True)
class CellComparison:
    """One pair of cells: rows, results, tables of rates, and the cost of each stage."""

    pair: Pair
    rows: tuple[Rows, ...]
    results: Results
    tables: tuple[TablePair, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: The first run.
        b: The second run.
        spec: Changed values of the frozen specs.
        versions: Changed versions of packages and stages, and models of one name whose files are not the same.
        same_versions: Versions that both have.
        cells: Pairs of cells.
        alone: A line for each cell without a counterpart.
        verdict: `b_higher`, `a_higher`, `no_difference`, `mixed`, or `unknown`.
        answer: One sentence: did B do better than A?
    """

    a: Run
    b: Run
    spec: tuple[Change, ...]
    versions: tuple[Change, ...]
    same_versions: Mapping[str, str]
    cells: tuple[CellComparison, ...]
    alone: tuple[str, ...]
    verdict: str
    answer: str

    def to_dict(self) -> dict[str, Any]:
        """As JSON; keys are stable."""
        return {
            "a": _run(self.a),
            "b": _run(self.b),
            "spec": [change.to_dict() for change in self.spec],
            "versions": [change.to_dict() for change in self.versions],
            "cells": [_cell(cell) for cell in self.cells],
            "alone": list(self.alone),
            "interval": METHOD,
            "paired_interval": PAIRED_METHOD,
            "verdict": self.verdict,
            "answer": self.answer,
        }


def compare(a: Run, b: Run) -> Comparison:
    """Put two runs, read with what their stores hold, side by side."""
    pairs, alone = pairs_of(a, b)
    cells = tuple(
        CellComparison(pair, tuple(rows_of(pair)), results_of(pair), tuple(tables_of(pair))) for pair in pairs
    )
    verdict, sentence = answer([cell.results for cell in cells])
    lock_a, lock_b = _lock(a), _lock(b)
    versions_a, versions_b = mapping_of(lock_a, "versions"), mapping_of(lock_b, "versions")
    return Comparison(
        a=a,
        b=b,
        spec=tuple(changes(a.spec, b.spec)),
        versions=(*changes(versions_a, versions_b), *_changed_models(lock_a, lock_b), *_changed_stages(pairs)),
        same_versions={name: str(v) for name, v in versions_a.items() if versions_b.get(name) == v},
        cells=cells,
        alone=tuple(alone),
        verdict=verdict,
        answer=sentence,
    )


def _lock(run: Run) -> Mapping[str, Any]:
    value = read_json(run.folder / "lock.json")
    return value if isinstance(value, dict) else {}


def _changed_models(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """Models of one name and other files; models of other names are in the spec's changes."""
    found = []
    for change in changes(_identities(a), _identities(b), "models"):
        told = str(change.a), str(change.b)
        if "@" in told[0] and plain_model(told[0]) == plain_model(told[1]):
            found.append(change)
    return found


def _identities(lock: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The identity of each model by its entry's id and its role."""
    found: dict[str, dict[str, Any]] = {}
    for id, roles in mapping_of(lock, "models").items():
        found[id] = {role: mapping_of(roles, role).get("identity") for role in roles} if isinstance(roles, dict) else {}
    return found


def _changed_stages(pairs: Sequence[Pair]) -> list[Change]:
    """Stages whose own code has counted its version up in between."""
    found = {}
    for id, *sides in (stage for pair in pairs for stage in stages_of(pair)):
        described = [read_json(side.folder / "stage.json") if side and side.folder else None for side in sides]
        a, b = (each.get("cache_version") if isinstance(each, dict) else None for each in described)
        if a is not None and b is not None and a != b:
            found[id] = Change(f"stage {id}", a, b)
    return list(found.values())


def _run(run: Run) -> dict[str, Any]:
    return {"run": run.id, "folder": str(run.folder), "status": run.status, "last": run.last, "tokens": run.tokens}


def _cell(cell: CellComparison) -> dict[str, Any]:
    return {
        "a": cell.pair.a.name,
        "b": cell.pair.b.name,
        "title": cell.pair.title,
        "data": [rows.to_dict() for rows in cell.rows],
        "results": cell.results.to_dict(),
        "measurements": [each.to_dict() for each in cell.tables],
        "stages": [
            {
                "id": id,
                "state": {"a": a.state if a else None, "b": b.state if b else None},
                "tokens": {"a": a.tokens if a else None, "b": b.tokens if b else None},
                "seconds": {"a": a.seconds if a else None, "b": b.seconds if b else None},
            }
            for id, a, b in stages_of(cell.pair)
        ],
    }
