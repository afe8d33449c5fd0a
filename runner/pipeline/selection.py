"""Which cells and stages of a spec a command is about: `--character`, `--model`, `--scale`, `--from`, `--until`, …"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from charrun.errors import UsageProblem
from charrun.spec import CellSpec, Spec
from charrun.spec.words import listed, nearest


@dataclass(frozen=True)
class Selection:
    """A part of a spec; empty fields leave nothing out.

    Attributes:
        characters: Ids of characters.
        models: Ids of model entries.
        scales: Names of scales.
        first: Id of the stage item to begin with; what comes before must be done already.
        last: Id of the stage item to end with.
        forced: Ids of stage items that are made anew although they are done.
        after: Name of a scale whose cell must have passed its evaluation.
        names: Names of the cells that are left after that; empty before it was looked at.
        arms: Names of arms.
    """

    characters: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    first: str = ""
    last: str = ""
    forced: tuple[str, ...] = ()
    after: str = ""
    names: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()

    @property
    def is_part(self) -> bool:
        """Whether it leaves cells or stages out."""
        return any((self.characters, self.models, self.scales, self.first, self.last, self.names, self.arms))

    def to_dict(self) -> dict[str, Any]:
        """What of it leaves something out, as plain data."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items() if value}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Selection:
        """What `to_dict` gave."""
        parts: dict[str, Any] = {k: tuple(part) if isinstance(part, list) else part for k, part in value.items()}
        return cls(**parts)

    def cells(self, spec: Spec) -> tuple[CellSpec, ...]:
        """The spec's cells that are meant.

        Raises:
            UsageProblem: A name that the spec does not have, or nothing is left.
        """
        cells = spec.cells
        _known("--character", self.characters, [cell.looked_for.id for cell in cells])
        _known("--model", self.models, [cell.models.id for cell in cells])
        _known("--scale", self.scales, [cell.scale.name for cell in cells])
        _known("--arm", self.arms, [cell.arm.name for cell in cells])
        found = tuple(
            cell
            for cell in cells
            if (not self.names or cell.name in self.names)
            and (not self.characters or cell.looked_for.id in self.characters)
            and (not self.models or cell.models.id in self.models)
            and (not self.scales or cell.scale.name in self.scales)
            and (not self.arms or cell.arm.name in self.arms)
        )
        if not found:
            raise UsageProblem("the options leave no cell of the spec", f"its cells: {_told(c.name for c in cells)}")
        return found

    def checked(self, spec: Spec) -> Selection:
        """Itself, its stage ids checked against the spec.

        Raises:
            UsageProblem: An id that the spec does not have, or the end comes before the beginning.
        """
        ids = [item.id for item in spec.stages]
        _known("--from", [self.first] if self.first else [], ids)
        _known("--until", [self.last] if self.last else [], ids)
        _known("--force", self.forced, ids)
        if self.first and self.last and ids.index(self.last) < ids.index(self.first):
            raise UsageProblem(f"--until {self.last} comes before --from {self.first} in the spec")
        inside = ids[ids.index(self.first) if self.first else 0 : ids.index(self.last) + 1 if self.last else None]
        outside = [id for id in self.forced if id not in inside]
        if outside:
            raise UsageProblem(f"--force {outside[0]} lies outside what --from and --until select")
        return self

    def bounds(self, ids: Sequence[str], order: Sequence[str]) -> tuple[int, int]:
        """From where to where a cell's stage items are meant.

        Args:
            ids: The cell's items, in order.
            order: Those of the spec. An arm may lack the first or the last that is meant: what comes next to it counts.
        """
        after = [id for id in order[order.index(self.first) :] if id in ids] if self.first else ids[:1]
        until = [id for id in order[: order.index(self.last) + 1] if id in ids] if self.last else ids[-1:]
        start = ids.index(after[0]) if after else len(ids)
        return start, max(start, ids.index(until[-1]) + 1 if until else 0)


def _known(option: str, words: Iterable[str], names: Collection[str]) -> None:
    for word in words:
        if word not in names:
            near = nearest(word, set(names))
            hint = f"did you mean {near!r}?" if near else f"the spec has {_told(names)}"
            raise UsageProblem(f"{option} {word}: the spec has nothing of this name", hint)


def _told(names: Iterable[str]) -> str:
    unique = list(dict.fromkeys(names))
    return listed(unique[:12]) + (f" and {len(unique) - 12} more" if len(unique) > 12 else "")
