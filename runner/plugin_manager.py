"""Finding plugins and what they register: built-in ones by name, others by entry point."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from charrun import hookspecs
from charrun.errors import PluginError
from charrun.service.engine import Engine
from charrun.stage import Stage

GROUP = "charrun"
BUILT_IN = (
    "charrun.plugins.prompts",
    "charrun.plugins.teacher",
    "charrun.plugins.student",
    "charrun.plugins.pairs",
    "charrun.plugins.dpo",
    "charrun.plugins.reflection",
    "charrun.plugins.interaction",
    "charrun.plugins.sft",
    "charrun.plugins.evaluate",
    "charrun.plugins.export",
    "charrun.plugins.engine_local",
    "charrun.plugins.engine_tinker",
)


@dataclass(frozen=True)
class Registry:
    """Everything that plugins registered, by name."""

    stages: Mapping[str, type[Stage]]
    engines: Mapping[str, type[Engine]]
    warnings: tuple[str, ...] = field(default=())

    @property
    def templates(self) -> dict[str, Path]:
        """Prompt templates of all stages by name."""
        return {name: path for stage in self.stages.values() for name, path in stage.templates.items()}


def load_registry(third_party: bool = True, built_in: Iterable[str] = BUILT_IN) -> Registry:
    """Load plugins and collect what they register.

    A third-party plugin that can't be imported or implements an unknown hook is left out with a warning.

    Raises:
        PluginError: Two plugins register the same name.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    for module in built_in:
        manager.register(importlib.import_module(module), name=module)
    warnings = [w for point in _entry_points(third_party) if (w := _register(manager, point))]
    return Registry(
        stages=_collect(manager, "charrun_register_stages"),
        engines=_collect(manager, "charrun_register_engines"),
        warnings=tuple(warnings),
    )


def _entry_points(third_party: bool) -> list[EntryPoint]:
    return sorted(entry_points(group=GROUP), key=lambda p: p.name) if third_party else []


def _register(manager: pluggy.PluginManager, point: EntryPoint) -> str:
    owner = point.dist.name if point.dist else point.value
    if manager.has_plugin(point.name):
        raise PluginError(
            f"two plugins are named '{point.name}'; one is of {owner}",
            f"uninstall one: pip uninstall {owner}",
        )
    try:
        manager.register(point.load(), name=point.name)
        manager.check_pending()
    except Exception as error:  # whatever a stranger's module raises, the command line must live
        if manager.has_plugin(point.name):
            manager.unregister(name=point.name)
        return f"plugin '{point.name}' of {owner} is left out: {type(error).__name__}: {error}"
    return ""


def _collect(manager: pluggy.PluginManager, hook: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for caller in getattr(manager.hook, hook).get_hookimpls():
        for item in caller.function():
            if item.name in found:
                raise PluginError(
                    f"'{item.name}' is registered by both {found[item.name].__module__} and {item.__module__}",
                    "uninstall one of the two plugins",
                )
            found[item.name] = item
    return dict(sorted(found.items()))
