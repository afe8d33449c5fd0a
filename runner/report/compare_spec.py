"""What differs between two documents: changed values by dotted path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = object()
_KEYS = ("id", "name")


@dataclass(frozen=True)
class Change:
    """A value that is not the same on both sides; `ABSENT` where a side has none."""

    path: str
    a: Any
    b: Any

    def to_dict(self) -> dict[str, Any]:
        """As JSON; what is absent is null."""
        return {"path": self.path, **{k: None if v is ABSENT else v for k, v in (("a", self.a), ("b", self.b))}}


def changes(a: Any, b: Any, path: str = "") -> Iterator[Change]:
    """Changed values in A's order, then what B alone has.

    Items of a list are matched by their `id` or `name`, as `--set` names them, else by their index; a list of plain
    values counts as one value.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from changes(a.get(key, ABSENT), b.get(key, ABSENT), _join(path, str(key)))
    elif _items(a) and _items(b):
        named_a, named_b = _named(a), _named(b)
        both = [key for key in named_a if key in named_b]
        order = [key for key in named_b if key in named_a]
        if both != order:
            yield Change(f"{path} (order)", both, order)
        yield from changes(named_a, named_b, path)
    elif a is ABSENT or b is ABSENT or a != b:
        yield Change(path, a, b)


def _items(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _named(items: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    for key in _KEYS:
        names = [item.get(key) for item in items]
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return {str(name): item for name, item in zip(names, items, strict=True)}
    return {str(index): item for index, item in enumerate(items)}


def _join(path: str, key: str) -> str:
    word = f'"{key}"' if "." in key else key
    return f"{path}.{word}" if path else word
