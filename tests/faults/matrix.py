"""The table of faults in docs/durability.md: what was tried, what was survived, what was lost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

Case = TypeVar("Case")
PAGE = Path(__file__).parents[2] / "docs" / "durability.md"
BEGIN, END = "<!-- faults:begin -->", "<!-- faults:end -->"


def tiers(whole: Iterable[Case], quick: Iterable[Case], sample: Iterable[Case]) -> list[Any]:
    """Cases for `pytest -m faults`, some of them in every run of the tests, and a sample of them in CI's slow tier."""
    marked: list[tuple[Case, str, Any]] = [(case, " quick", ()) for case in quick]
    marked += [(case, " sample", pytest.mark.slow) for case in sample]
    marked += [(case, "", pytest.mark.faults) for case in whole]
    return [pytest.param(case, marks=marks, id=f"{_name(case)}{tier}") for case, tier, marks in marked]


def _name(case: object) -> str:
    return "-".join(map(str, case)) if isinstance(case, tuple) else str(case)


@dataclass
class Row:
    """Counts of one kind of fault."""

    tried: int = 0
    survived: int = 0
    rows_lost: int = 0
    paid_twice: int = 0


@dataclass
class Matrix:
    """Counts by kind of fault, in the order in which they were first counted."""

    rows: dict[str, Row] = field(default_factory=dict)

    def count(self, what: str, tried: int = 1, survived: int = 1, rows_lost: int = 0, paid_twice: int = 0) -> None:
        """Add to a row."""
        row = self.rows.setdefault(what, Row())
        row.tried += tried
        row.survived += survived
        row.rows_lost += rows_lost
        row.paid_twice += paid_twice

    def table(self) -> str:
        """As markdown."""
        head = ["| fault | tried | survived | rows lost | rows paid twice |", "|---|---|---|---|---|"]
        lines = [
            f"| {what} | {row.tried:,} | {row.survived:,} | {row.rows_lost} | {row.paid_twice} |"
            for what, row in sorted(self.rows.items())
        ]
        return "\n".join([*head, *lines])

    def write(self) -> None:
        """Put the table into the page; rows of faults that were not tried this time stay."""
        text = PAGE.read_text(encoding="utf-8")
        before, table, after = (
            text[: text.index(BEGIN)],
            text[text.index(BEGIN) : text.index(END)],
            text[text.index(END) :],
        )
        for line in table.splitlines()[3:]:
            what, *counts = (cell.strip() for cell in line.strip("|").split("|"))
            self.rows.setdefault(what, Row(*(int(count.replace(",", "")) for count in counts)))
        PAGE.write_text(f"{before}{BEGIN}\n{self.table()}\n{after}", encoding="utf-8")
