"""What a look at checksums finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from charrun.store.files import read_json, summed
from charrun.store.lines import unsealed


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong.

    Attributes:
        file: In which file; one that is missing should be there.
        line: Its line, from 1; 0 where it is about the whole file.
        what: What is wrong, as the end of a sentence about the file.
        then: What the next run does about it.
    """

    file: Path
    line: int
    what: str
    then: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''} {self.what}: {self.then}"


@dataclass
class Checked:
    """What was found.

    Attributes:
        covered: Files that were checked.
        damage: What is wrong with them, or that they are missing.
        uncovered: Files that carry no checksum.
    """

    covered: list[Path] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    uncovered: list[Path] = field(default_factory=list)

    def add(self, path: Path, what: str, then: str, line: int = 0) -> None:
        """Something is wrong with a file."""
        self.damage.append(Damage(path, line, what, then))

    def whole(self, path: Path, then: str) -> dict[str, Any] | None:
        """Check a JSON file to the byte; returns what it says, or None."""
        self.covered.append(path)
        value = read_json(path)
        if value is None or path.read_bytes() != summed(value).encode():
            self.add(path, "is damaged" if path.exists() else "is missing", then)
            return None
        return value

    def lines(self, path: Path, then: str, *, written: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
        """Check a file of sealed lines; yields the number of each sound one and what it says.

        Args:
            path: The file.
            then: What the next run does about a line that is not.
            written: Whether a living process may be appending to it.
        """
        self.covered.append(path)
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    if not written and path.stat().st_size == file.tell():  # it is nobody's line in the making
                        self.add(path, "ends within a line", f"cut off; {then}", number)
                    return
                value = _value(line)
                if value is None:
                    self.add(path, "is damaged", then, number)
                else:
                    yield number, value


def _value(line: bytes) -> dict[str, Any] | None:
    try:
        return unsealed(line)
    except (ValueError, RecursionError):
        return None
