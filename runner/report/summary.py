"""What a person sees before and after a run: models and counts, then stages, emergence, samples and paths."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.table import Table

from charrun.pipeline.cell import Cell
from charrun.pipeline.choice import Choice
from charrun.pipeline.reporter import CellResult, RunResult
from charrun.report.text import counted, duration, rate, safe

DEMO_NOTE = "Demo models show the pipeline at work, not a model's quality."


def print_start(console: Console, choice: Choice) -> None:
    """Where the run happens, and with which models."""
    spec = choice.spec
    lines = [
        f"{spec.name}: {', '.join(c.id for c in spec.characters)} at {', '.join(s.name for s in spec.scales)} scale"
    ]
    if choice.stand_ins:
        lines.append("No Tinker credentials were found: stand-ins run on the local engine of this machine.")
        lines += [f"  {used} stands in for {named}" for named, used in choice.stand_ins.items()]
        lines.append(f"  {DEMO_NOTE}")
    else:
        lines.append(f"Engine: {choice.engine.name}")
        lines += [f"  {role}: {ref.name}" for entry in spec.models for role, ref in entry.roles.items()]
    _print(console, lines)


def print_plan(console: Console, choice: Choice, cells: Iterable[Cell]) -> None:
    """Models, row counts and budget, for the question before a hosted run."""
    from charrun.pipeline.context import StageContext

    for cell in cells:
        table = Table("stage", "rows", "requests", title=cell.name, title_justify="left", box=None, pad_edge=False)
        for stage in cell.stages:
            estimate = stage.stage.estimate(StageContext(stage))
            table.add_row(stage.item.id, f"{estimate.rows:,}", f"{estimate.requests:,}")
        console.print(table)
    budget = choice.spec.budget_usd
    limit = "no budget" if budget is None else f"a budget of ${budget:.2f}, which is not enforced yet"
    _print(console, [f"The spec sets {limit}. Every request is paid for."])


def print_summary(console: Console, result: RunResult) -> None:
    """Everything that a finished run has to show."""
    for cell in result.cells:
        console.print()
        console.print(_stage_table(cell))
        for evaluation in cell.rows.get("evaluation", []):
            _print(console, ["", *_emergence(evaluation)])
        _print(console, ["", *_paths(result, cell)])
    if result.stand_ins:
        _print(
            console,
            ["", "This run used " + ", ".join(f"{u} for {n}" for n, u in result.stand_ins.items()) + "."],
        )
        _print(console, [DEMO_NOTE])


def report_markdown(result: RunResult) -> str:
    """The summary as `report.md` in the run's folder."""
    console = Console(record=True, width=110, file=io.StringIO(), color_system=None)
    print_summary(console, result)
    return f"# {result.folder.parent.name} {result.folder.name}\n\n```\n{console.export_text().strip()}\n```\n"


def _stage_table(cell: CellResult) -> Table:
    table = Table(title=cell.name, title_justify="left", box=None, pad_edge=False)
    for heading in ("stage", "rows"):
        table.add_column(heading)
    for heading in ("tokens", "tokens/s", "seconds"):
        table.add_column(heading, justify="right")
    for stage in cell.stages:
        table.add_row(
            stage.id + (" (cached)" if stage.cached else ""),
            counted(dict(stage.rows)),
            f"{stage.usage.tokens:,}",
            rate(stage.usage.tokens, stage.seconds),
            f"{stage.seconds:.1f}",
        )
    total, seconds = sum(s.usage.tokens for s in cell.stages), sum(s.seconds for s in cell.stages)
    table.add_row("all", "", f"{total:,}", rate(total, seconds), f"{seconds:.1f}", style="bold")
    return table


def _emergence(row: dict[str, Any]) -> list[str]:
    head = f"In character ({row['scored_as']}) without a system prompt, scorer's AUC {row['auc']:.3f}:"
    if not row["tells"]:
        return [
            head,
            f"  below {row['lowest_auc']}: this scorer cannot tell this character, so no rate is given",
        ]
    lines = [head]
    for r in row["rates"]:
        share = r["in_character"] / r["n"]
        interval = f"95% interval {r['low']:.1%} to {r['high']:.1%}"
        lines.append(f"  {_model_name(r['model']):<12} {share:6.1%}  {r['in_character']} of {r['n']}, {interval}")
    for sample in row["samples"]:
        lines += ["", f"  > {safe(sample['prompt'])}"]
        lines += [f"  before: {safe(sample['before'])}", f"  after:  {safe(sample['after'])}"]
    return lines


def _model_name(model: str) -> str:
    return model if model == "base" else f"after {model}"


def _paths(result: RunResult, cell: CellResult) -> list[str]:
    lines = []
    for row in cell.rows.get("checkpoint", [])[-1:]:
        lines.append(f"Final checkpoint: {row['state']}")
        lines.append(f"  to sample from: {row['sampler']}")
    for row in cell.rows.get("adapter", [])[-1:]:
        lines.append(f"PEFT adapter:     {result.folder.parent.parent / row['folder']}")
    lines.append(f"Run folder:       {result.folder}")
    lines.append(f"Stage time:       {duration(sum(s.seconds for s in cell.stages))}")
    return lines


def _print(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
