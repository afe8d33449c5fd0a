"""The spec's stages: known, in an order in which each finds its input, with options that they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from charrun.spec.document import KeyPath
from charrun.spec.draft import Draft
from charrun.spec.parts import StageInfo, StageItem
from charrun.spec.schema import options_of, with_defaults
from charrun.spec.words import listed, nearest, shown, suggest


def resolve_stages(
    draft: Draft, known: Mapping[str, StageInfo], preset: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
) -> tuple[StageItem, ...]:
    """The spec's stage items, as far as they are sound; a preset's options, by stage, are under their own."""
    walk = _Walk(draft, known, preset, tuple(_id(item) for item in draft.items("stages")))
    items = [walk.item(("stages", i), item) for i, item in enumerate(draft.items("stages"))]
    return tuple(item for item in items if item is not None)


def check_overrides(draft: Draft, items: tuple[StageItem, ...], known: Mapping[str, StageInfo]) -> None:
    """Check `stand_ins.with`: options by item id, of which each stage takes a part."""
    stages = {item.id: item.uses for item in items}
    # An item that is not sound has its own problem; its id is no unknown one.
    ids = [_id(item) for item in draft.items("stages")]
    for key, options in draft.mapping("stand_ins", "with").items():
        path = ("stand_ins", "with", key)
        if key not in ids:
            hint = suggest(key, filter(None, ids), "ids")
            draft.add("SPEC024", f"no stage item has the id {shown(key)}", path, hint, on="key")
        elif key in stages and draft.sound(path):
            schema = {**known[stages[key]].options_schema}
            schema.pop("required", None)
            draft.check(options, schema, path, options_of("stage", stages[key]))


def check_stage_budgets(draft: Draft) -> None:
    """Check `budget.stages`: its keys are ids of items."""
    ids = [_id(item) for item in draft.items("stages")]
    for key in draft.mapping("budget", "stages"):
        if key not in ids:
            hint = suggest(key, filter(None, ids), "ids")
            draft.add("SPEC024", f"no stage item has the id {shown(key)}", ("budget", "stages", key), hint, on="key")


def laid_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Options over others; mappings within merge."""
    both = {key: laid_over(base[key], value) for key, value in over.items() if _mappings(base.get(key), value)}
    return {**base, **over, **both}


def _mappings(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def _id(item: Any) -> str:
    """What an item is called, as far as it can be told; empty if it cannot."""
    if isinstance(item, dict):
        item = item.get("id", item.get("uses"))
    return item if isinstance(item, str) else ""


@dataclass
class _Walk:
    """Goes through the items in order and keeps what the earlier ones are called and produce."""

    draft: Draft
    known: Mapping[str, StageInfo]
    preset: Mapping[str, Mapping[str, Any]]
    ids: tuple[str, ...]
    earlier: dict[str, KeyPath] = field(default_factory=dict)
    produced: set[str] = field(default_factory=set)
    # Set after an item whose kinds nobody knows: whatever comes later might be fed by it.
    blind: bool = False

    def item(self, path: KeyPath, item: Any) -> StageItem | None:
        """One item; `None` if something is wrong with it."""
        parts = item if isinstance(item, dict) else {"uses": item}
        uses, name = parts.get("uses"), _id(item)
        if not isinstance(uses, str) or not name:
            self.blind = True
            return None
        uses_path = (*path, "uses") if isinstance(item, dict) else path
        info = self.known.get(uses)
        if info is None:
            hint = suggest(uses, self.known, "stages")
            self.draft.add("SPEC020", f"unknown stage {shown(uses)}", uses_path, hint)
        else:
            self.options(path, uses, parts.get("with", {}), info)
        self.identity(path, name, uses)
        self.needs(path, name, parts.get("needs", []))
        self.order(uses_path, uses, info or self.known.get(nearest(uses, self.known)), parts.get("with", {}))
        self.earlier.setdefault(name, path)
        if info is None or not self.draft.sound(path):
            return None
        given = laid_over(self.preset.get(uses, {}), parts.get("with", {}))
        options = with_defaults(info.options_schema, given)
        return StageItem(name, uses, options, tuple(parts.get("needs", ())), self.draft.document.node(path))

    def options(self, path: KeyPath, uses: str, options: Any, info: StageInfo) -> None:
        if isinstance(options, dict):
            schema = dict(info.options_schema)
            if "required" in schema:
                schema["required"] = [key for key in schema["required"] if key not in self.preset.get(uses, {})]
            self.draft.check(options, schema, (*path, "with"), options_of("stage", uses))

    def identity(self, path: KeyPath, name: str, uses: str) -> None:
        if name in self.earlier:
            line = self.draft.document.mark(self.earlier[name]).line
            hint = f"the first is in line {line}; give this one its own: {{uses: {uses}, id: {name}-2}}"
            self.draft.add("SPEC021", f"a second stage item with the id {shown(name)}", path, hint)

    def needs(self, path: KeyPath, name: str, needs: Any) -> None:
        for i, need in enumerate(needs if isinstance(needs, list) else []):
            if not isinstance(need, str) or need in self.earlier:
                continue
            if need == name:
                message, hint = f"{need!r} needs itself", "name an earlier item"
            elif need in self.ids:
                message, hint = f"{need!r} does not come before {name!r}", f"move {need!r} up"
            else:
                message, hint = (
                    f"no stage item has the id {shown(need)}",
                    suggest(need, self.earlier, "earlier ids"),
                )
            self.draft.add("SPEC023", message, (*path, "needs", i), hint)

    def order(self, path: KeyPath, uses: str, info: StageInfo | None, options: Any) -> None:
        if info is None:
            self.blind = True
            return
        given = {kind for kind, option in info.instead.items() if isinstance(options, dict) and option in options}
        for kind in info.consumes:
            if kind not in self.produced | given and not self.blind:
                producers = sorted(name for name, other in self.known.items() if kind in other.produces)
                hint = f"no installed stage produces {kind}"
                if producers:
                    hint = f"put {listed(map(repr, producers))} before it"
                if kind in info.instead:
                    hint += f", or give its option '{info.instead[kind]}'"
                message = f"stage {uses!r} needs {kind}, which no earlier stage produces"
                self.draft.add("SPEC022", message, path, hint)
        self.produced.update(info.produces)
