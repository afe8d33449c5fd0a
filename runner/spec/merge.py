"""One layer of a document over another: mappings merge, a mapping patches a list, `null` removes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from charrun.errors import Problem
from charrun.spec.document import KeyPath, Node
from charrun.spec.words import shown, suggest

_IDENTITIES = ("id", "uses", "name")


@dataclass
class Merger:
    """Lays layers over each other and collects what does not fit.

    Attributes:
        problems: What does not fit.
        removed: The keys that a null has removed, each with the node that says so.
    """

    problems: list[Problem] = field(default_factory=list)
    removed: dict[KeyPath, Node] = field(default_factory=dict)

    def merge(self, base: Node, over: Node, path: KeyPath = ()) -> Node:
        """`over` laid over `base`; both stay as they are."""
        if not isinstance(over.value, dict):
            return over
        if isinstance(base.value, list):
            return self._patch(base, over, path)
        if isinstance(base.value, str) and (key := _short_for(path)):
            base = _in_full(base, key)
        return self._mapping(base, over, path) if isinstance(base.value, dict) else over

    def _mapping(self, base: Node, over: Node, path: KeyPath) -> Node:
        entries = dict(base.value)
        for name, (key, value) in over.value.items():
            if name not in entries:
                if value.value is None:
                    self._add(
                        key, "SPEC038", f"there is no {shown(name)} here to remove", suggest(name, entries, "keys")
                    )
                else:
                    entries[name] = (key, value)
            elif value.value is None:
                del entries[name]
                self.removed[(*path, name)] = key
            else:
                entries[name] = (key, self.merge(entries[name][1], value, (*path, name)))
        return Node(entries, over.mark, over.source)

    def _patch(self, base: Node, over: Node, path: KeyPath) -> Node:
        items: list[Node | None] = list(base.value)
        names = _names(base.value)
        for name, (key, value) in over.value.items():
            index = self._index(name, names, base.value, key)
            if index is None:
                continue
            item = base.value[index]
            if value.value is None:
                items[index] = None
            elif isinstance(value.value, dict) and isinstance(item.value, str) and not _short_for((*path, index)):
                message = f"{shown(item.value)} is named here, not written out: it has no keys to change"
                self._add(key, "SPEC039", message, "give the whole list anew, with this item written out")
            else:
                items[index] = self.merge(item, value, (*path, index))
        return Node([item for item in items if item is not None], over.mark, over.source)

    def _index(self, name: str, names: Mapping[str, list[int]], items: list[Node], key: Node) -> int | None:
        found = names.get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            told = ", ".join(str(index) for index in found)
            self._add(key, "SPEC037", f"several items are called {shown(name)}", f"use an index, one of {told}")
            return None
        if name.isascii() and name.isdecimal() and len(name) < 6 and int(name) < len(items):
            return int(name)
        hint = suggest(name, names, "items")
        if not names or name.lstrip("-").isdecimal():
            last = len(items) - 1
            hint = f"its items are numbered from 0 to {last}" if last > 0 else "its only item is '0'"
            hint = hint if items else "the list is empty"
        self._add(key, "SPEC037", f"the list has no item {shown(name)}", hint)
        return None

    def _add(self, node: Node, code: str, message: str, hint: str) -> None:
        self.problems.append(node.problem(code, message, hint))


def _names(items: list[Node]) -> dict[str, list[int]]:
    """What the items of a list are called, with their indexes; an id goes before what an item uses."""
    own: dict[str, list[int]] = {}
    uses: dict[str, list[int]] = {}
    for index, item in enumerate(items):
        if name := item_name(item):
            own.setdefault(name, []).append(index)
        if isinstance(item.value, dict) and "uses" in item.value:
            used = item.value["uses"][1].value
            if isinstance(used, str) and used != name:
                uses.setdefault(used, []).append(index)
    return {**uses, **own}


def item_name(item: Node) -> str:
    """What an item of a list is called: its text, or its id, use or name; empty if it has none."""
    if isinstance(item.value, dict):
        found = next((item.value[key][1].value for key in _IDENTITIES if key in item.value), "")
        return found if isinstance(found, str) else ""
    return item.value if isinstance(item.value, str) else ""


def _short_for(path: KeyPath) -> str:
    """The key that a text at `path` is short for: `dpo` is `{uses: dpo}`."""
    match path:
        case ("stages", int()) | ("engine",):
            return "uses"
        case ("models", int(), str(role)) if role != "id":
            return "name"
        case _:
            return ""


def _in_full(text: Node, key: str) -> Node:
    return Node({key: (text, text)}, text.mark, text.source)
