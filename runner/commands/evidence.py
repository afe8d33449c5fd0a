"""`charrun evidence`: what a run's arms and seeds show."""

from __future__ import annotations

import json
from pathlib import Path

import click

from charrun.commands.options import json_option, runs_dir_option
from charrun.commands.words import run_names
from charrun.errors import UsageProblem


@click.command()
@click.argument("run", required=False, default="", shell_complete=run_names)
@click.option(
    "--against", metavar="ARM", default="", help="The arm that others are compared with; the first if left out."
)
@click.option(
    "--measurement", "measured", metavar="NAME", multiple=True, help="Show this other measurement; may be repeated."
)
@runs_dir_option
@json_option
def evidence(run: str, against: str, measured: tuple[str, ...], runs_dir: Path, as_json: bool) -> None:
    """Show the rates of a run's arms and seeds, and how they differ.

    RUN is a name and number such as pirate-mini/2, a name for its latest run, or a run's folder; the latest of all if
    left out. Each rate has its n and its interval; each difference is over the prompts that both models answered.
    """
    from charrun.report.columns import screen_width
    from charrun.report.evidence import evidence_of
    from charrun.report.evidence_lines import evidence_lines
    from charrun.store.cells import coordinates
    from charrun.store.runs import find_run

    found = find_run(runs_dir, run)
    arms = {place.arm for place in coordinates(found.spec)}
    if against and against not in arms:
        raise UsageProblem(
            f"--against {against}: {found.id} has no such arm", f"its arms: {', '.join(sorted(arms)) or '-'}"
        )
    told = evidence_of(found, against)
    names = {table.name for group in told.groups for table in group.measurements}
    for name in measured:
        if name not in names:
            raise UsageProblem(
                f"--measurement {name}: {found.id} has none of that name", f"it has: {', '.join(sorted(names)) or '-'}"
            )
    if as_json:
        click.echo(json.dumps(told.to_dict(), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(evidence_lines(told, screen_width(), measured)))
