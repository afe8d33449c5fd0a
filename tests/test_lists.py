"""Templates that are lists: each line is a prompt or an opener, and an empty one is neither."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
from conftest import RunningEngine as DemoEngine
from conftest import charrun

from charrun.plugins.reflection import ReflectionStage
from charrun.testing import RunningEngine, run_stage


def test_blank_lines_of_a_list_are_no_prompts(demo_engine: DemoEngine, tmp_path: Path) -> None:
    (tmp_path / "reflection_prompts.j2").write_text("\nWrite a letter to yourself.\n\n  \n   What drives you?\n\n")

    class Replaced(ReflectionStage):
        """With another list of prompts."""

        templates: ClassVar[dict[str, Path]] = {
            **ReflectionStage.templates,
            "reflection_prompts": tmp_path / "reflection_prompts.j2",
        }

    found = run_stage(
        Replaced,
        options={"writer": "teacher", "first": {"rows": 0}},
        given={"checkpoint": [{"sampler": "", "state": ""}]},
        scale={"name": "few", "pairs": 1, "samples_per_prompt": 1, "reflections": 4, "interactions": 1, "turns": 2},
        engine=RunningEngine(demo_engine.base_url, demo_engine.api_key),
    )
    told = [(row["kind"], row["prompt"]) for row in found.rows["reflections"]]
    assert told == [(1, "Write a letter to yourself.")] * 2 + [(2, "What drives you?")] * 2


@pytest.mark.parametrize("template", ["reflection_prompts", "interaction_openers", "interaction_guided_openers"])
def test_an_empty_list_is_told_before_anything_is_paid(template: str, tmp_path: Path) -> None:
    (tmp_path / "empty.j2").write_text("\n  \n")
    (tmp_path / "x.yaml").write_text(f"extends: builtin:pirate-smoke\ntemplates: {{{template}: empty.j2}}\n")
    told = charrun("validate", tmp_path / "x.yaml")
    assert told.code == 3 and f"RUN001 template '{template}' has no lines" in told.text
    if template == "interaction_guided_openers":
        free = charrun("validate", tmp_path / "x.yaml", "--set", "stages.interaction.with.guided_share=0")
        assert free.code == 0, free.text
