"""`charrun lock`: write or compare the lock file beside a spec; and `--locked` of other commands."""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from charrun.commands.loading import Loaded, load
from charrun.commands.options import plugin_options, set_option
from charrun.commands.words import spec_files
from charrun.errors import CharrunError, SpecError, UsageProblem

if TYPE_CHECKING:
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.shared import Shared
    from charrun.report.compare_spec import Change

_BUILTIN = "builtin:"


@click.command()
@click.argument("spec", type=click.Path(path_type=str), shell_complete=spec_files)
@click.option("--check", is_flag=True, help="Write nothing; exit code 3 where something has changed.")
@click.option(
    "-o", "--output", type=click.Path(path_type=str), metavar="FILE", default="", help="Instead of SPEC.lock."
)
@set_option
@plugin_options
def lock(spec: str, check: bool, output: str, sets: Sequence[str], plugins: bool, trust: bool) -> None:
    """Write SPEC.lock, which says what a run of SPEC is made with.

    It holds hashes of the spec's parts, characters, templates, schemas and tokenizers, the models with what they can
    do, and versions of packages; never a secret. Commit it: `charrun SPEC --locked` refuses to run with anything else.
    A hosted engine is asked for what costs nothing; for models on this machine nothing is started.
    """
    from charrun.pipeline.choice import choose

    name = output or _beside(spec)
    loaded = load(spec, sets, plugins=plugins, trust=trust)
    choice = choose(loaded.spec, loaded.registry)
    if check:
        _check(name, _remedy(spec, sets, output), loaded, choice)
        click.echo(f"{name} is up to date")
    else:
        _write(name, loaded, choice)


def require_locked(spec: str, sets: Sequence[str], loaded: Loaded, choice: Choice) -> None:
    """Compare what a run would be made with with the lock beside its spec.

    Raises:
        SpecError: There is no lock, it cannot be read, or something differs; all differences at once.
        UsageProblem: It is a shipped spec.
        EnvironmentProblem: A hosted engine can't be asked.
    """
    _check(_beside(spec), _remedy(spec, sets, ""), loaded, choice)


def _beside(spec: str) -> str:
    """The lock file's name.

    Raises:
        UsageProblem: It would lie among charrun's own files.
    """
    if spec.startswith(_BUILTIN):
        hint = f"name a place, and compare with --check: charrun lock {spec} -o {spec.removeprefix(_BUILTIN)}.yaml.lock"
        raise UsageProblem(f"{spec} ships with charrun, and has no lock beside it", hint)
    return f"{spec}.lock"


def _remedy(spec: str, sets: Sequence[str], output: str) -> str:
    options = [word for text in sets for word in ("--set", text)]
    return shlex.join(["charrun", "lock", spec, *options, *(["-o", output] if output else [])])


def _write(name: str, loaded: Loaded, choice: Choice) -> None:
    from charrun.pipeline.lockfile import lock_text, whole_lock
    from charrun.report.drift import drift, read_lock, told
    from charrun.store.files import write_atomic

    path = Path(name)
    with _surroundings(loaded, choice) as shared:
        now = asyncio.run(whole_lock(shared))
    text = lock_text(now)
    try:
        before: dict[str, Any] | None = read_lock(name, "")
    except SpecError:
        before = None
    existed = path.exists()
    if before is not None and path.read_text(encoding="utf-8") == text:
        click.echo(f"{name} is up to date")
        return
    write_atomic(path, text)
    if before is None:
        click.echo(f"wrote {name}" + (", in place of one that could not be read" if existed else ""))
        return
    found = drift(before, now)
    click.echo(f"wrote {name}" + (", in which changed:" if found else ""))
    for change in found:
        click.echo(f"  {told(change)}")


def _check(name: str, remedy: str, loaded: Loaded, choice: Choice) -> None:
    from charrun.report.drift import drift_error, read_lock

    locked = read_lock(name, remedy)
    with _surroundings(loaded, choice) as shared:
        found = _differences(shared, locked)
    if found:
        raise drift_error(name, found, remedy)


def _differences(shared: Shared, locked: Mapping[str, Any]) -> list[Change]:
    """What differs. The engine is asked last, and not where other models are meant or the same ones elsewhere."""
    from charrun.pipeline.lockfile import lock_entries, needs_engine, whole_lock
    from charrun.report.drift import drift, unasked

    found = drift(locked, lock_entries(shared, locked, strict=True))
    if not needs_engine(shared):
        return found
    if elsewhere := unasked(found):
        return elsewhere
    try:
        return drift(locked, asyncio.run(whole_lock(shared)))
    except CharrunError:
        if found:
            return found
        raise


@contextmanager
def _surroundings(loaded: Loaded, choice: Choice) -> Iterator[Shared]:
    """A spec as a run has it, but nowhere: an engine that has to be opened finds a folder that is gone afterwards.

    Raises:
        SpecError: A stage cannot do what the spec wants of it.
    """
    from charrun.pipeline.checks import check_cells
    from charrun.pipeline.run import plan_cells

    with tempfile.TemporaryDirectory(prefix="charrun-") as place:
        cells = plan_cells(choice, loaded.registry, Path(place) / "lock")
        check_cells(cells)
        yield cells[0].shared
