"""`charrun doctor`: whether this machine, and a spec on it, can run."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from charrun.commands.options import json_option, plugin_options, runs_dir_option, set_option
from charrun.commands.words import spec_files
from charrun.errors import EXIT_ENVIRONMENT, Problem, SpecError
from charrun.secrets import hide_message, learn_address

if TYPE_CHECKING:
    from charrun.pipeline.choice import Choice
    from charrun.plugin_manager import Registry
    from charrun.service.checks import Check

SMALLEST = "charrun/demo-student-small"
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}
_INDENT = 9


@click.command()
@click.argument("spec", required=False, type=click.Path(path_type=str), shell_complete=spec_files)
@set_option
@runs_dir_option
@plugin_options
@click.option("--no-engine", is_flag=True, help="Start and reach no engine.")
@json_option
def doctor(
    spec: str | None,
    sets: Sequence[str],
    runs_dir: Path,
    plugins: bool,
    trust: bool,
    no_engine: bool,
    as_json: bool,
) -> None:
    """Check this machine, and SPEC on it.

    Packages, processor, credentials, clock, disk, plugins and the local engine; with SPEC also the spec, the engine
    that it would run on, its models, their rendering, and the checkpoints of its runs. Ends with 5 where there is a
    problem. The network is used only where credentials or an address point to a service.
    """
    asked = _Asked(spec, tuple(sets), runs_dir, plugins, trust, not no_engine)
    levels = []
    for check in _checks(asked):
        levels.append(check.level)
        _print(check, as_json)
    if not as_json:
        click.echo(_summary(levels))
    if "problem" in levels:
        sys.exit(EXIT_ENVIRONMENT)


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for; `engine` tells whether one may be started or reached."""

    spec: str | None
    sets: tuple[str, ...]
    runs_dir: Path
    plugins: bool
    trust: bool
    engine: bool


def _checks(asked: _Asked) -> Iterator[Check]:
    """Every check, the fast ones first."""
    from charrun.service import checks, disk_checks

    yield from checks.guarded("packages", checks.packages)
    yield from checks.guarded("credentials", checks.credentials)
    yield from checks.guarded("runs", lambda: disk_checks.runs_folder(asked.runs_dir))
    registry: list[Registry] = []
    yield from checks.guarded("plugins", lambda: _plugins(asked.plugins, registry))
    chosen: list[tuple[Choice, Registry]] = []
    if asked.spec is not None and registry:
        yield from checks.guarded("spec", lambda: _spec(asked, asked.spec or "", registry[0], chosen))
    address = _address(asked, [choice for choice, _ in chosen])
    learn_address(address or "")
    yield from checks.guarded("clock", lambda: checks.clock(address))
    yield from checks.guarded("torch", checks.processor)
    yield from checks.guarded("cache", disk_checks.compiled_code)
    if asked.spec is None and registry and asked.engine:
        yield from _engines(registry[0], address)
    for choice, known in chosen:
        yield from _models(choice, known, asked)


def _address(asked: _Asked, chosen: Sequence[Choice]) -> str | None:
    """Where the network may be used: nowhere, the spec's own address, or the service of the credentials."""
    from charrun.service.checks import service_address

    if not asked.engine or (asked.spec is not None and not any(choice.engine.hosted for choice in chosen)):
        return None
    for choice in chosen:
        if "base_url" in choice.spec.engine.options:
            return str(choice.spec.engine.options["base_url"])
    return service_address()


def _plugins(plugins: bool, registry: list[Registry]) -> Iterator[Check]:
    from charrun.plugin_manager import load_registry
    from charrun.service.checks import Check

    found = load_registry(third_party=plugins)
    registry.append(found)
    for text in found.warnings:
        yield Check("plugins", "warning", text, "update it or uninstall it")
    yield Check("plugins", "ok", f"{len(found.stages)} stages and {len(found.engines)} engines are registered")


def _spec(asked: _Asked, spec: str, registry: Registry, chosen: list[tuple[Choice, Registry]]) -> Iterator[Check]:
    from charrun.commands.loading import load_with
    from charrun.pipeline.checks import check_cells
    from charrun.pipeline.choice import choose
    from charrun.pipeline.diagnosis import engine_choice
    from charrun.pipeline.run import plan_cells
    from charrun.service.checks import Check

    try:
        loaded = load_with(registry, spec, asked.sets, trust=asked.trust)
        choice = choose(loaded.spec, loaded.registry)
        warnings = check_cells(plan_cells(choice, loaded.registry, asked.runs_dir))
    except SpecError as error:
        yield from map(_mistake, error.problems)
        return
    yield Check("spec", "ok", f"{spec} is valid")
    yield from map(_mistake, [*choice.warnings, *warnings])
    yield from engine_choice(loaded.spec, choice)
    chosen.append((choice, loaded.registry))


def _mistake(problem: Problem) -> Check:
    from charrun.service.checks import Check

    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    level: Literal["warning", "problem"] = "warning" if problem.severity == "warning" else "problem"
    return Check("spec", level, f"{place} {problem.code} {problem.message}", problem.hint)


def _engines(registry: Registry, address: str | None) -> Iterator[Check]:
    """The local engine with the smallest demo model, and the service where something points to one."""
    from charrun.pipeline.diagnosis import Place, running_engine
    from charrun.service.checks import guarded
    from charrun.spec import ModelRef

    with tempfile.TemporaryDirectory(prefix="charrun-doctor-") as folder:
        place = Place(Path(folder) / "engine", Path(folder) / "engine.log")
        if "local" in registry.engines:
            local = registry.engines["local"]()
            yield from guarded("engine", lambda: running_engine(local, {}, [ModelRef(SMALLEST)], place))
        if address and "tinker" in registry.engines:
            tinker = registry.engines["tinker"]()
            yield from guarded("engine", lambda: running_engine(tinker, {}, [], place))


def _models(choice: Choice, registry: Registry, asked: _Asked) -> Iterator[Check]:
    """A spec's models on disk, and at work on its engine."""
    from charrun.pipeline.diagnosis import Place, endpoint, local_model, models_of, running_engine, runs_of, trained_of
    from charrun.service.checks import guarded

    models = models_of(choice)
    for ref in models:
        yield from guarded("model", partial(local_model, ref))
    if not asked.engine:
        return
    for ref in models:
        yield from guarded("endpoint", partial(endpoint, ref))
    with tempfile.TemporaryDirectory(prefix="charrun-doctor-") as folder:
        kept = asked.runs_dir.absolute() / "engine"
        place = Place(kept if kept.exists() else Path(folder) / "engine", Path(folder) / "engine.log")
        options = dict(choice.spec.engine.options)
        runs = runs_of(choice.spec.name, choice.engine.name, asked.runs_dir)
        trained = trained_of(choice, registry)
        yield from guarded("engine", lambda: running_engine(choice.engine, options, models, place, runs, trained))


def _print(check: Check, as_json: bool) -> None:
    what, advice = hide_message(check.what), hide_message(check.advice)
    if as_json:
        click.echo(json.dumps({"check": check.name, "level": check.level, "what": what, "advice": advice}))
        return
    text = " ".join((f"{what}  ({advice})" if advice else what).splitlines())
    if sys.stdout.isatty():
        width = max(40, shutil.get_terminal_size().columns)
        lines = textwrap.wrap(text, width - _INDENT, break_on_hyphens=False) or [""]
        text = ("\n" + " " * _INDENT).join(lines)
    colour = None if "NO_COLOR" in os.environ else _COLOURS[check.level]
    click.echo(click.style(f"{check.level:<{_INDENT}}", fg=colour) + text)


def _summary(levels: Sequence[str]) -> str:
    counts = [(levels.count(level), level) for level in ("problem", "warning")]
    found = " and ".join(f"{n} {level}{'s' if n > 1 else ''}" for n, level in counts if n)
    return f"{found} in {len(levels)} checks" if found else f"{len(levels)} checks, no problem"
