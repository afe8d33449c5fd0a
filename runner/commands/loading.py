"""From the words of a command line to a registry and a resolved spec."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from charrun.errors import Problem, SpecError
from charrun.local_plugins import Allow, Candidate, LocalFile
from charrun.plugin_manager import Registry, extend, load_registry
from charrun.spec import Spec, SpecDocument, StageInfo, load_spec, read_spec

_OF_STAGES = ("SPEC020", "SPEC022")


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
    return load_with(open_registry(plugins), path, sets, trust=trust)


def load_with(registry: Registry, path: str, sets: Sequence[str] = (), *, trust: bool = False) -> Loaded:
    """Like `load`, with a registry that is at hand; what the spec's own stage files register is added to it."""
    return load_document(registry, read_spec(path, sets), allowance(trust))


def load_document(registry: Registry, document: SpecDocument, allow: Allow | None) -> Loaded:
    """Like `load_with`, of a spec that is read already.

    Args:
        registry: The plugins at hand.
        document: The spec.
        allow: Which of its stage files may run.
    """
    # One that cannot be read is a problem of the spec, at the place that names it.
    files = [LocalFile(file.path, file.told) for file in document.plugin_files if _is_readable(file.path)]
    try:
        whole = extend(registry, files, allow) if files else registry
    except SpecError as error:
        raise SpecError([*error.problems, *_others(document, registry)]) from None
    return Loaded(resolve(document, (), whole), whole)


def _is_readable(path: Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _others(document: SpecDocument, registry: Registry) -> list[Problem]:
    """What is wrong with a spec beside its stage files: nothing that follows from these."""
    try:
        resolve(document, (), registry)
    except SpecError as error:
        return [problem for problem in error.problems if problem.code not in _OF_STAGES]
    return []


def stage_infos(registry: Registry) -> dict[str, StageInfo]:
    """What the spec needs to know of each stage."""
    return {
        name: StageInfo(
            options_schema=stage.options_schema,
            consumes=stage.consumes,
            optional=stage.optional,
            produces=stage.produces,
            instead=stage.instead,
            trains=stage.trains,
            scores=stage.scores,
            templates={template: stage.optional_variables.get(template, ()) for template in stage.templates},
        )
        for name, stage in registry.stages.items()
    }


def resolve(path: str | SpecDocument, sets: Sequence[str], registry: Registry) -> Spec:
    """The spec, resolved with a registry that has all its stages.

    Raises:
        SpecError: With every problem.
    """
    return load_spec(
        path,
        stages=stage_infos(registry),
        engines={name: engine.options_schema for name, engine in registry.engines.items()},
        templates=registry.templates,
        library=registry.library,
        sets=sets,
    )


def allowance(trust: bool) -> Allow | None:
    """How stage files that are not trusted yet may come to run: all with `--trust`, else by a person at a terminal."""
    if trust:
        return lambda candidate: True
    return _ask if sys.stdin.isatty() and sys.stderr.isatty() else None


def _ask(candidate: Candidate) -> bool:
    """Show one file and ask for it once; a yes is remembered for this content."""
    from charrun.trust import TrustStore

    click.echo(
        f"The spec names a file of its own code, which runs with all that you may do:\n"
        f"  {candidate.file.path}\n  {len(candidate.source):,} bytes, sha256 {candidate.digest}",
        err=True,
    )
    question = f"Run code of {candidate.file.told} (sha256 {candidate.digest[:12]}…, {candidate.state})?"
    allowed = click.confirm(question, default=False, err=True)
    if allowed:
        try:
            TrustStore().remember(candidate.file.path, candidate.digest)
        except OSError as error:
            click.echo(f"warning: it will be asked again: {error.strerror or error}: {error.filename}", err=True)
    return allowed
