"""Finding plugins and what they register: built-in ones by name, installed ones by entry point, files of a spec."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from charrun.errors import PluginError
from charrun.plugin_loading import OWN, Observer, Plugin, admit, new_manager

if TYPE_CHECKING:
    from pathlib import Path

    import pluggy

    from charrun.local_plugins import Allow, LocalFile
    from charrun.plugin_metadata import Offer
    from charrun.service.engine import Engine
    from charrun.spec import Library, Scale
    from charrun.stage import Stage

BUILT_IN = (
    "charrun.plugins.characters",
    "charrun.plugins.scales",
    "charrun.plugins.expand",
    "charrun.plugins.prompts",
    "charrun.plugins.teacher",
    "charrun.plugins.student",
    "charrun.plugins.pairs",
    "charrun.plugins.measurable",
    "charrun.plugins.dpo",
    "charrun.plugins.reflection",
    "charrun.plugins.interaction",
    "charrun.plugins.sft",
    "charrun.plugins.merge",
    "charrun.plugins.evaluate",
    "charrun.plugins.robustness",
    "charrun.plugins.second_turn",
    "charrun.plugins.prefill_attack",
    "charrun.plugins.off_switch",
    "charrun.plugins.scaffolds",
    "charrun.plugins.judge",
    "charrun.plugins.coherence",
    "charrun.plugins.preferences",
    "charrun.plugins.capability",
    "charrun.plugins.export",
    "charrun.plugins.engine_local",
    "charrun.plugins.engine_tinker",
    "charrun.plugins.metrics",
)


@dataclass(frozen=True)
class Registry:
    """Everything that plugins registered, by name, in the order of names.

    Attributes:
        plugins: The plugins, in the order in which they were loaded.
        stages: Stage classes.
        engines: Engine classes.
        characters: Character files by id.
        scales: Scales.
        templates: Prompt templates of all stages.
        origins: Who registered what, by kind (`stage`, `engine`, `character`, `scale`, `template`) and name.
        code: sha256 of the file that a stage of a local file comes from, by the stage's name.
        left_out: The installed plugins that cannot be used, with the reason.
        warnings: One line for each of them and for whatever else is odd.
    """

    plugins: tuple[Plugin, ...]
    stages: Mapping[str, type[Stage]]
    engines: Mapping[str, type[Engine]]
    characters: Mapping[str, Path]
    scales: Mapping[str, Scale]
    templates: Mapping[str, Path]
    origins: Mapping[tuple[str, str], str]
    code: Mapping[str, str]
    left_out: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def library(self) -> Library:
        """What a spec may call by name beside stages and engines."""
        from charrun.spec import Library

        return Library(self.characters, self.scales)

    def observers(self, hook: str) -> list[tuple[str, Observer]]:
        """The functions that observe a hook such as `charrun_stage_finished`, with the plugin's name, by name."""
        found = [(plugin.name, plugin.observers[hook]) for plugin in self.plugins if hook in plugin.observers]
        return sorted(found, key=lambda pair: pair[0])


def load_registry(
    third_party: bool = True,
    built_in: Iterable[str] = BUILT_IN,
    files: Sequence[LocalFile] = (),
    allow: Allow | None = None,
) -> Registry:
    """Load plugins and collect what they register.

    An installed plugin that cannot be imported or breaks the contract is left out whole, with a warning.

    Args:
        third_party: Whether to load installed plugins; `CHARRUN_LOAD_PLUGINS` may choose among them.
        built_in: Modules of built-in plugins.
        files: Local files to load after them, as a spec names them.
        allow: Asked whether a local file that is not trusted yet may run; without it none may.

    Raises:
        PluginError: Two plugins have or register the same name, or a local file may not run.
        SpecError: A local file cannot be loaded.
    """
    manager = new_manager()
    plugins = [admit(manager, name, OWN, partial(importlib.import_module, name)) for name in built_in]
    left_out: dict[str, str] = {}
    warnings: list[str] = []
    if third_party:
        further, left_out, warnings = _load_installed(manager)
        plugins += further
    registry = _assemble(plugins, left_out, warnings)
    return extend(registry, files, allow) if files else registry


def extend(registry: Registry, files: Sequence[LocalFile], allow: Allow | None = None) -> Registry:
    """The registry with the local files of a spec; arguments and errors as in `load_registry`."""
    from charrun.local_plugins import load_files

    if not files:
        return registry
    return _assemble(
        [*registry.plugins, *load_files(files, allow, new_manager())], registry.left_out, registry.warnings
    )


def _load_installed(manager: pluggy.PluginManager) -> tuple[list[Plugin], dict[str, str], list[str]]:
    from charrun.plugin_metadata import LOAD_VARIABLE, PLUGINS, offers, wanted

    chosen, unknown = wanted(offers(PLUGINS))
    _check_offers(chosen)
    plugins, left_out = [], {}
    warnings = [f"{LOAD_VARIABLE} names {name!r}, which is not installed" for name in unknown]
    for offer in chosen:
        try:
            plugins.append(admit(manager, offer.name, offer.owner, offer.point.load))
        except PluginError as error:
            left_out[offer.name] = error.message
            advice = f"pip uninstall {offer.distribution}, or set {LOAD_VARIABLE}= to load none"
            warnings.append(f"plugin {offer.name!r} of {offer.owner} is left out: {error.message} ({advice})")
    return plugins, left_out, warnings


def _check_offers(chosen: Sequence[Offer]) -> None:
    """No two entry points have one name."""
    owners: dict[str, list[Offer]] = {}
    for offer in chosen:
        owners.setdefault(offer.name, []).append(offer)
    twice = {name: found for name, found in owners.items() if len(found) > 1}
    if twice:
        lines = [
            f"two plugins are named {name!r}: those of {' and of '.join(offer.owner for offer in found)}"
            for name, found in twice.items()
        ]
        raise PluginError("\n".join(lines), _remedy(offer.owner for found in twice.values() for offer in found))


def _assemble(plugins: Sequence[Plugin], left_out: Mapping[str, str], warnings: Iterable[str]) -> Registry:
    """One registry of all plugins.

    Raises:
        PluginError: Names are registered twice; all of them are told.
    """
    found: dict[tuple[str, str], list[tuple[Plugin, Any]]] = {}
    for plugin in plugins:
        for kind, name, item in plugin.items():
            found.setdefault((kind, name), []).append((plugin, item))
    found = dict(sorted(found.items()))
    # A template is the same wherever it is the same file: built-in stages share one.
    twice = {
        key: [plugin for plugin, _ in takers]
        for key, takers in found.items()
        if len(takers) > 1 and not (key[0] == "template" and len({item for _, item in takers}) == 1)
    }
    if twice:
        lines = [f"{kind} {name!r} is registered by {_and(map(_who, by))}" for (kind, name), by in twice.items()]
        raise PluginError("\n".join(lines), _remedy(plugin.owner for by in twice.values() for plugin in by))
    tables: dict[str, dict[str, Any]] = {"stage": {}, "engine": {}, "character": {}, "scale": {}, "template": {}}
    for (kind, name), takers in found.items():
        tables[kind][name] = takers[0][1]
    return Registry(
        tuple(plugins),
        tables["stage"],
        tables["engine"],
        tables["character"],
        tables["scale"],
        tables["template"],
        {key: takers[0][0].owner for key, takers in found.items()},
        {stage.name: plugin.code for plugin in plugins if plugin.code for stage in plugin.stages},
        left_out,
        tuple(warnings),
    )


def _who(plugin: Plugin) -> str:
    return "charrun itself" if plugin.owner == OWN else plugin.owner


def _and(owners: Iterable[str]) -> str:
    return " and by ".join(dict.fromkeys(owners))


def _remedy(owners: Iterable[str]) -> str:
    from charrun.plugin_metadata import LOAD_VARIABLE

    installed = sorted({owner.split()[0] for owner in owners if owner != OWN and not owner.endswith(".py")})
    if not installed:
        return "give one of them another name"
    removals = " or ".join(f"pip uninstall {name}" for name in installed)
    return f"keep one of them: {removals}; --no-plugins and {LOAD_VARIABLE}= load none"
