"""From the words of a command line to a registry and a resolved spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

from charrun.plugin_manager import Registry, load_registry
from charrun.spec import Spec, StageInfo, load_spec


@dataclass(frozen=True)
class Loaded:
    """A spec and the plugins that it was checked against."""

    spec: Spec
    registry: Registry


def open_registry(plugins: bool = True) -> Registry:
    """The plugins at hand; what is left out of them is told on stderr.

    Args:
        plugins: Whether to load third-party ones.

    Raises:
        PluginError: Two plugins register the same name.
    """
    registry = load_registry(third_party=plugins)
    for warning in registry.warnings:
        click.echo(f"warning: {warning}", err=True)
    return registry


def load(path: str, sets: Sequence[str] = (), *, plugins: bool = True, trust: bool = False) -> Loaded:
    """Read, check and resolve a spec with the plugins at hand.

    Args:
        path: The spec file, or `builtin:NAME`.
        sets: `KEY=VALUE` texts of `--set`, in order.
        plugins: Whether to load third-party plugins.
        trust: Whether stage files that the spec names are loaded without asking.

    Raises:
        SpecError: With every problem.
        PluginError: Two plugins register the same name.
    """
    registry = open_registry(plugins)
    return Loaded(resolve(path, sets, registry), registry)


def resolve(path: str, sets: Sequence[str], registry: Registry) -> Spec:
    """The spec, resolved with a registry that is at hand.

    Raises:
        SpecError: With every problem.
    """
    return load_spec(
        path,
        stages={
            name: StageInfo(stage.options_schema, stage.consumes, stage.optional, stage.produces)
            for name, stage in registry.stages.items()
        },
        engines={name: engine.options_schema for name, engine in registry.engines.items()},
        templates=set(registry.templates),
    )
