"""A stage, an engine or an observer with a defect is named; what it does wrong ends nothing but its own work."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from conftest import SPECS, Outcome, charrun

from charrun import Stage, StageContext, events
from charrun.errors import EnvironmentProblem, PluginError, SpecError, StageFailed
from charrun.home import home
from charrun.pipeline.observers import Observers
from charrun.pipeline.prompts import Prompts
from charrun.testing import run_stage

SPEC = """
extends: builtin:custom-stage
name: own
engine: local
stand_ins: null
models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]
plugins: [./own.py]
stages: [own]
"""
STAGE = """
from charrun import Stage

class Own(Stage):
    name = "own"
    summary = "counts"
    produces = ("count",)
    {more}

    async def run(self, ctx):
        print("from the stage")
        ctx.publish("count", [{{"n": 1}}])
"""


def stage_that(work: Callable[[StageContext], Any]) -> type[Stage]:
    class Own(Stage):
        name: ClassVar[str] = "own"
        summary: ClassVar[str] = "does something wrong"
        produces: ClassVar[tuple[str, ...]] = ("count",)

        async def run(self, ctx: StageContext) -> None:
            await asyncio.sleep(0)
            result = work(ctx)
            if asyncio.iscoroutine(result):
                await result

    return Own


def throwing(error: BaseException) -> Callable[[StageContext], Any]:
    def work(ctx: StageContext) -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (throwing(ValueError("two\nlines")), "own: ValueError: two lines"),
        (throwing(SystemExit(3)), "own: SystemExit: 3"),
        (throwing(asyncio.CancelledError("mine")), "own: CancelledError: mine"),
        (lambda ctx: ctx.publish("count", [{"n": {1, 2}}]), "own: TypeError: Object of type set is not JSON"),
        (lambda ctx: ctx.publish("count", [{"n": float("nan")}]), "own: ValueError: Out of range float"),
        (lambda ctx: None, "own ended without publishing count"),
        (lambda ctx: ctx.rows("pairs"), "own uses 'pairs' without naming it under consumes or optional"),
        (lambda ctx: ctx.extend("pairs", 1), "own uses 'pairs' without naming it"),
        (lambda ctx: ctx.every("pairs"), "own uses 'pairs' without naming it"),
        (lambda ctx: ctx.sampler("teacher"), "own uses 'teacher' without naming it under roles"),
        (lambda ctx: ctx.character_prompt(), "own uses 'character' without naming it under templates"),
    ],
)
def test_a_stages_own_error_is_a_failed_stage_in_the_journal_too(
    work: Callable[[StageContext], Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(StageFailed) as found:
        run_stage(stage_that(work), runs_dir=tmp_path)
    assert found.value.message.startswith(told)
    (journal,) = tmp_path.glob("*/1/journal.jsonl")
    names = [json.loads(line)["event"] for line in journal.read_text().splitlines()]
    assert names[-2:] == ["stage_failed", "run_failed"]


def test_the_traceback_of_a_defect_is_kept_and_its_line_told(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as found:
        run_stage(stage_that(throwing(ValueError("no"))), runs_dir=tmp_path)
    (kept,) = tmp_path.glob("store/own-*/traceback.txt")
    assert kept.read_text().endswith("ValueError: no\n") and str(kept) in found.value.hint
    assert f"at {__file__}:" in found.value.hint


def own(folder: Path, command: str, more: str = "", *args: str) -> Outcome:
    (folder / "own.py").write_text(STAGE.format(more=more))
    (folder / "own.yaml").write_text(SPEC)
    env = {"XDG_STATE_HOME": str(folder)}
    return charrun(command, folder / "own.yaml", "--trust", "--runs-dir", folder / "runs", *args, env=env)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("def problems(self, ctx): 1 / 0", "ZeroDivisionError: division by zero"),
        ("def warnings(self, ctx): return 'text'", "answers with 'text', not with a list of texts"),
        ("def estimate(self, ctx): return None", "AttributeError"),
        ("def further_inputs(self, ctx): return {1, 2}", "Object of type set is not JSON serializable"),
        ("def __init__(self): 1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_stage_that_breaks_when_it_is_asked_is_a_plugin_error(more: str, why: str, tmp_path: Path) -> None:
    outcome = own(tmp_path, "plan", more)
    assert outcome.code == 4 and "Traceback" not in outcome.text
    assert "error: stage 'own' breaks: " in outcome.err and why in outcome.err and "own.py" in outcome.err


def test_what_a_stage_prints_is_none_of_the_json_events(tmp_path: Path) -> None:
    outcome = own(tmp_path, "run", "", "--json")
    assert outcome.code == 0 and "from the stage" in outcome.err
    assert [json.loads(line)["event"] for line in outcome.out.splitlines()][-1] == "run_finished"


def test_a_plan_of_damaged_rows_writes_nothing_and_a_run_makes_them_again(tmp_path: Path) -> None:
    assert own(tmp_path, "run").code == 0
    (rows,) = tmp_path.glob("runs/store/own-*/count-*.jsonl")
    (ticket,) = tmp_path.glob("runs/store/own-*/done/*.json")
    for path, damage in ((rows, "{}\n"), (ticket, "[1]")):
        path.write_text(damage)
        before = sorted(tmp_path.rglob("*"))
        assert "to do" in own(tmp_path, "plan").out
        assert sorted(tmp_path.rglob("*")) == before and path.read_text() == damage
        assert own(tmp_path, "run").code == 0
        assert json.loads(rows.read_text()) == {"n": 1} and "outputs" in json.loads(ticket.read_text())


@pytest.mark.parametrize("error", [SystemExit(9), StageFailed("ha"), EnvironmentProblem("ha")])
def test_a_plugins_observer_cannot_end_a_run(error: BaseException) -> None:
    def broken(event: events.Event) -> None:
        raise error

    observers = Observers(lambda hook: [("mine", broken)])
    observers.tell(events.Message("hello"))
    own = Observers(lambda hook: [("charrun.plugins.metrics", broken)])
    if isinstance(error, StageFailed):
        with pytest.raises(StageFailed):
            own.tell(events.Message("hello"))


def test_a_template_of_a_spec_runs_no_code(tmp_path: Path) -> None:
    template = tmp_path / "character.j2"
    template.write_text("{{ name.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(SpecError, match="SecurityError"):
        Prompts({"character": template}).render("character", name="pirate")


def test_an_engine_that_breaks_is_named_and_not_tried_again_by_each_cell(tmp_path: Path) -> None:
    from test_selecting import cells

    calls: list[int] = []

    def connect(request: object) -> None:
        calls.append(1)
        raise RuntimeError("no")

    shared = cells(tmp_path)[0].shared
    shared.engine.connect = connect  # type: ignore[method-assign, assignment]

    async def both() -> list[Any]:
        found = await asyncio.gather(shared.service(), shared.service(), return_exceptions=True)
        await shared.close("errored")
        return found

    found = asyncio.run(both())
    assert [type(error) for error in found] == [PluginError, PluginError] and len(calls) == 1
    assert "engine 'local' breaks: RuntimeError: no" in str(found[0])


def test_after_may_name_a_scale_of_the_spec_that_scale_replaces(tmp_path: Path) -> None:
    tiny = "scales=[{name: tiny, pairs: 2, samples_per_prompt: 1, reflections: 1, interactions: 2, turns: 2}]"
    args = ("--set", tiny, "--scale", "micro", "--after", "tiny", "--runs-dir", str(tmp_path))
    outcome = charrun("plan", SPECS / "pirate-smoke.yaml", *args)
    assert outcome.code == 1 and "its evaluation at scale 'tiny' is not there yet" in outcome.err


def test_without_a_home_nothing_is_looked_for_in_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert home() == Path(os.devnull)
