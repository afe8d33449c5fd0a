"""The rows of two runs beside each other: which cells belong together, what their stages published, at what cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from charrun.store.cells import CellView, Output, StageView
from charrun.store.runs import Run


@dataclass(frozen=True)
class Pair:
    """A cell of A and the cell of B beside it."""

    a: CellView
    b: CellView

    @property
    def title(self) -> str:
        """Their name, or both names where they differ."""
        same = self.a.name == self.b.name
        return self.a.name if same else f"A's {self.a.name} beside B's {self.b.name}"


@dataclass(frozen=True)
class Rows:
    """Published rows of one kind of one stage in both runs; None where a side has none or its file is gone.

    Attributes:
        stage: The stage item's id.
        kind: The kind.
        rows_a: Rows in A.
        rows_b: Rows in B.
        same: Whether they are the same rows in the same order.
        differing: Rows without an equal one of the same id (else in the same place) on the other side.
        shared_prompts: Distinct prompts that both have; None where rows have no `prompt`.
        tokens_a: Mean answer length in tokens in A; None where rows have no `tokens`.
        tokens_b: The same in B.
    """

    stage: str
    kind: str
    rows_a: int | None
    rows_b: int | None
    same: bool
    differing: int | None
    shared_prompts: int | None
    tokens_a: float | None
    tokens_b: float | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def pairs_of(a: Run, b: Run) -> tuple[list[Pair], list[str]]:
    """Cells of the same name, else of the same character and scale, of the same character, or what alone is left.

    Returns:
        The pairs, and a line for each cell that has none.
    """
    left, right = list(a.cells), list(b.cells)
    pairs: list[Pair] = []
    for key in (_name, _place, _character):
        pairs += _match(left, right, partial(key, a), partial(key, b))
    if len(left) == len(right) == 1:
        pairs += [Pair(left.pop(), right.pop())]
    order = {cell.name: index for index, cell in enumerate(a.cells)}
    alone = [f"A's cell {cell.name} has no counterpart" for cell in left]
    alone += [f"B's cell {cell.name} has no counterpart" for cell in right]
    return sorted(pairs, key=lambda pair: order[pair.a.name]), alone


def _match(
    left: list[CellView],
    right: list[CellView],
    key_a: Callable[[CellView], Hashable],
    key_b: Callable[[CellView], Hashable],
) -> list[Pair]:
    """Pairs of equal keys in order; they are taken out of both lists."""
    found = []
    for a in tuple(left):
        b = next((cell for cell in right if key_b(cell) == key_a(a)), None)
        if b is not None:
            left.remove(a)
            right.remove(b)
            found.append(Pair(a, b))
    return found


def _name(run: Run, cell: CellView) -> Hashable:
    return cell.name


def _character(run: Run, cell: CellView) -> Hashable:
    return _place(run, cell)[0]


def _place(run: Run, cell: CellView) -> tuple[str, str]:
    """(character, scale) of a cell, by its name and what the frozen spec has."""
    characters = [id for id in _ids(run, "characters", "id") if cell.name.startswith(f"{id}-")]
    scales = [n for n in _ids(run, "scales", "name") if re.search(rf"-{re.escape(n)}(-s\d+)?$", cell.name)]
    return max(characters, key=len, default=""), max(scales, key=len, default="")


def _ids(run: Run, field: str, key: str) -> list[str]:
    items = run.spec.get(field)
    return [str(i.get(key)) for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def stages_of(pair: Pair) -> Iterator[tuple[str, StageView | None, StageView | None]]:
    """Each stage id with the stage of either side, in A's order, then what B alone has."""
    a, b = ({stage.id: stage for stage in cell.stages} for cell in (pair.a, pair.b))
    for id in dict.fromkeys([*a, *b]):
        yield id, a.get(id), b.get(id)


def rows_of(pair: Pair) -> Iterator[Rows]:
    """What each stage published, side by side."""
    for id, a, b in stages_of(pair):
        outputs_a, outputs_b = a.outputs if a else {}, b.outputs if b else {}
        for kind in dict.fromkeys([*outputs_a, *outputs_b]):
            yield _rows(id, kind, outputs_a.get(kind), outputs_b.get(kind))


def _rows(stage: str, kind: str, a: Output | None, b: Output | None) -> Rows:
    same = bool(a and b and a.sha256 and a.sha256 == b.sha256)
    rows_a = a.read() if a else None
    rows_b = rows_a if same else b.read() if b else None
    both = rows_a is not None and rows_b is not None
    differing = _differing(rows_a or [], rows_b or []) if both and not same else 0 if same else None
    return Rows(
        stage=stage,
        kind=kind,
        rows_a=a.rows if a else None,
        rows_b=b.rows if b else None,
        same=same or (both and differing == 0),
        differing=differing,
        shared_prompts=_shared(rows_a, rows_b),
        tokens_a=_mean_tokens(rows_a),
        tokens_b=_mean_tokens(rows_b),
    )


def _differing(a: Sequence[Any], b: Sequence[Any]) -> int:
    rows_a, rows_b = _keyed(a), _keyed(b)
    equal = [key for key, row in rows_a.items() if key in rows_b and rows_b[key] == row]
    return max(len(a), len(b)) - len(equal)


def _keyed(rows: Sequence[Any]) -> dict[str, Any]:
    ids = [row.get("id") if isinstance(row, dict) else None for row in rows]
    unique = all(isinstance(id, str) for id in ids) and len(set(ids)) == len(ids)
    return {str(ids[i] if unique else i): _content(row) for i, row in enumerate(rows)}


def _content(row: Any) -> Any:
    """A checkpoint's path is new with every training: what it holds is told by its fingerprint."""
    return row.get("fingerprint", row) if isinstance(row, dict) else row


def _shared(a: Sequence[Any] | None, b: Sequence[Any] | None) -> int | None:
    prompts_a, prompts_b = _prompts(a), _prompts(b)
    return len(prompts_a & prompts_b) if prompts_a and prompts_b else None


def _prompts(rows: Sequence[Any] | None) -> set[str]:
    return {r["prompt"] for r in rows or () if isinstance(r, dict) and isinstance(r.get("prompt"), str)}


def _mean_tokens(rows: Sequence[Any] | None) -> float | None:
    counts: list[int] = [r["tokens"] for r in rows or [] if isinstance(r, dict) and isinstance(r.get("tokens"), int)]
    return round(sum(counts) / len(counts), 1) if counts else None
