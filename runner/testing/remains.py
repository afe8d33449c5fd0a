"""What a stage's folder holds of its work, and what a process leaves of it that dies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from charrun.store.items import RECORDS
from charrun.store.lines import read_lines
from charrun.store.tickets import DONE, read_ticket, tickets
from charrun.store.training import REFERENCE, TRAINING, recorded


def written(folder: Path) -> dict[str, list[Any]]:
    """Rows of the JSON-lines files that a stage's work has written beside its outputs, by path."""
    names = {name for ticket in map(read_ticket, tickets(folder)) if ticket for name in ticket.files}
    return {name: [*map(json.loads, (folder / name).open("rb"))] for name in sorted(names) if name.endswith(".jsonl")}


def forget_tickets(folder: Path) -> None:
    """Leave the records alone: what a process leaves that dies just before its stage is done."""
    for path in (folder / DONE).iterdir():
        path.unlink()


def halve(folder: Path) -> tuple[int, int]:
    """Keep the first half of each file of records, and a torn piece of the next line; dropped records, and lines."""
    records = lines = 0
    for path in [folder / name for name in (*RECORDS, TRAINING, REFERENCE) if (folder / name).exists()]:
        whole = path.read_bytes().splitlines(keepends=True)
        half = len(whole) // 2
        torn = whole[half][: len(whole[half]) // 2] if half < len(whole) else b""
        path.write_bytes(b"".join(whole[:half]) + torn)
        lines += len(whole) - half
        records += len(whole) - half if path.name in RECORDS else 0
    return records, lines


def count(folder: Path) -> int:
    """Stored answers and scores."""
    return sum(1 for name in RECORDS for _ in read_lines(folder / name))


def saved_steps(folder: Path) -> int:
    """Optimiser steps that the newest checkpoint of each training holds, together."""
    return sum({name: saved.next_step for name, saved in recorded(folder / TRAINING)}.values())


def has_ended(folder: Path) -> bool:
    """Whether each training that is recorded ended with a checkpoint that stays."""
    newest = dict(recorded(folder / TRAINING))
    begun = {line.value["training"] for line in read_lines(folder / TRAINING)}
    return bool(begun) and all(name in newest and newest[name].is_final for name in begun)
