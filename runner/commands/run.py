"""`charrun run`: run a spec, or continue its run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from charrun.commands.loading import load
from charrun.errors import EnvironmentProblem


@click.command()
@click.argument("spec", type=click.Path(path_type=str))
@click.option(
    "--runs-dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where runs and their rows are kept.",
)
@click.option("--yes", is_flag=True, help="Do not ask before a run on a hosted engine.")
def run(spec: str, runs_dir: Path, yes: bool) -> None:
    """Run SPEC, or continue its run.

    SPEC is a file, or builtin:NAME for a spec that ships with charrun. Without Tinker credentials a spec's stand-ins
    run on this machine.
    """
    from charrun.pipeline.choice import choose
    from charrun.pipeline.run import check_cells, plan_cells, run_choice
    from charrun.report.console import ConsoleReporter
    from charrun.report.summary import print_plan, print_start, print_summary, report_markdown
    from charrun.store.files import write_atomic

    loaded = load(spec)
    choice = choose(loaded.spec, loaded.registry)
    cells = plan_cells(choice, loaded.registry, runs_dir, Silent())
    check_cells(cells)
    console = _console()
    print_start(console, choice)
    if choice.engine.hosted:
        print_plan(console, choice, cells)
        _confirm(yes)
    with ConsoleReporter(console) as reporter:
        result = run_choice(choice, loaded.registry, runs_dir, reporter)
    write_atomic(result.folder / "report.md", report_markdown(result))
    print_summary(console, result)


def _confirm(yes: bool) -> None:
    """Ask once.

    Raises:
        EnvironmentProblem: There is no terminal to ask at, and no --yes.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise EnvironmentProblem("a run on a hosted engine must be confirmed, and there is no terminal", "add --yes")
    click.confirm("Run it?", abort=True)


class Silent:
    """A reporter that shows nothing."""

    def message(self, text: str) -> None: ...

    def stage_started(self, cell: str, id: str, summary: str) -> None: ...

    def progress(self, cell: str, id: str, done: int, total: int, usage: Any) -> None: ...

    def stage_finished(self, cell: str, result: Any) -> None: ...


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)
