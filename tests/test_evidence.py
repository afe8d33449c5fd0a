"""Rates and paired differences over a run's arms and seeds."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import FinishedRun, charrun

from charrun.plugins._rates import rate
from charrun.report.compare_measurements import tables_of
from charrun.report.evidence import evidence_of
from charrun.report.evidence_lines import evidence_lines
from charrun.report.evidence_tables import pooled_tables
from charrun.report.intervals import Share, difference
from charrun.statistics import mcnemar, paired_difference, wilson, worth
from charrun.store.cells import CellView, StageView
from charrun.store.replay import DONE
from charrun.store.runs import find_run


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> list[tuple[bool, bool]]:
    return [(True, True)] * both + [(True, False)] * only_a + [(False, True)] * only_b + [(False, False)] * neither


def test_without_correlation_it_is_the_interval_for_independent_samples() -> None:
    found = paired_difference(outcomes(12, 28, 18, 42))  # 40% and 30%, independent: 12 = 100 x 0.4 x 0.3
    expected = difference(Share(0.4, *wilson(40, 100), 40, 100), Share(0.3, *wilson(30, 100), 30, 100))
    assert (found.value, found.low, found.high) == pytest.approx((expected.value, expected.low, expected.high))


def test_agreement_narrows_and_disagreement_widens_it() -> None:
    wide, narrow = paired_difference(outcomes(30, 20, 20, 30)), paired_difference(outcomes(48, 2, 2, 48))
    assert narrow.high - narrow.low < 0.6 * (wide.high - wide.low)
    swapped = paired_difference([(b, a) for a, b in outcomes(30, 5, 20, 45)])
    straight = paired_difference(outcomes(30, 5, 20, 45))
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-straight.value, -straight.high, -straight.low))


def test_it_covers_the_true_difference_as_often_as_it_says() -> None:
    rng, covered, tries = random.Random(7), 0, 2_000
    for _ in range(tries):
        found = paired_difference(
            [(u < 0.3, u < 0.35 or rng.random() < 0.2) for u in (rng.random() for _ in range(60))]
        )
        covered += found.low <= 0.35 + 0.65 * 0.2 - 0.3 <= found.high
    assert 0.93 < covered / tries < 0.985


def test_mcnemars_test_is_the_two_sided_binomial() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(3, 7) == pytest.approx(2 * (1 + 10 + 45 + 120) / 1024)


def test_a_run_without_arms_is_compared_with_its_base_model(smoke: FinishedRun) -> None:
    (group,) = evidence_of(find_run(smoke.runs_dir)).groups
    assert [(rate.arm, rate.model, rate.share.n) for rate in group.rates] == [
        ("", m, 120) for m in ("base", "dpo", "sft")
    ]
    base, *trained = group.rates
    assert base.against is None and all(rate.against and rate.against.n == 120 for rate in trained)


def answers_of(folder: Path, **hits: list[bool]) -> Path:
    """A stage's folder with verdicts on as many prompts."""
    folder.mkdir()
    rows = [
        {"model": model, "prompt": f"Why {at}?", "in_character": hit}
        for model, each in hits.items()
        for at, hit in enumerate(each)
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def a_run(folder: Path, **arms: dict[str, list[bool]]) -> Any:
    """A run of these arms."""
    axes = {"characters": [{"id": "p"}], "models": [{"id": "m"}], "scales": [{"name": "s"}]}
    output: Any = SimpleNamespace()
    cells = [
        CellView(
            f"p-m-s-{arm}", (StageView("e", "e", DONE, answers_of(folder / arm, **h), outputs={"evaluation": output}),)
        )
        for arm, h in arms.items()
    ]
    return SimpleNamespace(id="r/1", spec={**axes, "arms": [{"name": arm} for arm in arms]}, cells=cells)


def test_each_difference_says_what_it_is_to_and_has_mcnemars_p(tmp_path: Path) -> None:
    no, yes = [False] * 20, [True] * 20
    run = a_run(
        tmp_path, full={"base": no, "dpo": [True] * 6 + [False] * 14, "sft": yes}, short={"base": no, "dpo": no}
    )
    found = evidence_of(run)
    told = {(rate["arm"], rate["model"]): rate for rate in found.to_dict()["groups"][0]["rates"]}
    assert {key: rate["to"] for key, rate in told.items()} == {
        ("full", "base"): "",
        ("full", "dpo"): "full, base",
        ("full", "sft"): "full, base",
        ("short", "base"): "",
        ("short", "dpo"): "full, sft",
    }
    assert told["full", "dpo"]["against"]["p"] == pytest.approx(2 / 64)
    assert told["short", "dpo"]["against"]["p"] == pytest.approx(2 / 2**20)
    lines = evidence_lines(found, 80)
    title = " ".join(lines[: lines.index("arm, model")])
    assert "of an arm's final model to full's final one (sft), and of full itself to its base model" in " ".join(
        title.split()
    )
    shown = {name: figures.split() for name, figures in pairwise(lines)}
    assert shown["full, dpo (to full, base)"][-2:] == ["0.031", "20"]
    assert shown["short, dpo (to full, sft)"][-2:] == ["<0.001", "20"]
    assert shown["arm, model"][-2:] == ["p", "n"] and shown["full, base"][-2:] == ["-", "-"]
    assert max(map(len, lines)) <= 80


# -- other measurements over arms and seeds ---------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 5), (3, 10), (50, 100), (99, 100), (1000, 1000), (2500, 10_000)])
def test_an_interval_is_worth_the_answers_that_it_was_made_of(k: int, n: int) -> None:
    assert worth(k / n, *wilson(k, n)) == pytest.approx(n, rel=1e-3)


def cell(arm: str, seed: int, tables: list[dict[str, Any]], **folders: str) -> Any:
    """A cell as a run's folder shows it."""
    made = [StageView(id, id, DONE, Path(name)) for id, name in folders.items()]
    for at, table in enumerate(tables):
        output: Any = SimpleNamespace(read=lambda table=table: [table])
        made.append(StageView(f"held{at or ''}", "held", DONE, outputs={"measurements": output}))
    return SimpleNamespace(arm=arm, seed=seed), CellView(f"{arm}-{seed}", tuple(made))


def held(tells: bool = True, **hits: list[bool]) -> dict[str, Any]:
    """A table; of each model two answers to each question."""
    rows = [rate(each, [str(i // 2) for i in range(len(each))], model=model) for model, each in hits.items()]
    return {"name": "held", "title": "Held", "labels": ["model"], "rows": rows, "tells": tells}


def test_a_measurement_is_pooled_over_seeds_with_the_worth_of_its_answers() -> None:
    alike, apart = [True, True, False, False] * 10, [True, False] * 20
    members = [
        cell("full", 6, [held(tells=False)], sft="z"),  # whose columns are none
        cell("full", 7, [held(base=apart, sft=alike)], sft="a"),
        cell("full", 8, [held(base=apart, sft=alike)], sft="b"),
        cell("dpo-only", 7, [held(base=apart, dpo=[True] * 40)], dpo="c"),
        cell("dpo-only", 8, [held(base=apart, dpo=[True] * 40)], dpo="d"),
    ]
    (table,) = pooled_tables(members, "full")
    base, sft, again, dpo = table.rates
    assert (sft.share.hits, sft.share.n, dict(sft.by_seed)) == (40, 80, {"7": 0.5, "8": 0.5})
    # Two answers to a question that are alike are worth one, less a degree of freedom for each seed's 20 questions.
    assert (sft.share.low, sft.share.high) == pytest.approx(wilson(19, 38), abs=1e-3)
    each = 80 / (1 + 1 / 21)  # none is further from the others than chance has it, of two answers to a question
    assert (base.share.low, base.share.high) == pytest.approx(wilson(each / 2, each), abs=1e-3)
    assert (again.arm, again.repeats, base.repeats) == ("dpo-only", "full", "")
    assert (
        dpo.repeats == ""
        and dpo.to == "full, sft"
        and dpo.against is not None
        and dpo.against.value == pytest.approx(0.5)
    )  # finals compared
    assert base.against is None and table.untold == {"full-6": "the scorer cannot tell the character"}


def test_what_arms_measured_otherwise_is_not_taken_for_a_shared_model_nor_one_item_for_another() -> None:
    members = [
        cell("a", 7, [held(base=[False] * 10, other=[True] * 10, sft=[True] * 10), held(sft=[False] * 10)], sft="x"),
        cell("b", 7, [held(base=[False] * 10, other=[False] * 10, sft=[True] * 10)], sft="y"),
    ]
    table, control = pooled_tables(members, "a")
    assert (table.name, control.name) == ("held", "held1") and control.rates[0].share.hits == 0
    shown = {(rate.arm, rate.labels[0]): rate.repeats for rate in table.rates}
    assert shown["b", "base"] == "a" and shown["b", "other"] == "" and shown["b", "sft"] == ""


def test_two_items_of_one_stage_are_two_tables_in_a_comparison_too() -> None:
    (_, a), (_, b) = (
        cell("a", seed, [held(sft=[True] * 4), held(sft=[hit] * 4)]) for seed, hit in ((1, True), (2, False))
    )
    pair: Any = SimpleNamespace(a=a, b=b)
    tables = {table.name: table.rates[0] for table in tables_of(pair)}
    assert set(tables) == {"held", "held1"}
    changes = {name: rates.difference.value for name, rates in tables.items() if rates.difference}
    assert changes == {"held": 0.0, "held1": -1.0}


def test_a_run_tells_which_measurements_it_has(smoke: FinishedRun) -> None:
    outcome = charrun("evidence", "--runs-dir", smoke.runs_dir, "--measurement", "robustness")
    assert outcome.code == 2 and "has none of that name" in outcome.err, outcome.text
    (group,) = json.loads(charrun("evidence", "--runs-dir", smoke.runs_dir, "--json").out)["groups"]
    assert group["measurements"] == [] and [rate["repeats"] for rate in group["rates"]] == ["", "", ""]
