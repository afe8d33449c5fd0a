"""`charrun cost`: what a run has used and what that costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrun.commands.options import json_option, runs_dir_option
from charrun.commands.tables import paragraph
from charrun.commands.words import run_names
from charrun.errors import UsageProblem
from charrun.report.columns import figures, screen_width, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from charrun.service.engine import Billed
    from charrun.store.ledger import Totals
    from charrun.store.runs import Run

SECTIONS = ("stage", "cell", "model")


@click.command()
@click.argument("run", default="", shell_complete=run_names)
@click.option("--by", type=click.Choice(SECTIONS), default="stage", show_default=True, help="What the rows are.")
@click.option("--csv", "as_csv", is_flag=True, help="Print exact counts by cell, stage and model as CSV.")
@click.option("--reconcile", is_flag=True, help="Compare with what the engine has billed, as far as it may be seen.")
@click.option("--settle", is_flag=True, help="With --reconcile: enter what the bill says of requests without an end.")
@runs_dir_option
@json_option
def cost(run: str, by: str, as_csv: bool, reconcile: bool, settle: bool, runs_dir: Path, as_json: bool) -> None:
    """Show what RUN has used, and what that costs.

    Every request of the run counts, those before a kill included; what it found in the store cost it nothing. RUN is a
    name and number such as pirate-mini/2, a name for its latest run, or a run's folder; without it the latest run of
    all is shown. Prices are those that the run was begun or continued with last.

    A request that was in flight when its process was killed has no end, and counts at the most that it can have used.
    --reconcile --settle asks the engine's bill what it was: once the bill is complete, hours after the run.
    """
    from charrun.pipeline.storage import stored_by
    from charrun.report.cost import (
        cost_csv,
        cost_document,
        cost_lines,
        cost_records,
        cost_rows,
        probe_lines,
        probe_records,
    )
    from charrun.report.text import safe
    from charrun.spec.prices import told_rates
    from charrun.store.ledger import LEDGER, read_ledger
    from charrun.store.probes import probes_of
    from charrun.store.runs import find_run

    if as_csv + as_json + reconcile > 1:
        raise UsageProblem("--csv, --json and --reconcile exclude each other")
    if settle and not reconcile:
        raise UsageProblem("--settle goes with --reconcile")
    found = find_run(runs_dir, run)
    totals, probes = read_ledger(found.folder / LEDGER), probes_of(found.folder)
    rates = told_rates(found.rates)
    limit = found.budget
    storage = stored_by(found)
    for line in totals.damaged:
        click.echo(f"warning: {found.folder / LEDGER}:{line} is damaged and is not counted", err=True)
    if reconcile:
        _reconcile(found, totals, settle)
    elif as_json:
        click.echo(
            json.dumps(cost_document(found.id, totals, rates, limit, probes, storage), indent=2, ensure_ascii=False)
        )
    elif as_csv:
        click.echo(cost_csv([*cost_records(totals, rates), *probe_records(probes, rates)]), nl=False)
    elif not totals.used and not totals.open:
        click.echo(f"{found.id} has asked for nothing: all of it was found, or it has not begun")
        for told in probe_lines(probes, rates):
            click.echo(paragraph(told))
    else:
        click.echo(f"{found.id} on {safe(found.engine)}; tokens\n")
        click.echo("\n".join(figures(cost_rows(totals, rates, by), screen_width())))
        if lines := cost_lines(totals, rates, limit, probes, storage):
            click.echo("\n" + "\n".join(paragraph(line) for line in lines))


def _reconcile(run: Run, totals: Totals, settle: bool) -> None:
    from charrun.commands.loading import open_registry
    from charrun.pipeline.bill import billed_of
    from charrun.report.reconciled import reconciled_lines, reconciled_rows
    from charrun.store.ledger import LEDGER, read_ledger

    bill = billed_of(run, totals, open_registry(plugins=True))
    if settle and totals.open:
        click.echo(_settle(run, totals, bill) + "\n")
        totals = read_ledger(run.folder / LEDGER)
    click.echo(f"{run.id} on {run.engine}; tokens\n")
    click.echo("\n".join(table(reconciled_rows(totals, bill), "<<>>><", screen_width())))
    click.echo("\n" + "\n".join(paragraph(line) for line in reconciled_lines(bill)))


def _settle(run: Run, totals: Totals, bill: Sequence[Billed]) -> str:
    """Enter what the bill says of requests without an end; returns what was entered."""
    from charrun.pipeline.bill import ends_by_bill
    from charrun.pipeline.storage import stored_by
    from charrun.report.run_report import with_cost
    from charrun.spec.prices import told_rates
    from charrun.store.files import write_atomic
    from charrun.store.ledger import LEDGER, Ledger, read_ledger
    from charrun.store.probes import probes_of
    from charrun.store.replay import RUNNING

    if run.status == RUNNING:
        raise UsageProblem(f"{run.id} goes on, and has requests in flight", "settle it once it has ended")
    ends = ends_by_bill(totals, bill)
    if ends:
        ledger = Ledger(run.folder / LEDGER)
        try:
            for number, used in ends.items():
                if number in ledger.totals.open:
                    ledger.settle(number, used)
        finally:
            ledger.close()
        report = run.folder / "report.md"
        if report.exists():
            now = read_ledger(run.folder / LEDGER), told_rates(run.rates), run.budget, probes_of(run.folder)
            write_atomic(report, with_cost(report.read_text("utf-8"), *now, stored_by(run)))
    tokens = sum(used.tokens for used in ends.values())
    left = len(totals.open) - len(ends)
    told = f"Settled: {len(ends):,} requests without an end, {tokens:,} tokens by the bill"
    return told + (f"; of {left:,} others the bill can't be right, or is not complete" if left else "")
