"""Plans of what would be paid, by dry runs alone: nothing is asked, and nobody needs to be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import SPECS, charrun
from paid import SPEC, planned

POSTS = """
import re
from pathlib import Path
from charrun import Stage, hookimpl

class Posts(Stage):
    name = "posts"
    summary = "tells the world"
    consumes = ("chosen",)
    produces = ("posted",)
    runs_dry = False

    async def run(self, ctx):
        (Path(__file__).parent / "posted").touch()
        ctx.publish("posted", [])

@hookimpl
def charrun_register_stages():
    return [Posts]
"""


def test_cells_that_are_alike_are_not_all_run_dry(tmp_path: Path) -> None:
    """Six seeds of one cell: four are run, and the others are taken to be as those."""
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC.replace("seed: 7", "seed: [1, 2, 3, 4, 5, 6]").replace("usd: 1", "usd: 9"))
    plan = planned(spec, tmp_path / "runs", "--until", "student")
    cells = {cell["name"][-2:]: {stage["id"]: stage for stage in cell["stages"]} for cell in plan["cells"]}
    guessed = [name for name, stages in cells.items() if "like" in stages["teacher"]["basis"]]
    assert len(cells) == 6 and len(guessed) == 2
    assert cells[guessed[0]]["teacher"]["basis"] == "like 3 of 6 such cells"
    whole = sum(stage["usd"][1] for stages in cells.values() for stage in stages.values())
    assert plan["usd"][1] == pytest.approx(whole)
    highs = [stages["teacher"]["usd"][1] for stages in cells.values()]
    assert max(highs) < 1.1 * min(highs)


def test_a_stage_that_must_not_be_run_dry_is_not(tmp_path: Path) -> None:
    spec = tmp_path / "paid.yaml"
    (tmp_path / "posts.py").write_text(POSTS)
    spec.write_text(SPEC.replace("  - pairs", "  - posts\n  - pairs") + "plugins: [./posts.py]\n")
    plan = planned(spec, tmp_path / "runs", "--trust")
    assert plan["not_foreseen"] == [
        {"cell": "pirate-demo-student-small-tiny", "stage": "posts", "why": "posts does not run dry"}
    ]
    assert not (tmp_path / "posted").exists()
    usd = {stage["id"]: stage["usd"] for stage in plan["cells"][0]["stages"]}
    assert usd["posts"] is None and all(usd[id][1] for id in ("teacher", "dpo", "sft"))


def test_a_stage_that_looks_out_for_what_never_comes_keeps_no_plan_waiting(tmp_path: Path) -> None:
    spec = tmp_path / "paid.yaml"
    waits = POSTS.replace("runs_dry = False", "").replace(
        "(Path(__file__).parent", 'import asyncio\n        while not Path("go").exists():\n            '
        'await asyncio.sleep(0.01)\n        (Path(__file__).parent',
    )  # fmt: skip
    (tmp_path / "posts.py").write_text(waits)
    spec.write_text(SPEC.replace("  - pairs", "  - posts\n  - pairs") + "plugins: [./posts.py]\n")
    plan = planned(spec, tmp_path / "runs", "--trust")
    (found,) = plan["not_foreseen"]
    assert (found["stage"], found["why"]) == ("posts", "it waits for something that no dry run brings")
    usd = {stage["id"]: stage["usd"] for stage in plan["cells"][0]["stages"]}
    assert usd["posts"] is None and all(usd[id][1] for id in ("teacher", "dpo", "sft"))


def test_a_price_that_nobody_knows_is_an_error_with_a_budget_and_told_without(tmp_path: Path) -> None:
    spec = tmp_path / "paid.yaml"
    spec.write_text(SPEC.replace("{prefill: 0.12, sample: 0.3, train: 0.36}", "{prefill: 0.12, sample: 0.3}"))
    refused = planned(spec, tmp_path / "runs", code=5)
    assert "not known what charrun/demo-student-small costs" in refused.err
    spec.write_text(spec.read_text().replace("budget: {usd: 1}\n", ""))
    told = charrun("plan", spec, "--runs-dir", tmp_path / "runs", "--until", "dpo")
    assert told.code == 0 and "say it under `prices` in the spec" in told.out and "It has no budget" in told.out


def test_a_run_of_named_models_is_priced_without_a_key_and_without_a_network(tmp_path: Path) -> None:
    told = charrun(
        "plan", SPECS / "pirate-smoke.yaml", "--runs-dir", tmp_path / "runs", "--set", "engine=tinker", "--until", "dpo"
    )
    assert told.code == 0, told.text
    assert "Its budget is $1.00, which it never exceeds." in told.out
    assert "The tokenizer of Qwen/Qwen3-235B-A22B-Instruct-2507, Qwen/Qwen3-30B-A3B is not on this machine" in told.out
    assert "AutoTokenizer as T; T.from_pretrained('Qwen/Qwen3-30B-A3B')" in told.out
    assert re.search(r"^  teacher +to do +16 +16 +0\.\d{4}-0\.\d{4} ", told.out, re.MULTILINE)
    assert re.search(r"^It will cost \$0\.\d{4} to \$0\.\d{4}\.$", told.out, re.MULTILINE)
