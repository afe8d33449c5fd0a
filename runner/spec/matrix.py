"""Which cells of the matrix there are: seeds, and what `exclude` leaves out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.model import Arm, Exclusion, Spec
from charrun.spec.parts import Character, ModelEntry, Scale
from charrun.spec.words import shown, suggest

_MANY = {
    "character": "characters",
    "model": "ids of models",
    "student": "students",
    "teacher": "teachers",
    "scale": "scales",
    "seed": "seeds",
    "arm": "arms",
}


MAX_CELLS = 5_000
_AXES = ("characters", "models", "scales", "seed", "arms")


@dataclass(frozen=True)
class Axes:
    """What the matrix is made of."""

    characters: Sequence[Character]
    models: Sequence[ModelEntry]
    scales: Sequence[Scale]
    seeds: Sequence[int]
    arms: Sequence[Arm]


def resolve_seeds(draft: Draft) -> tuple[int, ...]:
    """The spec's seeds, as far as they are sound."""
    written = draft.mapping().get("seed", 0)
    if not draft.sound(("seed",)):
        return (0,)
    if not isinstance(written, list):
        return (written,)
    for i, seed in enumerate(written):
        if seed in written[:i]:
            draft.add("SPEC031", f"seed {seed} is listed twice", ("seed", i), "remove one of them")
    return tuple(written)


def resolve_exclude(draft: Draft, axes: Axes) -> tuple[Exclusion, ...]:
    """What is left out of the matrix, as far as the axes are sound, and small enough."""
    sizes = {
        "characters": len(axes.characters),
        "models": len(axes.models),
        "scales": len(axes.scales),
        "seed": len(axes.seeds),
        "arms": len(axes.arms) or 1,
    }
    if (size := prod(sizes.values())) > MAX_CELLS:
        product_of = " x ".join(
            f"{number:,} ({axis})" for axis, number in sizes.items() if axis != "arms" or number > 1
        )
        largest = max(sizes, key=lambda axis: sizes[axis])
        message = f"a matrix of {size:,} cells: {product_of}"
        draft.add("SPEC050", message, (largest,), f"at most {MAX_CELLS:,}: make several specs of it", on="key")
        return ()
    if not draft.items("exclude") or not all(draft.sound((axis,)) for axis in _AXES) or not draft.whole():
        return ()
    left = set(_cells(axes))
    found = []
    for i, written in enumerate(draft.items("exclude")):
        path = ("exclude", i)
        if not draft.sound(path):
            continue
        out = _exclusion(draft, path, written, axes)
        if out is None:
            continue
        matched = {cell for cell in _cells(axes) if out.matches(*cell)}
        if not matched:
            hint = "each of its values is there, but no cell has all of them; remove it"
            draft.add("SPEC047", "this leaves out nothing: no cell matches", path, hint)
        left -= matched
        found.append(out)
    if not left and draft.sound(("exclude",)):
        draft.add("SPEC049", "exclude leaves no cell", ("exclude",), "there is nothing to run", on="key")
    return tuple(found)


def check_names(draft: Draft, spec: Spec) -> None:
    """Check that no two cells have the same name, which ids that hold hyphens can come to."""
    seen: dict[str, str] = {}
    for cell in spec.cells:
        if cell.name in seen and seen[cell.name] != cell.models.id:
            index = next(i for i, entry in enumerate(spec.models) if entry.id == cell.models.id)
            message = f"two cells are called {cell.name!r}"
            draft.add("SPEC046", message, ("models", index), "give this entry another id")
        seen.setdefault(cell.name, cell.models.id)


_Cell = tuple[str, str, str, int, str]


def _cells(axes: Axes) -> Iterable[_Cell]:
    ids = [character.id for character in axes.characters], [entry.id for entry in axes.models]
    return product(*ids, [scale.name for scale in axes.scales], axes.seeds, [arm.name for arm in axes.arms])


def _exclusion(draft: Draft, path: KeyPath, written: Mapping[str, Any], axes: Axes) -> Exclusion | None:
    """One item; `None` if it names something that the matrix does not have."""
    known: dict[str, set[Any]] = {
        "character": {character.id for character in axes.characters},
        "model": {entry.id for entry in axes.models},
        "student": _names(draft, "student"),
        "teacher": _names(draft, "teacher"),
        "scale": {scale.name for scale in axes.scales},
        "seed": set(axes.seeds),
        "arm": {arm.name for arm in axes.arms if arm.name},
    }
    sound = True
    for key, values in written.items():
        for j, value in enumerate(_as_list(values)):
            if value not in known[key]:
                at = (*path, key, j) if isinstance(values, list) else (*path, key)
                hint = suggest(value if isinstance(value, str) else "", map(str, known[key]), _MANY[key])
                draft.add("SPEC048", f"the matrix has no {key} {shown(value)}", at, hint)
                sound = False
    if not sound:
        return None
    wanted = {key: frozenset(_as_list(values)) for key, values in written.items()}
    return Exclusion(
        wanted.get("character"),
        _entries(draft, axes, wanted),
        wanted.get("scale"),
        wanted.get("seed"),
        wanted.get("arm"),
    )


def _entries(draft: Draft, axes: Axes, wanted: Mapping[str, frozenset[Any]]) -> frozenset[str] | None:
    """Ids of the entries that an item is about; `None` if it is about all."""
    if not {"model", "student", "teacher"} & wanted.keys():
        return None
    tests: list[Callable[[int, ModelEntry], bool]] = []
    if "model" in wanted:
        tests.append(lambda i, entry: entry.id in wanted["model"])
    for role in ("student", "teacher"):
        if role in wanted:
            tests.append(lambda i, entry, role=role: _written(draft, i, role) in wanted[role])  # type: ignore[misc]
    return frozenset(entry.id for i, entry in enumerate(axes.models) if all(test(i, entry) for test in tests))


def _names(draft: Draft, role: str) -> set[str]:
    return {_written(draft, i, role) for i in range(len(draft.items("models")))}


def _written(draft: Draft, index: int, role: str) -> str:
    """A model's name as the spec has it."""
    value = draft.document.at(("models", index, role))
    return str(value["name"] if isinstance(value, dict) else value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
