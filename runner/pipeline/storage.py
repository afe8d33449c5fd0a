"""How large final checkpoints get, which stay at the service until they are deleted: earlier ones tell."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun.errors import EnvironmentProblem
from charrun.pipeline.adapters import BYTES
from charrun.pipeline.checkpoints import CHECKPOINT
from charrun.store.files import read_json
from charrun.store.replay import mapping_of
from charrun.store.runs import Run
from charrun.store.tickets import Ticket, read_ticket, tickets

if TYPE_CHECKING:
    from charrun.pipeline.stage_run import StageRun


class EarlierSizes:
    """Looks them up in a store, once; nothing is written."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def of(self, run: StageRun) -> int | None:
        """Bytes of the checkpoint that a training will save, as far as it is known from others of its base model.

        An adapter and its optimizer grow in proportion to the rank.
        """
        student, rank = run.described["models"].get("student", {}).get("model"), _rank(run)
        each = self._by_rank.get(student) if run.stage.trains == ("student",) else None
        return round(each * rank) if each and rank else None

    @cached_property
    def _by_rank(self) -> dict[str, float]:
        """By base model, as fingerprints have it, the bytes for each unit of rank."""
        found: dict[str, float] = {}
        for folder in sorted({path.parent for path in self._store.glob(f"*/{CHECKPOINT}-*.jsonl")}):
            student = mapping_of(mapping_of(read_json(folder / "stage.json") or {}, "models"), "student").get("model")
            for ticket in filter(None, map(read_ticket, tickets(folder))):
                for row in _rows(ticket):
                    if student and row.get(BYTES) and row.get("lora_rank"):
                        found[student] = row[BYTES] / row["lora_rank"]
        return found


def _rows(ticket: Ticket) -> list[dict[str, Any]]:
    """Checkpoints that work has published; none where they are damaged."""
    with suppress(EnvironmentProblem):
        return ticket.outputs[CHECKPOINT].read() if CHECKPOINT in ticket.outputs else []
    return []


@dataclass(frozen=True)
class Storage:
    """What final checkpoints take at the service.

    Attributes:
        size: Bytes of those whose size the engine has said.
        known: How many these are.
        unknown: How many others there are.
    """

    size: int = 0
    known: int = 0
    unknown: int = 0


def stored_by(run: Run) -> Storage:
    """A run's final checkpoints; cells that share one count it once."""
    rows = (row for cell in run.cells for row in cell.every(CHECKPOINT) if isinstance(row, dict))
    sizes = list({str(row.get("state")): row.get(BYTES) for row in rows}.values())
    known = [int(size) for size in sizes if size is not None]
    return Storage(sum(known), len(known), len(sizes) - len(known))


def _rank(run: StageRun) -> int | None:
    """The rank that a training's adapter will have: its own option's, else that of the checkpoint it continues."""
    if rank := run.options.get("lora_rank"):
        return int(rank)
    sources = run.producers(CHECKPOINT) if CHECKPOINT in run.stage.consumes else []
    return _rank(sources[-1]) if sources else None
