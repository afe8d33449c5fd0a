"""`report.md`: a run in the form of a technical report, filled in by the run itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from charrun.pipeline.choice import Choice
from charrun.pipeline.results import CellResult, RunResult, StageResult
from charrun.report.cost import cost_lines, cost_rows
from charrun.report.measurements import measurement_lines
from charrun.report.outcome import evaluation_lines, weight_lines
from charrun.report.profiles import profile_lines
from charrun.report.text import PART, counted, duration, safe
from charrun.report.throughput import HEADING, throughput
from charrun.spec import ModelRef
from charrun.spec.prices import Rates
from charrun.store.ledger import Totals


def run_report(
    result: RunResult,
    choice: Choice,
    totals: Totals,
    rates: Mapping[str, Rates | None],
    limit: float | None,
    checks: Sequence[Mapping[str, Any]],
    is_part: bool = False,
) -> str:
    """The report as Markdown.

    Args:
        result: What was made.
        choice: The spec and where it ran.
        totals: The run's ledger.
        rates: What tokens cost, by base model.
        limit: US dollars that the run might cost.
        checks: Invariants that were looked at, as the journal tells them.
        is_part: Whether a part of the spec was run.
    """
    cells = [cell.name for cell in result.cells]
    parts = [
        f"# {safe(result.folder.parent.name)} {result.folder.name}{PART if is_part else ''}",
        "## Configuration",
        *_configuration(result, choice, cells),
        "## Scale",
        _table(
            ("scale", "pairs", "samples per prompt", "reflections", "interactions x turns"),
            [
                (s.name, f"{s.pairs:,}", s.samples_per_prompt, f"{s.reflections:,}", f"{s.interactions:,} x {s.turns}")
                for s in choice.spec.scales
            ],
        ),
        "## Generation and training",
        *(part for cell in result.cells for part in (f"### {safe(cell.name)}", _stages(cell))),
        "## Throughput",
        *_throughput(result, totals),
        "## Cost",
        *_cost(totals, rates, limit),
        "## Observations",
        *(part for cell in result.cells for part in _observations(result, cell)),
        *_profiles(result),
        *_checks(checks),
    ]
    return "\n\n".join(parts) + "\n"


def _configuration(result: RunResult, choice: Choice, cells: Sequence[str]) -> Iterable[str]:
    roles: dict[str, list[str]] = {}
    for entry in choice.spec.models:
        for role, ref in entry.roles.items():
            model = _model(ref, result.stand_ins)
            if model not in roles.setdefault(role, []):
                roles[role].append(model)
    yield _table(("role", "model"), [(role, "<br>".join(models)) for role, models in roles.items()])
    about = [f"engine: {safe(result.engine)}", f"seeds: {', '.join(map(str, choice.spec.seeds))}"]
    yield "\n".join(f"- {each}" for each in [*about, f"cells: {', '.join(map(safe, cells))}"])
    if result.stand_ins:
        yield "Demo models stood in for the named ones: they show the pipeline at work, not a model's quality."
    options = [
        (item.id, ", ".join(f"{name} {value}" for name, value in item.options.items())) for item in _items(choice)
    ]
    yield _table(("stage", "options"), [(id, safe(told)) for id, told in options])


def _items(choice: Choice) -> Iterable[Any]:
    return (item for item in choice.spec.stages if item.options)


def _model(ref: ModelRef, stand_ins: Mapping[str, str]) -> str:
    named = [named for named, used in stand_ins.items() if used == ref.name]
    return f"{safe(ref.name)}{f' for {safe(named[0])}' if named else ''}"


def _stages(cell: CellResult) -> str:
    def row(stage: StageResult) -> tuple[str, ...]:
        return (
            safe(stage.id),
            counted(dict(stage.rows)),
            f"{stage.usage.tokens:,}",
            f"{stage.usage.steps:,}" if stage.usage.steps else "",
            duration(stage.seconds),
        )

    return _table(("stage", "rows", "tokens", "steps", "time"), map(row, cell.stages))


def _throughput(result: RunResult, totals: Totals) -> Iterable[str]:
    """By stage over all cells: how fast, how many at once, how long a request took."""
    seconds: dict[str, float] = {}
    for done in (stage for cell in result.cells for stage in cell.stages):
        seconds[done.id] = seconds.get(done.id, 0.0) + done.seconds
    found = throughput(totals, seconds)
    if not found:
        yield "Nothing was asked for: all of it was found."
        return
    yield _table(HEADING, [each.row() for each in found])
    yield (
        "In flight: requests at once in the mean. A request's time runs from when it was sent to its answer; before "
        "that it waited for a place or for the budget."
    )


def _cost(totals: Totals, rates: Mapping[str, Rates | None], limit: float | None) -> Iterable[str]:
    if not totals.used:
        yield "This run has paid for nothing."
        return
    for section in ("stage", "model"):
        heading, *rows = cost_rows(totals, rates, section)
        yield _table(heading, rows)
    yield "\n".join(f"- {line}" for line in cost_lines(totals, rates, limit))


def _observations(result: RunResult, cell: CellResult) -> Iterable[str]:
    yield f"### {safe(cell.name)}"
    lines = [line for row in cell.rows.get("evaluation", []) for line in [*evaluation_lines(row), ""]]
    lines += [line for row in cell.measurements for line in [*measurement_lines(row), ""]]
    home = result.folder.parent.parent
    lines += weight_lines(cell.rows.get("checkpoint", []), cell.rows.get("adapter", []), home)
    yield "```\n" + "\n".join(lines).strip() + "\n```"


def _profiles(result: RunResult) -> Iterable[str]:
    lines = profile_lines((cell.name, cell.measurements) for cell in result.cells)
    if lines:
        yield "### Between cells"
        yield "```\n" + "\n".join(lines) + "\n```"


def _checks(checks: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    if checks:
        yield "### Checks of the trainings"
        rows = [
            (
                safe(str(check.get("cell", ""))),
                safe(str(check.get("stage", ""))),
                safe(str(check.get("name", ""))),
                f"{float(check.get('value', 0)):.3g}",
                f"{float(check.get('limit', 0)):.3g}",
                "holds" if check.get("holds") else "does not hold",
            )
            for check in checks
        ]
        yield _table(("cell", "stage", "what", "value", "limit", ""), rows)


def _table(heading: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
