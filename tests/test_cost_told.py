"""What a run has cost and how fast it was, as it is told during the run, after it, and after a kill."""

from __future__ import annotations

import asyncio
import io
import os
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from rich.console import Console
from run_copies import Call, caller, write_events

from charrun.commands import cost as cost_command
from charrun.pipeline import work as work_module
from charrun.pipeline.meter import Meter, MeteredTrainer
from charrun.pipeline.results import CellResult, RunResult, StageResult
from charrun.pipeline.work import Work
from charrun.report.cost import cost_csv, cost_line, cost_lines, cost_records, whole_usd
from charrun.report.run_report import made_so_far, with_cost
from charrun.report.run_views import status_lines, throughput_of
from charrun.report.summary import print_summary
from charrun.spec.prices import own_rates, usd
from charrun.store.files import write_json
from charrun.store.items import USAGE
from charrun.store.ledger import LEDGER, Ledger, Place, Totals, read_ledger
from charrun.store.lines import AppendFile, read_lines
from charrun.store.runs import find_run, read_run
from charrun.store.tickets import read_ticket
from charrun.usage import Usage, of_samples

if TYPE_CHECKING:
    from charrun.pipeline.spending import Spending

CELL, MODEL = "pirate-student-tiny", "org/student"
RATES = {MODEL: own_rates({"prefill": 1.0, "sample": 2.0, "train": 3.0})}
TOLD = {"org/student": {name: getattr(RATES[MODEL], name) for name in ("prefill", "cached", "sample", "train")}}
EVALUATE, SFT = Place(CELL, "evaluate", MODEL), Place(CELL, "sft", MODEL)
USED = of_samples(1000, 0, 1, 500)
REPORT = "# simulated 1\n\n## Throughput\n\nfast\n\n## Cost\n\nold\n\n- old\n\n## Observations\n\n## Cost\n"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """The command line."""
    return caller(capsys, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with a spec of two stages."""
    place = tmp_path / "runs" / "simulated" / "1"
    place.mkdir(parents=True)
    write_json(
        place / "spec.json", {"name": "simulated", "stages": [{"id": s, "uses": s} for s in ("sft", "evaluate")]}
    )
    return place


def begun(at: float, budget: float | None = None) -> dict[str, Any]:
    told = {"engine": "tinker", "cells": [CELL], "pid": 2**22 + 1, "rates": TOLD, "budget": budget}
    return {"event": "run_started", "time": at, "argv": ["run", "x.yaml"], **told}


def stage(event: str, at: float, id: str = "evaluate", **more: Any) -> dict[str, Any]:
    return {"event": event, "time": at, "cell": CELL, "stage": id, "folder": f"{id}-0123456789abcdef", **more}


def asked(folder: Path, place: Place = EVALUATE, ended: int = 4, open_: int = 0) -> None:
    """Requests of a second each, and some without an end."""
    ledger = Ledger(folder / LEDGER)
    for number in range(ended + open_):
        entered = ledger.reserve(place, USED)
        if number < ended:
            assert entered is not None
            ledger.settle(entered, USED, (1.0, 0.5))
    ledger.close()


# -- after a kill -------------------------------------------------------------------------------------------------


def test_the_wall_time_of_work_is_that_of_all_processes_that_did_it(tmp_path: Path) -> None:
    ticket = tmp_path / "evaluate-0123456789abcdef" / "done" / "aa.json"
    ticket.parent.mkdir(parents=True)
    work = killed(ticket)
    assert [line.value["seconds"] for line in read_lines(work.folder / USAGE)] == [pytest.approx(4.1, abs=0.2)]
    again = Work(None, "evaluate", ticket, print)  # type: ignore[arg-type]  # it opens no shared folder
    again._began -= 2.9
    assert again.seconds == pytest.approx(7.0, abs=0.2)
    again.finish([], lambda row: row, again.seconds, {}, None, {})
    done = read_ticket(ticket)
    assert done is not None and done.seconds == pytest.approx(7.0, abs=0.2)
    before = (work.folder / USAGE).read_bytes()
    again._began -= 60
    again.mark()  # what ends later is not of this work any more
    assert (work.folder / USAGE).read_bytes() == before


def killed(ticket: Path) -> Work:
    """Work whose process stored an answer after 4.1 seconds, and was killed."""
    work = Work(None, "evaluate", ticket, print)  # type: ignore[arg-type]
    work.mark()
    assert not (work.folder / USAGE).exists()  # a second has not passed
    work._began -= 4.1
    work.mark()
    work.mark()
    return work


def test_work_that_is_stopped_tells_of_its_time(tmp_path: Path) -> None:
    ticket = tmp_path / "sft-0123456789abcdef" / "done" / "aa.json"
    ticket.parent.mkdir(parents=True)
    idle = Work(None, "sft", ticket, print)  # type: ignore[arg-type]
    asyncio.run(idle.close())
    assert not (idle.folder / USAGE).exists()
    work = Work(None, "sft", ticket, print)  # type: ignore[arg-type]
    work.count(Usage(steps=1))
    work._began -= 0.5
    asyncio.run(work.close())
    assert Work(None, "sft", ticket, print).seconds == pytest.approx(0.5, abs=0.2)  # type: ignore[arg-type]


def test_the_throughput_of_a_stage_counts_the_seconds_of_all_its_processes(folder: Path) -> None:
    """A process was killed after 4.1 seconds, as its marks tell; the next one's end tells of both."""
    asked(folder, ended=7)
    started = [begun(1000.0), stage("stage_started", 1001.0)]
    write_events(folder, started)
    store = folder.parent.parent / "store" / "evaluate-0123456789abcdef"
    (store / "done").mkdir(parents=True)
    marks = AppendFile(store / USAGE)
    marks.append({"work": f"{store.name}/aa", "usage": Usage().to_dict(), "seconds": 3.0})
    marks.append({"work": f"{store.name}/aa", "usage": Usage().to_dict(), "seconds": 1.1})
    marks.close()
    (of_killed,) = throughput_of(read_run(folder), read_run(folder).cells)
    assert of_killed.seconds == pytest.approx(4.1) and of_killed.in_flight == pytest.approx(7 / 4.1)
    now = time.time()
    here = {**begun(now - 2), "pid": os.getpid()}
    write_events(folder, [*started, here, stage("stage_started", now - 2)])
    assert throughput_of(read_run(folder), read_run(folder).cells)[0].seconds == pytest.approx(4.1, abs=0.5)
    ended = [begun(1010.0), stage("stage_started", 1010.0), stage("stage_finished", 1013.0, seconds=7.0)]
    write_events(folder, [*started, *ended])
    (store / "done" / "aa.json").write_text("{}")
    (whole,) = throughput_of(read_run(folder), read_run(folder).cells)
    assert whole.seconds == 7.0 and whole.in_flight == pytest.approx(1.0)
    more = [stage("stage_started", 1020.0, extra=5), stage("stage_finished", 1022.0, seconds=9.0)]
    anew = [stage("stage_started", 1030.0, extra=0), stage("stage_finished", 1032.0, seconds=2.0)]
    found = [stage("stage_finished", 1040.0, seconds=2.0, cached=True)]
    write_events(folder, [*started, *ended, *more, *anew, *found])
    assert throughput_of(read_run(folder), read_run(folder).cells)[0].seconds == 9.0 + 2.0


def test_rows_that_were_found_took_this_run_no_time(folder: Path) -> None:
    write_events(folder, [begun(1000.0), stage("stage_finished", 1001.0, seconds=50.0, cached=True)])
    asked(folder)
    (found,) = throughput_of(read_run(folder), read_run(folder).cells)
    assert found.seconds == 0 and found.in_flight is None and found.row()[2] == "-"


def test_what_cells_did_side_by_side_counts_once(folder: Path) -> None:
    """Two cells for 10 seconds each, of which both worked for 8; and so after half a second that a kill has ended."""
    other = f"{CELL}-s8"
    here, there = stage("stage_started", 1001.0), {**stage("stage_started", 1003.0), "cell": other}
    ends = (
        stage("stage_finished", 1011.0, seconds=10.0),
        {**stage("stage_finished", 1013.0, seconds=10.0), "cell": other},
    )
    begun_both = {**begun(1000.0), "cells": [CELL, other]}
    write_events(folder, [begun_both, here, there, *ends])
    asked(folder, ended=12)
    asked(folder, replace(EVALUATE, cell=other), ended=12)
    run = read_run(folder)
    (both,) = throughput_of(run, run.cells)
    assert both.seconds == pytest.approx(12.0) and both.in_flight == pytest.approx(2.0)
    (alone,) = throughput_of(run, run.cells[:1])
    assert alone.seconds == 10.0 and alone.in_flight == pytest.approx(1.2)
    killed = [begun_both, here, {**here, "cell": other}, stage("stage_finished", 1001.5, "sft", cached=True)]
    ended = [{**event, "time": event["time"] + 20, "seconds": 11.5} for event in ends]
    again = [{**begun_both, "time": 1020.0}, {**here, "time": 1021.0}, {**there, "time": 1023.0}]
    write_events(folder, [*killed, *again, *ended])
    assert throughput_of(run, run.cells)[0].seconds == pytest.approx(23.0 * 12.5 / 21.0)


def test_the_summary_tells_the_cost_of_the_run_once_however_many_cells_it_has(folder: Path) -> None:
    for many in (1, 2, 5):
        cells = tuple(
            CellResult(f"cell-{n}", (StageResult("evaluate", 1.0, {}, Usage(), False),), {}) for n in range(many)
        )
        write_events(folder, [{**begun(1000.0), "cells": [cell.name for cell in cells]}])
        (folder / LEDGER).unlink(missing_ok=True)
        asked(folder)
        console = Console(width=200, record=True, file=io.StringIO())
        print_summary(console, RunResult(folder, cells, "tinker"))
        text = console.export_text()
        assert text.count("Cost: ") == 1
        assert "\nCost:             $0.0080 (charrun cost)\nRequests:         4; the slowest 1% took 1.00 s" in text


def test_the_summary_tells_what_requests_without_an_end_may_have_cost(folder: Path) -> None:
    write_events(folder, [begun(1000.0), stage("stage_started", 1001.0)])
    asked(folder, ended=4, open_=2)
    console = Console(width=200, record=True, file=io.StringIO())
    cell = CellResult(CELL, (StageResult("evaluate", 1.0, {}, Usage(), False),), {})
    print_summary(console, RunResult(folder, (cell,), "tinker"))
    text = console.export_text()
    assert "Cost:             $0.0080, and up to $0.0040 of 2 requests without an end (charrun cost)\n" in text
    assert cost_line(Totals(), RATES) == ""
    totals = read_ledger(folder / LEDGER)
    assert cost_line(totals, {MODEL: None}) == ""
    totals.open.clear()
    assert cost_line(totals, RATES) == "$0.0080"
    assert cost_line(totals, RATES, Totals(used={SFT: USED})) == "$0.0080, beside $0.0020 of probes"


def test_settling_by_the_bill_writes_the_cost_of_the_report_anew(
    folder: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_events(folder, [begun(1000.0), stage("stage_started", 1001.0)])
    asked(folder, ended=1, open_=1)
    (folder / "report.md").write_text(REPORT)
    numbers = list(read_ledger(folder / LEDGER).open)
    monkeypatch.setattr("charrun.pipeline.bill.ends_by_bill", lambda totals, bill: dict.fromkeys(numbers, USED))
    assert "Settled: 1 requests without an end, 1,500 tokens" in cost_command._settle(
        find_run(folder.parent.parent), read_ledger(folder / LEDGER), []
    )
    report = (folder / "report.md").read_text()
    before, cost = report.split("## Cost\n", 1)
    assert before == REPORT.split("## Cost\n", 1)[0]
    assert "old" not in report and "| evaluate | 2 | 2,000 | 0 | 1,000 | 0 | 0 | 0.0040 |" in cost
    assert report.endswith(REPORT[REPORT.index("## Observations") :])
    assert "no end" not in cost
    shown = call("cost", "--runs-dir", folder.parent.parent)
    assert "0.0040" in shown.out
    assert with_cost("# no such part\n", Totals(), RATES, None, Totals()) == "# no such part\n"


# -- after a stop -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("whose", "told"),
    [("", "a higher --budget:"), ("of evaluate ", "a higher budget.stages.evaluate:")],
)
def test_status_of_a_run_that_reached_its_budget_says_what_to_raise(folder: Path, whose: str, told: str) -> None:
    spent = "$0.0040 of $0.0040 are spent, and the next request of evaluate may cost $0.0008"
    reason = f"the budget {whose}is reached: {spent}"
    stop = [
        stage("stage_failed", 1002.0, error=f"BudgetReached: {reason}", interrupted=True),
        {"event": "run_interrupted", "time": 1002.0, "reason": reason},
    ]
    write_events(folder, [begun(1000.0, 0.004), stage("stage_started", 1001.0), *stop])
    lines = status_lines(read_run(folder), 80)
    assert lines[0] == "simulated/1: interrupted by its budget"
    assert f"The budget {whose}was reached: {spent}. Nothing that it recorded is lost." in lines
    assert f"To continue, run the same command with {told}\n  charrun run x.yaml" in lines
    write_events(folder, [begun(1000.0), {"event": "run_interrupted", "time": 1002.0, "reason": "stopped by a person"}])
    lines = status_lines(read_run(folder), 80)
    assert lines[0] == "simulated/1: interrupted" and "To continue, run the same command again:" in "\n".join(lines)


def test_status_tells_what_a_stop_by_the_budget_holds_and_once_it_is_settled_what_is_left(folder: Path) -> None:
    spent = "$0.0020 of $0.0040 are spent and $0.0020 held for 1 request without an end, and the next one may cost $1"
    stop = {"event": "run_interrupted", "time": 1002.0, "reason": f"the budget is reached: {spent}"}
    write_events(folder, [begun(1000.0, 0.004), stop])
    asked(folder, ended=1, open_=1)
    text = " ".join(status_lines(read_run(folder), 80))
    assert "$0.0020 more, which counts against the budget until `charrun cost --reconcile --settle`" in text
    assert "The run's budget is $0.0040; $0.0000 are left now." in text
    assert "To continue, run the same command with a higher --budget" in text
    ledger = Ledger(folder / LEDGER)
    with ledger._alone():
        pass
    (number,) = ledger.totals.open
    ledger.settle(number, of_samples(500, 0, 1, 0))
    ledger.close()
    text = " ".join(status_lines(read_run(folder), 80))
    assert "The run's budget is $0.0040; $0.0015 are left now." in text and "no end:" not in text
    assert "To continue, run the same command again, or with a higher --budget" in text


def test_what_a_stopped_run_has_made_is_found_on_the_disk(folder: Path) -> None:
    made = stage("stage_finished", 1002.0, "sft", seconds=3.0, cached=True, usage={"steps": 2, "trained_tokens": 7})
    write_events(folder, [begun(1000.0), made, stage("stage_started", 1003.0)])
    result = made_so_far(read_run(folder))
    (cell,) = result.cells
    assert (cell.name, result.engine, result.folder) == (CELL, "tinker", folder)
    (done,) = cell.stages  # the other one is not
    assert (done.id, done.seconds, done.cached, done.usage) == ("sft", 3.0, True, Usage(steps=2, trained_tokens=7))


# -- figures ------------------------------------------------------------------------------------------------------


def test_small_sums_are_told_with_enough_digits() -> None:
    assert [usd(each) for each in (0, 42_000_000, 1_234_567, 40_000_000_000, 10**12)] == [
        "0.0000", "0.000042", "0.0000012", "0.0400", "1.0000",
    ]  # fmt: skip
    assert [whole_usd(each) for each in (5.7, 0.25, 0.00003, 0.0)] == ["5.70", "0.2500", "0.000030", "0.0000"]
    assert cost_lines(Totals(used={EVALUATE: Usage(prefill_tokens=20)}), RATES, 0.00005) == [
        "Budget: $0.000050; $0.000030 are left."
    ]


def test_an_empty_ledger_as_csv_has_the_columns_of_any_other(folder: Path) -> None:
    asked(folder)
    full = cost_csv(cost_records(read_ledger(folder / LEDGER), RATES))
    assert cost_csv([]) == full.splitlines()[0] + "\n"
    assert cost_csv([]).endswith("steps,usd_low,usd_high,usd_in_doubt,in_doubt\n")


def test_optimiser_steps_are_in_the_ledger_once_they_are_done(tmp_path: Path) -> None:
    """They cost nothing, so nothing is reserved while they are under way."""
    done: Future[str] = Future()
    counted: list[Usage] = []

    class Trainer:
        def optim_step(self) -> Any:
            return SimpleNamespace(future=lambda: done)

    async def train() -> None:
        ledger = Ledger(tmp_path / LEDGER)
        spending = cast("Spending", SimpleNamespace(ledger=ledger, failed=print))
        MeteredTrainer(cast("Any", Trainer()), Meter(spending, SFT, counted.append)).optim_step()
        assert not ledger.totals.open and not ledger.totals.used
        done.set_result("")
        await asyncio.sleep(0)
        ledger.close()

    asyncio.run(train())
    totals = read_ledger(tmp_path / LEDGER)
    assert totals.used == {SFT: Usage(steps=1)} and not totals.open and not totals.times
    assert counted == [Usage(steps=1)]
    (row,) = cost_records(totals, RATES)
    assert row["steps"] == 1 and row["usd_high"] == 0


def test_times_of_work_of_earlier_versions_are_not_there(tmp_path: Path) -> None:
    ticket = tmp_path / "sft-0123456789abcdef" / "done" / "aa.json"
    ticket.parent.mkdir(parents=True)
    file = AppendFile(tmp_path / "sft-0123456789abcdef" / USAGE)
    file.append({"work": f"{tmp_path.name}/aa", "usage": Usage().to_dict()})
    file.append({"work": "sft-0123456789abcdef/aa", "usage": Usage(steps=3).to_dict()})
    file.close()
    work = Work(None, "sft", ticket, print)  # type: ignore[arg-type]
    assert work.usage() == Usage(steps=3) and work.seconds < work_module._MARK_SECONDS
