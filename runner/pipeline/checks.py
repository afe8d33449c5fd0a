"""What is looked at before anything is written or started: stages' own checks, and whether a smaller scale passed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from charrun.errors import Problem, SpecError, StageFailed, UsageProblem
from charrun.pipeline.cell import Cell
from charrun.pipeline.context import StageContext
from charrun.pipeline.defects import asking
from charrun.pipeline.selection import Selection
from charrun.spec.document import Severity
from charrun.spec.words import suggest
from charrun.stage import Row, Stage

EVALUATION = "evaluation"


def check_cells(cells: Iterable[Cell]) -> list[Problem]:
    """Ask every stage of every cell whether it can do what the spec wants of it.

    Returns:
        What they warn of.

    Raises:
        SpecError: Some cannot; every problem at the stage's place in the spec.
    """
    cells = list(cells)
    found = _told(cells, "RUN001", lambda stage: stage.problems, "error")
    warnings = _told(cells, "RUN003", lambda stage: stage.warnings, "warning")
    if found:
        raise SpecError([*found, *warnings])
    return warnings


def passed_cells(cells: Sequence[Cell], scale: str) -> tuple[list[Cell], list[str]]:
    """The cells whose like at another scale passed its evaluation, and a line for each that did not.

    A cell passed where its last rows of kind `evaluation` all say so (`passed`).

    Raises:
        UsageProblem: No plugin has such a scale.
        StageFailed: None passed.
    """
    left: list[str] = []
    passed: list[Cell] = []
    for cell in cells:
        if reason := _not_passed(cell, scale):
            left.append(f"{cell.name}: {reason}")
        else:
            passed.append(cell)
    if not passed:
        names = dict.fromkeys(cell.shared.spec.name for cell in cells)
        raise StageFailed("\n".join(left), f"run it first: charrun run {' '.join(names)} --scale {scale}")
    return passed, left


def _not_passed(cell: Cell, scale: str) -> str:
    if scale == cell.scale.name:
        return ""
    rows = _evaluations(cell, scale)
    if rows is None:
        return f"left out: its evaluation at scale '{scale}' is not there yet"
    return "" if rows and all(row.get("passed") for row in rows) else f"left out: it did not pass at scale '{scale}'"


def _evaluations(cell: Cell, name: str) -> list[Row] | None:
    scales = {**cell.shared.registry.scales, **{scale.name: scale for scale in cell.shared.spec.scales}}
    if name not in scales:
        raise UsageProblem(f"--after {name}: there is no such scale", suggest(name, scales, "scales"))
    like = Cell(cell.shared, replace(cell.spec, scale=scales[name]), Selection())
    evaluating = [stage for stage in like.stages if EVALUATION in stage.stage.produces]
    if not evaluating:
        raise UsageProblem("--after needs a stage that produces evaluation, and the spec has none")
    outputs = evaluating[-1].peek()
    return None if outputs is None else outputs[EVALUATION].read()


def _told(
    cells: Iterable[Cell],
    code: str,
    ask: Callable[[Stage], Callable[[StageContext], list[str]]],
    severity: Severity,
) -> list[Problem]:
    found = set()
    for stage in [stage for cell in cells for stage in cell.stages]:
        with asking(type(stage.stage)):
            texts = _answer(ask(stage.stage), StageContext(stage), severity)
            if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
                raise TypeError(f"it answers with {texts!r}, not with a list of texts")
        found |= {stage.item.problem(code, text, severity) for text in texts}
    return sorted(found, key=lambda problem: (problem.file, problem.line, problem.column, problem.message))


def _answer(ask: Callable[[StageContext], list[str]], ctx: StageContext, severity: Severity) -> list[str]:
    """What a stage says; where looking at it fails already, that is the problem, and no warning as well."""
    try:
        return ask(ctx)
    except StageFailed as error:
        return [error.message] if severity == "error" else []
