"""`charrun plan` says why work whose fingerprint is in the store is to be done, and who made what is done."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from planned_project import FILES, SPEC, Project, made

from charrun.errors import StageFailed
from charrun.pipeline.plan import LOST
from charrun.pipeline.run import plan_cells
from charrun.store.training import Saved, TrainingLog


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("finished")).folder


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Project:
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "copy")
    return Project(tmp_path / "copy")


def test_damage_is_named_and_mended(project: Project) -> None:
    project.store("first-*/side.json").write_text("{}")
    assert project.reasons() == {"first": "its outputs are damaged: side.json", "second": "after first"}
    (rows,) = project.store("first-*").glob("count-*.jsonl")
    rows.unlink()
    assert project.reasons()["first"] == f"its outputs are damaged: {rows.name}, side.json"
    project.run()
    assert project.reasons() == {}
    ticket = project.store("third-*/done/*.json")
    ticket.write_text(ticket.read_text().replace('"seconds"', '"secondS"'))
    assert project.reasons() == {"third": f"its outputs are damaged: done/{ticket.name}"}


def test_a_forced_stage_and_what_follows_it_are_to_do(project: Project) -> None:
    assert project.reasons(forced=("first",)) == {"first": "forced", "second": "after first"}


def test_another_scale_is_told_with_both_numbers_and_what_is_there(project: Project) -> None:
    (project.store("third-*") / "items.jsonl").write_text("one\ntwo\n")
    assert project.reasons("scales.0.pairs=6", "scales.0.samples_per_prompt=2") == {
        "prompts": "scale: pairs 4 -> 6, samples per prompt 1 -> 2",
        "first": "after prompts",
        "second": "after first",
        "third": "after prompts",
    }
    project.run("scales.0.pairs=6", last="prompts")
    planned = project.plan("scales.0.pairs=6")
    assert planned["third"].reason == "scale: pairs 4 -> 6, 2 responses are in the store"
    assert planned["third"].changes == ("scale: pairs 4 -> 6",)
    assert planned["first"].reason == "other prompts than before"


def test_other_rows_are_named_where_each_is_keyed_by_its_own_request(project: Project) -> None:
    more = project.folder / "more.jsonl"
    more.write_text("".join(json.dumps({"prompt": f"What is {n}?"}) + "\n" for n in range(9)))
    sources = f"stages.prompts.with.sources=[{more}]"
    assert project.reasons(sources)["prompts"].startswith('option sources: ["constitution", "general"] -> ["/')
    project.run(sources, last="prompts")
    other = "other prompts than before"
    assert project.reasons(sources) == {"first": other, "second": "after first", "third": other}
    project.run(sources)
    more.write_text(more.read_text().replace("What", "Where"))
    assert project.reasons(sources)["prompts"] == "what else it reads changed, such as a file"


def test_an_interrupted_stage_tells_what_is_kept_of_it(project: Project) -> None:
    ticket = project.store("third-*/done/*.json")
    ticket.unlink()
    assert project.reasons() == {"third": "interrupted"}
    folder = ticket.parent.parent
    (folder / "items.jsonl").write_text("one\n")
    assert project.reasons() == {"third": "interrupted: 1 response is in the store"}
    shared = project.runs / "store/answers-0123456789abcdef"
    shared.mkdir()
    (shared / "scores.jsonl").write_text(f'{{"work":"{folder.name}/{ticket.stem}"}}\n{{"work":"other/one"}}\n')
    assert project.reasons() == {"third": "interrupted: 2 responses are in the store"}
    log = TrainingLog(folder)
    log.saved("adapter", Saved(12, "tinker://a/weights/b", time.time() + 60))
    log.close()
    assert project.reasons() == {"third": "interrupted: 2 responses are in the store, 12 optimiser steps are saved"}


def test_a_stage_that_failed_tells_its_error(project: Project) -> None:
    for folder in (project.runs / "store").glob("first-*"):
        shutil.rmtree(folder)
    with pytest.raises(StageFailed, match="nobody works"):
        project.run("stages.first.with.workers=0")
    (project.store("first-*") / "items.jsonl").write_text("one\ntwo\n")
    assert project.reasons("stages.first.with.workers=0") == {
        "first": "failed: nobody works; 2 responses are in the store",
        "second": "after first",
    }


def test_what_another_version_made_stays_done_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("charrun.pipeline.identity.__version__", "0.0.9")
        for name, text in FILES.items():
            (tmp_path / name).write_text(text)
        project = Project(tmp_path)
        project.owner = "my-plugin 1.0"
        project.run()
        assert project.plan()["first"].reason == "in the store"
    project.owner = "my-plugin 1.1"
    planned = project.plan()
    assert {stage.state for stage in planned.values()} == {"done"}
    assert planned["prompts"].reason == "in the store, made by charrun 0.0.9"
    assert planned["first"].reason == "in the store, made by charrun 0.0.9 and my-plugin 1.0"


def test_a_lost_checkpoint_is_to_do_where_something_that_is_to_do_consumes_it(tmp_path: Path) -> None:
    stages = "[{uses: trained, id: one}, {uses: trained, id: two}, judged]"
    project = made(tmp_path, SPEC.replace("[prompts, first, second, third]", stages))
    one, two = (project.plan(), project.store("judged-*"))
    assert one.keys() == {"one", "two", "judged"} and two.is_dir()
    assert project.reasons(lost="weights") == {}  # nothing asks for them
    assert project.reasons(lost="weights", forced=("judged",)) == {"one": LOST, "two": LOST, "judged": "forced"}
    choice, registry = project.choice()
    (cell,) = plan_cells(choice, registry, project.runs)
    first = cell.stages[0]
    assert first.peek() is not None
    planned = project.plan(lost=first.folder.name, forced=("judged",))
    assert planned["one"].state == "done"
    assert planned["one"].reason == f"in the store; {LOST}, which judged may ask for"
    assert planned["two"].reason == "in the store"
