"""From the words of a command line to a registry and a resolved spec."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from charrun.plugin_manager import Registry, load_registry
from charrun.spec import Spec, StageInfo, load_spec

if TYPE_CHECKING:
    from charrun.local_plugins import Allow, Candidate


@dataclass(frozen=True)
class Loaded:
    """A spec and the plugins that it was checked against."""

    spec: Spec
    registry: Registry


def open_registry(plugins: bool = True) -> Registry:
    """The plugins at hand; what is left out of them is told on stderr.

    Args:
        plugins: Whether to load installed ones beside charrun's own.

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
        PluginError: Two plugins register the same name, or a stage file may not run.
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
        library=registry.library,
    )


def allowance(trust: bool) -> Allow | None:
    """How stage files that are not trusted yet may come to run: all with `--trust`, else by a person at a terminal."""
    if trust:
        return lambda candidate: True
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(candidate: Candidate) -> bool:
    """Show one file and ask for it once; a yes is remembered for this content."""
    from charrun.trust import TrustStore

    changed = "changed since you allowed it" if candidate.changed else "new"
    click.echo(
        f"The spec names a file of its own code, which runs with all that you may do:\n"
        f"  {candidate.file.path}\n  {len(candidate.source):,} bytes, sha256 {candidate.digest}",
        err=True,
    )
    question = f"Run code of {candidate.file.told} (sha256 {candidate.digest[:12]}…, {changed})?"
    allowed = click.confirm(question, default=False, err=True)
    if allowed:
        try:
            TrustStore().remember(candidate.file.path, candidate.digest)
        except OSError as error:
            click.echo(f"warning: it will be asked again: {error.strerror or error}: {error.filename}", err=True)
    return allowed
