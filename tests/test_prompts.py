"""The mix of the constitution's questions and other prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import RunningEngine as DemoEngine
from conftest import charrun

from charrun.plugins.prompts import PromptsStage
from charrun.testing import RunningEngine, run_stage

EXPANDED = [{"id": f"1-{n}", "trait": 1, "question": f"Question {n}, what of it?"} for n in range(200)]


@pytest.fixture(scope="module")
def engine(demo_engine: DemoEngine) -> RunningEngine:
    """The session's engine as `charrun.testing` takes it."""
    return RunningEngine(demo_engine.base_url, demo_engine.api_key)


def mix(engine: RunningEngine, scale: Any, **options: Any) -> tuple[list[str], list[str]]:
    """Sources of a scale's prompts in their order, and what was logged."""
    found = run_stage(PromptsStage, options=options, given={"questions": EXPANDED}, scale=scale, engine=engine)
    return [row["source"] for row in found.rows["prompts"]], found.log


def test_the_constitution_has_the_share_that_is_asked_for_at_every_scale(engine: RunningEngine) -> None:
    asked = {"sources": ["expanded", "general"], "constitution_share": 0.2732}
    small, told = mix(engine, "smoke", **asked)
    large, _ = mix(engine, "quarter", **asked)
    assert small == large[:16]
    assert (small.count("expanded"), large.count("expanded")) == (4, 102)
    assert told == ["4 of 16 prompts are the constitution's (25.0%)"]
    assert max(len(run) for run in "".join(source[0] for source in large).split("e")) == 3  # spread evenly


def test_where_questions_do_not_suffice_all_are_used_and_the_log_says_so(engine: RunningEngine) -> None:
    sources, told = mix(engine, "quarter", sources=["expanded", "general"], constitution_share=0.8)
    assert sources.count("expanded") == 200 and sources.count("general") == 175
    assert told[0] == "200 of 375 prompts are the constitution's (53.3%)"
    assert "asks for 300 questions of the constitution, and there are 200" in told[1]


def test_a_share_moves_neither_group_within_itself(engine: RunningEngine) -> None:
    plain, shared = (
        run_stage(PromptsStage, options=options, scale="mini", engine=engine).rows["prompts"]
        for options in ({}, {"constitution_share": 0.1})
    )
    for of_general in (True, False):
        one, other = ([r for r in rows if (r["source"] == "general") is of_general] for rows in (plain, shared))
        assert one[: len(other)] == other[: len(one)]
    assert sum(row["source"] == "constitution" for row in plain) == 6
    assert sum(row["source"] == "constitution" for row in shared) == 25


def test_the_papers_preset_has_its_mix_and_wants_expanded_questions(tmp_path: Path) -> None:
    spec = (
        "version: 1\nname: x\nseed: 7\nengine: local\npreset: paper\ncharacters: [pirate]\nscales: [paper]\n"
        "models: [{teacher: charrun/demo-teacher, student: charrun/demo-student}]\nstages: [expand, prompts, teacher]\n"
    )
    (tmp_path / "x.yaml").write_text(spec)
    sound = charrun("validate", tmp_path / "x.yaml")
    assert sound.code == 0
    assert "prompts.constitution_share asks for 500 questions of the constitution, and there are 400" in sound.text
    shown = json.loads(charrun("show", tmp_path / "x.yaml", "--json").out)["spec"]["stages"][1]["with"]
    assert shown == {"sources": ["expanded", "general"], "constitution_share": 0.2732}
    (tmp_path / "x.yaml").write_text(spec.replace("[expand, prompts", "[prompts"))
    assert "no earlier stage writes questions: put expand before it" in charrun("validate", tmp_path / "x.yaml").text
