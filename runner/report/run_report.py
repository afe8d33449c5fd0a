"""`report.md`: a run in the form of a technical report, filled in by the run itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from charrun.pipeline.choice import Choice
from charrun.pipeline.results import CellResult, RunResult, StageResult
from charrun.pipeline.run import SUMMARY_ROWS
from charrun.pipeline.storage import Storage, stored_by
from charrun.report.cost import cost_lines, cost_rows, probe_lines
from charrun.report.measurements import measurement_lines
from charrun.report.outcome import evaluation_lines, weight_lines
from charrun.report.profiles import profile_lines
from charrun.report.text import PART, counted, duration, safe
from charrun.report.throughput import HEADING, seconds_of, throughput
from charrun.spec import ModelRef
from charrun.spec.prices import Rates
from charrun.store.cells import CellView
from charrun.store.ledger import Totals
from charrun.store.probes import probes_of
from charrun.store.replay import CACHED
from charrun.store.runs import Run, read_run
from charrun.usage import Usage

NOT_FINISHED = "This run is not finished"
"""How the first paragraph begins of the report of a run that has stopped before its end."""
_COST = re.compile(r"(?ms)^## Cost\n.*?(?=^## )")


def run_report(
    result: RunResult,
    choice: Choice,
    totals: Totals,
    rates: Mapping[str, Rates | None],
    limit: float | None,
    checks: Sequence[Mapping[str, Any]],
    defaults: Mapping[str, Mapping[str, Any]],
    is_part: bool = False,
    stopped: str = "",
) -> str:
    """The report as Markdown.

    Args:
        result: What was made.
        choice: The spec and where it ran.
        totals: The run's ledger.
        rates: What tokens cost, by base model.
        limit: US dollars that the run might cost.
        checks: Invariants that were looked at, as the journal tells them.
        defaults: Each stage's options where a spec says none.
        is_part: Whether a part of the spec was run.
        stopped: Why it has stopped before its end; empty where it has not.
    """
    cells = [cell.name for cell in result.cells]
    parts = [
        f"# {safe(result.folder.parent.name)} {result.folder.name}{PART if is_part else ''}",
        *([f"{NOT_FINISHED}: {safe(stopped)}. What follows is what there was until then."] if stopped else []),
        "## Configuration",
        *_configuration(result, choice, cells, defaults),
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
        *_throughput(result, totals, stopped),
        *_cost(totals, rates, limit, probes_of(result.folder), stored_by(read_run(result.folder))),
        "## Observations",
        *(part for cell in result.cells for part in _observations(result, cell, final=not stopped)),
        *_profiles(result),
        *_checks(checks),
    ]
    return "\n\n".join(parts) + "\n"


def with_cost(
    report: str,
    totals: Totals,
    rates: Mapping[str, Rates | None],
    limit: float | None,
    probes: Totals,
    storage: Storage | None = None,
) -> str:
    """A report that was written before, with its part about cost as the ledgers of the run and its probes are now."""
    part = "\n\n".join(_cost(totals, rates, limit, probes, storage)) + "\n\n"
    return _COST.sub(lambda _: part, report, count=1)


def made_so_far(run: Run) -> RunResult:
    """What a run that has stopped has made, as it lies on the disk."""
    return RunResult(run.folder, tuple(map(_cell, run.cells)), run.engine, run.stand_ins)


def _cell(cell: CellView) -> CellResult:
    rows: dict[str, list[dict[str, Any]]] = {}
    every: dict[str, list[dict[str, Any]]] = {}
    done = [stage for stage in cell.stages if stage.is_done]
    for kind, output in (each for stage in done for each in stage.outputs.items()):
        if 0 < output.rows <= SUMMARY_ROWS and (read := output.read()) is not None:
            rows[kind] = read
            every.setdefault(kind, []).extend(read)
    stages = [StageResult(s.id, s.seconds, s.rows, Usage.of(s.usage), s.state == CACHED) for s in done]
    return CellResult(cell.name, tuple(stages), rows, every)


def _configuration(
    result: RunResult, choice: Choice, cells: Sequence[str], defaults: Mapping[str, Mapping[str, Any]]
) -> Iterable[str]:
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
    plain = {item.id: item for item in choice.spec.stages}
    items = [(item.id, item) for item in choice.spec.stages]
    for arm in choice.spec.arms:
        items += [(f"{item.id}, arm {arm.name}", item) for item in arm.stages if item != plain.get(item.id)]
    changed = [(told, ", ".join(_changed(item.options, defaults.get(item.uses, {})))) for told, item in items]
    yield "Options that are not a stage's defaults:"
    yield _table(("stage", "options"), [(safe(told), safe(options)) for told, options in changed if options])


def _changed(options: Mapping[str, Any], defaults: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """Options with another value than the default, as `gates.cut: false`."""
    for name, value in options.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            yield from _changed(value, default, f"{within}{name}.")
        elif value != default:
            yield f"{within}{name}: {json.dumps(value, ensure_ascii=False, default=dict)}"


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


def _throughput(result: RunResult, totals: Totals, stopped: str) -> Iterable[str]:
    """By stage over all cells: how fast, how many at once, how long a request took."""
    run = read_run(result.folder)
    found = throughput(totals, seconds_of(run, run.cells))
    if not found:
        yield "Nothing was answered yet." if stopped else "Nothing was asked for: all of it was found."
        return
    yield _table(HEADING, [each.row() for each in found])
    yield (
        "Requests: samples and scores that were answered, and the passes of trainings, which the part about cost does "
        "not count as requests. In flight: requests at once in the mean. A request's time runs from when it was sent "
        "to its answer; before that it waited for a place, for the budget, or because the engine had turned it or "
        "others away (429)."
    )


def _cost(
    totals: Totals, rates: Mapping[str, Rates | None], limit: float | None, probes: Totals, storage: Storage | None
) -> Iterable[str]:
    yield "## Cost"
    if not totals.used and not totals.open:
        yield "\n".join(["This run has paid for nothing.", *probe_lines(probes, rates)])
        return
    for section in ("stage", "model"):
        heading, *rows = cost_rows(totals, rates, section)
        yield _table(heading, rows)
    lines = ["Requests: samples and scores.", *cost_lines(totals, rates, limit, probes, storage)]
    yield "\n".join(f"- {line}" for line in lines)


def _observations(result: RunResult, cell: CellResult, *, final: bool) -> Iterable[str]:
    yield f"### {safe(cell.name)}"
    lines = [line for row in cell.rows.get("evaluation", []) for line in [*evaluation_lines(row), ""]]
    lines += [line for row in cell.measurements for line in [*measurement_lines(row), ""]]
    home = result.folder.parent.parent
    lines += weight_lines(cell.every.get("checkpoint", []), cell.every.get("adapter", []), home, final=final)
    yield "```\n" + "\n".join(lines).strip() + "\n```" if lines else "Nothing is to be told yet."


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
