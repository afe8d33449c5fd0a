"""What a run will cost, looked at before anything is paid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from charrun.errors import BudgetReached, EnvironmentProblem, UsageProblem

if TYPE_CHECKING:
    from charrun.commands.loading import Loaded
    from charrun.pipeline.cell import Cell
    from charrun.pipeline.choice import Choice
    from charrun.pipeline.selection import Selection
    from charrun.report.plan import Money
    from charrun.store.run import RunFolder


def money_of(
    loaded: Loaded,
    choice: Choice,
    runs_dir: Path,
    cells: Sequence[Cell],
    budget: float | None,
    folder: RunFolder | None = None,
    probe: int = 0,
) -> Money | None:
    """What a run of these cells will cost; None where nothing is paid for.

    Args:
        loaded: The spec with its plugins.
        choice: Where it runs.
        runs_dir: Where its rows are kept.
        cells: What of it is run.
        budget: US dollars of the command line; None for those of the spec.
        folder: The run that is continued; by default the one of this resolved spec, if there is one.
        probe: So many answers of each stage are asked for before, and paid.

    Raises:
        EnvironmentProblem: There is a budget, and a price is not known; or the engine can't be reached for a probe.
        BudgetReached: The budget does not allow for the probe.
        StageFailed: The engine refuses it.
        UsageProblem: There is nothing to probe for.
    """
    from charrun.pipeline.foresight import foresee
    from charrun.pipeline.run import frozen_spec
    from charrun.report.cost import sums
    from charrun.report.plan import Money, money_lines
    from charrun.spec.prices import picodollars
    from charrun.store.ledger import LEDGER, read_ledger
    from charrun.store.probes import take_probes
    from charrun.store.run import RunFolder

    if probe and not choice.engine.hosted:
        raise UsageProblem(
            f"nothing is paid for on the engine {choice.engine.name}", "leave out --probe, or --set engine=tinker"
        )
    if not choice.paid:
        return None
    limit = choice.spec.budget_usd if budget is None else budget
    folder = folder or RunFolder.find(runs_dir, choice.spec.name, frozen_spec(choice))
    by_stage: dict[str, int] = {}
    held = 0
    if folder and cells:
        paid = sums(read_ledger(folder.folder / LEDGER), cells[0].shared.all_rates(), lambda place: place.stage)
        by_stage = {stage: each.cost.high + each.doubt_cost.high for stage, each in paid.items()}
        held = sum(each.doubt_cost.high for each in paid.values())
    spent = sum(by_stage.values()) + _paid_by_probes(choice, runs_dir, cells, folder)
    if probe:
        left = None if limit is None else picodollars(limit) - spent
        try:
            _probe(loaded, choice, runs_dir.absolute(), cells, left, probe)
        finally:  # also of one that failed in the middle
            if folder:
                take_probes(folder.folder)
        spent = sum(by_stage.values()) + _paid_by_probes(choice, runs_dir, cells, folder)
    foresight = foresee(choice, loaded.registry, runs_dir.absolute(), cells)
    money = Money(foresight, limit, spent, choice.spec.stage_budgets, by_stage, held)
    if money.limit is not None and foresight.cost() is None:
        raise EnvironmentProblem(money_lines(money)[0], "a budget can only be kept where all prices are known")
    return money


def finishing(loaded: Loaded, choice: Choice, runs_dir: Path, selection: Selection, folder: RunFolder | None) -> str:
    """What the rest of a run that has reached its budget would cost, as the end of a hint; empty if not known."""
    from charrun.pipeline.run import plan_cells
    from charrun.spec.prices import usd

    click.echo("reckoning what finishing would cost; Ctrl-C leaves it out", err=True)
    try:
        cells = plan_cells(choice, loaded.registry, runs_dir.absolute(), selection)
        money = money_of(loaded, choice, runs_dir, cells, None, folder)
    except (Exception, KeyboardInterrupt):  # why the run has stopped is what must be told
        return ""
    cost = None if money is None else money.foresight.cost()
    if money is None or cost is None or money.foresight.gaps:
        return ""
    return f"; finishing would cost ${usd(cost.low)} to ${usd(cost.high)} more"


def _paid_by_probes(choice: Choice, runs_dir: Path, cells: Sequence[Cell], folder: RunFolder | None) -> int:
    """Picodollars of probes that count against the budget of a run, or of one that is still to begin; open ones too."""
    from charrun.report.cost import total
    from charrun.store.probes import free_probes, probes_of

    if not cells:
        return 0
    totals = probes_of(folder.folder) if folder else free_probes(runs_dir, choice.spec.name)
    paid = total(totals, cells[0].shared.all_rates())
    return paid.cost.high + paid.doubt_cost.high


def _probe(loaded: Loaded, choice: Choice, runs_dir: Path, cells: Sequence[Cell], left: int | None, rows: int) -> None:
    """Ask for some answers of each stage, after saying what that can cost, and say what it has cost.

    `left` is what is left of the budget, in picodollars; None for no budget.
    """
    from charrun.pipeline.probe import probe
    from charrun.pipeline.probe_requests import most, to_ask
    from charrun.service.disk_checks import require_room
    from charrun.spec.prices import usd

    require_room(runs_dir)
    wanted = to_ask(choice, loaded.registry, runs_dir, cells, rows)
    if not wanted:
        click.echo(f"Nothing to probe: {rows} answers of each stage are known, or no stage asks for any.\n", err=True)
        return
    shared = cells[0].shared
    dearest = most(wanted, shared.all_rates())
    if dearest is None:
        cost = "what that costs is not known"
        if left is not None:
            raise EnvironmentProblem(f"{cost}, and there is a budget", "say it under `prices` in the spec")
    else:
        cost = f"at most ${usd(dearest.high)}"
        if left is not None and dearest.high > left:
            raise BudgetReached(
                f"a probe of {len(wanted.answers)} answers may cost ${usd(dearest.high)}, and ${usd(max(0, left))} are "
                "left of the budget: nothing was asked for",
                "ask for fewer, or raise --budget",
            )
    click.echo(f"Probing: {len(wanted.answers)} answers, {cost}", err=True)
    done = probe(choice, shared, wanted)
    paid = "" if done.cost is None else f", ${usd(done.cost.high)}"
    click.echo(
        f"Probed: {done.answers} answers, {done.tokens:,} tokens{paid}; {done.kept} of them are the run's own rows\n",
        err=True,
    )


def require_enough(money: Money | None, partial: bool) -> None:
    """The budgets allow for what the run, and each stage that has one, will cost at the least.

    Args:
        money: What it will cost; None where nothing is paid for or asked.
        partial: Whether it may end in the middle.

    Raises:
        BudgetReached: One of them does not.
    """
    from charrun.report.cost import whole_usd
    from charrun.report.text import safe
    from charrun.spec.prices import usd

    if money is None or partial or not (short := [limit for limit in money.limits() if limit.is_short]):
        return
    told = []
    for limit in short:
        spent = f" beside ${usd(limit.spent)} that are spent," if limit.spent else ""
        whose = safe(limit.stage) or "the run"
        cost = f"{whose} will cost ${usd(limit.cost.low)} to ${usd(limit.cost.high)},{spent}"
        told.append(f"{cost} and {'the cap of that stage' if limit.stage else 'its budget'} is ${whole_usd(limit.usd)}")
    raised = " and ".join(limit.raised for limit in short)
    freed = "; `charrun cost --reconcile --settle` frees what of that is only held" if money.held else ""
    raise BudgetReached(
        f"{'; '.join(told)}: nothing was begun",
        f"raise it, to the high end with {raised}, or add --partial to begin anyway and spend no more than that{freed}",
    )
