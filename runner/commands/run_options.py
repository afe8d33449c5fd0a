"""What a run may be told: which part of a spec, how it is done, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from charrun.commands.loading import Loaded, load
from charrun.commands.options import budget_option
from charrun.commands.run_shown import Events, Person
from charrun.commands.words import character_ids, model_ids, scale_names, stage_ids
from charrun.errors import UsageProblem
from charrun.spec.words import suggest

if TYPE_CHECKING:
    from charrun.pipeline.selection import Selection

PLAIN_VARIABLE = "CHARRUN_PLAIN"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def selection_options(command: _Command) -> _Command:
    """`--character --model --scale --after --from --until --only --force`."""
    options = [
        click.option(
            "--character",
            "characters",
            multiple=True,
            metavar="ID",
            shell_complete=character_ids,
            help="Only this character's cells.",
        ),
        click.option(
            "--model",
            "models",
            multiple=True,
            metavar="ID",
            shell_complete=model_ids,
            help="Only the cells of this models entry.",
        ),
        click.option(
            "--scale",
            "scales",
            multiple=True,
            metavar="NAME",
            shell_complete=scale_names,
            help="Only this scale, listed or not.",
        ),
        click.option("--arm", "arms", multiple=True, metavar="NAME", help="Only this arm's cells."),
        click.option(
            "--after",
            metavar="SCALE",
            default="",
            shell_complete=scale_names,
            help="Only cells whose evaluation passed at SCALE.",
        ),
        click.option(
            "--from",
            "first",
            metavar="ID",
            default="",
            shell_complete=stage_ids,
            help="Begin with this stage; earlier ones are done.",
        ),
        click.option(
            "--until", "last", metavar="ID", default="", shell_complete=stage_ids, help="End with this stage."
        ),
        click.option(
            "--only", metavar="ID", default="", shell_complete=stage_ids, help="This stage alone: --from ID --until ID."
        ),
        click.option(
            "--force",
            "forced",
            multiple=True,
            metavar="ID",
            shell_complete=stage_ids,
            help="Make this stage anew though it is done.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Way:
    """How a command was told to run.

    Attributes:
        jobs: Cells that run at once.
        wait: Whether to wait for what another process writes.
        patience: Minutes without any answer of the engine, after which it counts as gone.
        budget: US dollars that the run may cost; None for what the spec says.
        partial: Whether to begin although the budget will not do.
        yes: Whether not to ask before a run on a hosted engine.
        show: Who is told what happens.
    """

    jobs: int
    wait: bool
    patience: float
    budget: float | None
    partial: bool
    yes: bool
    show: Events | Person

    @classmethod
    def of(cls, as_json: bool, plain: bool, verbose: bool, quiet: bool, **how: Any) -> Way:
        """What the options say.

        Raises:
            UsageError: Options that exclude each other.
        """
        if verbose and quiet:
            raise click.UsageError("--verbose and --quiet exclude each other")
        return cls(show=Events(verbose) if as_json else Person(plain, 0 if quiet else 2 if verbose else 1), **how)


def way_options(command: Callable[..., None]) -> Callable[..., None]:
    """How a run is done and told, as the parameter `way`.

    `--jobs --wait --patience --budget --partial --yes --json --plain --verbose --quiet`.
    """
    options = [
        click.option(
            "-j", "--jobs", type=click.IntRange(1), default=4, show_default=True, help="Cells that run at once."
        ),
        click.option(
            "--wait", is_flag=True, help="Wait for what another process writes, instead of ending with exit code 7."
        ),
        click.option(
            "--patience",
            type=click.FloatRange(0, min_open=True),
            default=120,
            show_default=True,
            metavar="MINUTES",
            help="End, resumable, when the engine has answered nothing for so long.",
        ),
        budget_option,
        click.option(
            "--partial", is_flag=True, help="Begin also where the budget will not do, and end when it is spent."
        ),
        click.option("-y", "--yes", is_flag=True, help="Do not ask before a run on a hosted engine."),
        click.option(
            "--json", "as_json", is_flag=True, help="Events as JSON, one a line, instead of what a person reads."
        ),
        click.option("--plain", is_flag=True, envvar=PLAIN_VARIABLE, help="Lines instead of bars and tables."),
        click.option("-v", "--verbose", is_flag=True, help="Tell every optimiser step too."),
        click.option("-q", "--quiet", is_flag=True, help="Tell only what fails, and the results."),
    ]
    names = ("jobs", "wait", "patience", "budget", "partial", "yes", "as_json", "plain", "verbose", "quiet")

    @wraps(command)
    def told(**given: Any) -> None:
        way = Way.of(**{name: given.pop(name) for name in names})
        command(way=way, **given)

    found: Callable[..., None] = told
    for option in reversed(options):
        found = option(found)
    return found


def selection_of(
    characters: Sequence[str],
    models: Sequence[str],
    scales: Sequence[str],
    arms: Sequence[str],
    after: str,
    first: str,
    last: str,
    only: str,
    forced: Sequence[str],
) -> Selection:
    """What `selection_options` gave.

    Raises:
        UsageError: `--only` beside `--from` or `--until`.
    """
    from charrun.pipeline.selection import Selection

    if only and (first or last):
        raise click.UsageError("--only cannot be used with --from or --until")
    return Selection(
        tuple(characters),
        tuple(models),
        tuple(scales),
        only or first,
        only or last,
        tuple(forced),
        after,
        arms=tuple(arms),
    )


def load_selected(path: str, sets: Sequence[str], selection: Selection, *, plugins: bool, trust: bool) -> Loaded:
    """The spec; a scale that the options name and the spec does not list takes the place of those that it lists.

    Raises:
        SpecError: With every problem.
        PluginError: Two plugins register the same name, or a stage file may not run.
        UsageProblem: There is no such scale.
    """
    loaded = load(path, sets, plugins=plugins, trust=trust)
    listed = {scale.name: scale for scale in loaded.spec.scales}
    if set(selection.scales) <= set(listed):
        return loaded
    known = {**loaded.registry.scales, **listed}
    for name in selection.scales:
        if name not in known:
            raise UsageProblem(f"--scale {name}: there is no such scale", suggest(name, known, "scales"))
    scales = tuple(known[name] for name in dict.fromkeys(selection.scales))
    # The spec's own scales stay known by name: --after may name one.
    return Loaded(replace(loaded.spec, scales=scales), replace(loaded.registry, scales=known))
