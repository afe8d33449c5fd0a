"""`charrun diff`: two runs side by side, and whether the second did better."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from run_copies import (
    WIDTH,
    Call,
    caller,
    copy_of,
    edit_json,
    events_of,
    publish_instead,
    replace_text,
    write_events,
)

from charrun.report.compare_spec import changes
from charrun.report.intervals import Share, difference
from charrun.statistics import paired_difference, wilson
from charrun.store.runs import find_run

A, B = "pirate-smoke/1", "pirate-smoke/2"


@pytest.fixture
def diff(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """`charrun diff`."""
    return partial(caller(capsys, monkeypatch), "diff")


@pytest.fixture
def home(smoke: FinishedRun, tmp_path: Path) -> Path:
    """A copy of the finished run, and beside it its twin, whose store folders are its own and may be changed."""
    home = copy_of(smoke, tmp_path)
    twin = Path(shutil.copytree(home / "pirate-smoke" / "1", home / "pirate-smoke" / "2"))
    for folder in list((home / "store").iterdir()):
        shutil.copytree(folder, folder.with_name(f"{folder.name}-b"))
        for name in ("journal.jsonl", "run.json", *(path.name for path in twin.glob("cell-*.json"))):
            replace_text(twin / name, (f'{folder.name}"', f'{folder.name}-b"'))
    return home


def change_rows(home: Path, id: str, kind: str, change: Callable[[list[Any]], Iterable[Any]]) -> None:
    """Pretend that B's stage published other rows."""
    run = find_run(home, B)
    stage = next(stage for stage in run.cells[0].stages if stage.id == id)
    publish_instead(run, id, kind, list(change(stage.outputs[kind].read() or [])))


def rename_cell(run: Path, name: str) -> None:
    (cell,) = run.glob("cell-*.json")
    old = cell.stem.removeprefix("cell-")
    cell.rename(run / f"cell-{name}.json")
    for path in (run / "journal.jsonl", run / "run.json", run / f"cell-{name}.json"):
        replace_text(path, (f'"{old}"', f'"{name}"'))


def rates(hits: dict[str, int], n: int = 120) -> Callable[[list[Any]], list[Any]]:
    """An evaluation with these answers in character."""

    def change(rows: list[Any]) -> list[Any]:
        told = []
        for model, count in hits.items():
            low, high = wilson(count, n)
            told.append({"model": model, "in_character": count, "n": n, "low": low, "high": high})
        return [{**rows[0], "tells": True, "rates": told}]

    return change


def document(diff: Call, home: Path) -> dict[str, Any]:
    shown = diff(A, B, "--runs-dir", home, "--json")
    assert shown.code == 0, shown.err
    found: dict[str, Any] = json.loads(shown.out)
    return found


# -- the interval -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "m", "b", "n", "low", "high"),
    [
        # The examples of Newcombe (1998), table II, method 10; the digits are statsmodels 0.14's, method 'newcomb'.
        (56, 70, 48, 80, 0.05243147240236498, 0.33387265403690614),
        (9, 10, 3, 10, 0.1705227239345029, 0.809017973535488),
        (6, 7, 2, 7, 0.05822792748231209, 0.8062496375242278),
        (5, 56, 0, 29, -0.038137147903536936, 0.19256001385511165),
        (0, 10, 0, 20, -0.1611251580528194, 0.27753279986288926),
        (0, 10, 0, 10, -0.27753279986288926, 0.27753279986288926),
        (10, 10, 0, 20, 0.6790860371419145, 1.0),
        (10, 10, 0, 10, 0.6075093504305241, 1.0),
    ],
)
def test_the_interval_is_newcombes(a: int, m: int, b: int, n: int, low: float, high: float) -> None:
    first, second = (Share(hits / of, *wilson(hits, of), hits, of) for hits, of in ((a, m), (b, n)))
    forward, back = difference(second, first), difference(first, second)
    assert (forward.low, forward.high) == pytest.approx((low, high), abs=1e-9)
    assert (back.low, back.high) == pytest.approx((-high, -low), abs=1e-9)
    assert forward.value == pytest.approx(a / m - b / n)


# -- the answer ---------------------------------------------------------------------------------------------------


def test_a_run_beside_its_equal_differs_in_nothing(home: Path, diff: Call) -> None:
    found = document(diff, home)
    assert found["spec"] == found["versions"] == found["alone"] == []
    (cell,) = found["cells"]
    assert all(rows["same"] and rows["differing"] == 0 for rows in cell["data"])
    assert found["verdict"] == "no_difference"
    shown = diff(A, B, "--runs-dir", home).out
    assert "Spec: the same" in shown and "Versions: the same: charrun" in shown
    assert "No difference is shown: B - A is +0.0 points" in shown
    told = " ".join(shown.split())
    assert "paired, p 1; all answers are the same)" in told and "word for word: base, dpo, sft." in told


def test_the_last_line_answers_whether_b_did_better(home: Path, diff: Call) -> None:
    change_rows(home, "evaluate", "evaluation", rates({"base": 1, "dpo": 30, "sft": 60}))
    found = document(diff, home)
    final = found["cells"][0]["results"]["final"]
    assert final["model"] == "sft" and final["difference"]["value"] == pytest.approx(0.5, abs=0.02)
    assert final["difference"]["low"] > 0.38 and found["verdict"] == "b_higher"
    shown = diff(A, B, "--runs-dir", home).out
    assert "Did B do better than A? Yes: B is higher by 50.0 points (95% interval" in shown
    assert "base " in shown and "50.0% (41.2–58.8)" in shown and "Newcombe's hybrid score" in shown
    back = diff(B, A, "--runs-dir", home).out
    assert "No: A is higher by 50.0 points (B - A: 95% interval" in back


def test_a_small_difference_is_no_difference(home: Path, diff: Call) -> None:
    change_rows(home, "evaluate", "evaluation", rates({"base": 1, "dpo": 1, "sft": 3}))
    assert "No difference is shown: B - A is +2.5 points (95%" in diff(A, B, "--runs-dir", home).out


def test_rates_of_different_scorers_are_not_on_one_scale(home: Path, diff: Call) -> None:
    change_rows(home, "evaluate", "evaluation", rates({"base": 1, "dpo": 30, "sft": 60}))
    (path,) = (home / "store").glob("evaluate-*-b/stage.json")
    edit_json(path, lambda stage: stage["models"]["scorer"].update(model="local:charrun/other@12"))
    shown = " ".join(diff(A, B, "--runs-dir", home).out.split())
    assert "but charrun/demo-teacher scored A and charrun/other scored B" in shown and "name one `scorer:`" in shown


def test_answers_under_other_options_or_another_constitution_are_told_beside_the_answer(home: Path, diff: Call) -> None:
    (path,) = (home / "store").glob("evaluate-*-b/stage.json")

    def change(described: dict[str, Any]) -> None:
        described["options"] |= {"max_tokens": 64, "prompts": 240}
        described["further"] = "another digest"

    edit_json(path, change)
    shown = " ".join(diff(A, B, "--runs-dir", home).out.split())
    assert "their answers were sampled with different options: max_tokens 512 | 64" in shown
    assert "the constitution of pirate, its template or the pool of questions has changed" in shown


def test_a_scorer_that_cannot_tell_gives_no_answer(home: Path, diff: Call) -> None:
    change_rows(home, "evaluate", "evaluation", lambda rows: [{**rows[0], "tells": False, "auc": 0.61, "rates": []}])
    assert document(diff, home)["verdict"] == "unknown"
    shown = " ".join(diff(A, B, "--runs-dir", home).out.split())
    assert "No answer: B's scorer cannot tell the character (AUC 0.610)." in shown


def test_a_run_without_an_evaluation_gives_no_answer(home: Path, diff: Call) -> None:
    for path in (home / "pirate-smoke" / "2").glob("*.json*"):
        path.write_text(path.read_text().replace('"evaluation"', '"essay"'))
    shown = diff(A, B, "--runs-dir", home)
    assert shown.code == 0 and "No answer: B has no evaluation." in shown.out


def test_several_cells_are_counted_in_one_sentence(home: Path, diff: Call) -> None:
    change_rows(home, "evaluate", "evaluation", rates({"base": 1, "dpo": 30, "sft": 60}))
    for number in (1, 2):
        folder = home / "pirate-smoke" / str(number)
        events = events_of(folder)
        more = [{**event, "cell": f"{event['cell']}-s8"} for event in events if "cell" in event]
        write_events(folder, [*events[:-1], *more, events[-1]])
    found = document(diff, home)
    assert found["answer"].startswith("B is higher in 2 of 2 cells, A in 0, and no difference is shown in 0")
    assert found["verdict"] == "b_higher"


def verdicts(home: Path, change: Callable[[list[Any]], Iterable[Any]]) -> None:
    """Pretend that B's evaluation told other answers, and publish the rates that they have."""
    (path,) = (home / "store").glob("evaluate-*-b/answers.jsonl")
    rows = list(change([json.loads(line) for line in path.read_text().splitlines()]))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hits = {
        model: sum(row["in_character"] for row in rows if row["model"] == model) for model in ("base", "dpo", "sft")
    }
    change_rows(home, "evaluate", "evaluation", rates(hits))


def test_answers_to_the_same_prompts_are_paired(home: Path, diff: Call) -> None:
    def change(rows: list[Any]) -> list[Any]:
        final = [row for row in rows if row["model"] == "sft"]
        for row in final[:60]:
            row.update(in_character=not row["in_character"], answer="Arr!")
        return rows

    (path,) = (home / "store").glob("evaluate-*-b/answers.jsonl")
    before = [json.loads(line) for line in path.read_text().splitlines()]
    verdicts(home, change)
    after = [json.loads(line) for line in path.read_text().splitlines()]
    expected = paired_difference(
        [(a["in_character"], b["in_character"]) for a, b in zip(before, after, strict=True) if a["model"] == "sft"]
    )
    results = document(diff, home)["cells"][0]["results"]
    assert results["final"]["paired"] == asdict(expected) and not results["final"]["same_answers"]
    assert results["final"]["difference"] == {"value": expected.value, "low": expected.low, "high": expected.high}
    assert [line["same_answers"] for line in results["rates"]] == [True, True, False]
    shown = " ".join(diff(A, B, "--runs-dir", home).out.split())
    assert "Differences: over the same prompts, Newcombe's hybrid score interval for paired samples" in shown
    assert f", paired, p {expected.p:.2g})" in shown and "for independent samples" not in shown
    assert "A and B gave the same answers, word for word: base, dpo." in shown


def test_answers_that_are_to_other_prompts_or_are_not_the_rates_own_are_independent(home: Path, diff: Call) -> None:
    def change(rows: list[Any]) -> list[Any]:
        return [{**row, "prompt": f"Well, {row['prompt']}"} if row["model"] == "sft" else row for row in rows]

    verdicts(home, change)
    results = document(diff, home)["cells"][0]["results"]
    assert [line["paired"] is None for line in results["rates"]] == [False, False, True]
    shown = " ".join(diff(A, B, "--runs-dir", home).out.split())
    assert "Differences of base, dpo: over the same prompts" in shown
    assert "Differences of sft: Newcombe's hybrid score interval (1998, method 10) for independent samples" in shown
    change_rows(home, "evaluate", "evaluation", rates({"base": 70, "dpo": 30, "sft": 60}))
    results = document(diff, home)["cells"][0]["results"]
    assert all(line["paired"] is None for line in results["rates"])


# -- spec, versions, data -----------------------------------------------------------------------------------------


def test_changed_spec_values_are_named_by_path_with_both_values(home: Path, diff: Call) -> None:
    def change(spec: Any) -> None:
        spec["models"][0]["teacher"]["name"] = "Qwen/Qwen3-235B-A22B-Instruct-2507"
        dpo = next(item for item in spec["stages"] if item["id"] == "dpo")
        dpo["with"]["beta"] = 0.2
        spec["stages"] = [{"id": "first", "uses": "prompts", "with": {}, "needs": []}, *spec["stages"]]
        spec["templates"] = {"character.j2": "same beginning " * 20 + "\x1b[31mB"}

    edit_json(home / "pirate-smoke" / "2" / "spec.json", change)
    found = {entry["path"]: (entry["a"], entry["b"]) for entry in document(diff, home)["spec"]}
    assert found["stages.dpo.with.beta"] == (0.1, 0.2)
    assert found["stages.first"][0] is None and found["stages.first"][1]["uses"] == "prompts"
    assert len(found) == 4
    shown = diff(A, B, "--runs-dir", home).out
    assert "stages.dpo.with.beta" in shown and "    B  Qwen/Qwen3-235B-A22B-Instruct-2507\n" in shown
    assert 'templates."character.j2"' in shown and "…" in shown and "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= WIDTH


def test_two_long_texts_are_cut_where_they_part(home: Path, diff: Call) -> None:
    for number, end in ((1, "a calm end"), (2, "a stormy end")):
        path = home / "pirate-smoke" / str(number) / "spec.json"
        edit_json(path, lambda spec, end=end: spec.update(templates={"character": "words " * 50 + end}))
    shown = diff(A, B, "--runs-dir", home).out
    assert "words a calm end" in shown and "words a stormy end" in shown


def test_items_of_a_list_are_matched_by_id_and_their_order_is_told() -> None:
    a = {"stages": [{"id": "x", "with": {"n": 1}}, {"id": "y"}], "seeds": [1, 2]}
    b = {"stages": [{"id": "y"}, {"id": "x", "with": {"n": 2}}], "seeds": [1, 3]}
    assert [(c.path, c.a, c.b) for c in changes(a, b)] == [
        ("stages (order)", ["x", "y"], ["y", "x"]),
        ("stages.x.with.n", 1, 2),
        ("seeds", [1, 2], [1, 3]),
    ]


def test_changed_packages_models_and_stages_are_versions(home: Path, diff: Call) -> None:
    def change(lock: Any) -> None:
        lock["versions"]["tinker"] = "0.39.0"
        student = lock["models"]["qwen3-30b-a3b"]["student"]
        student["identity"] = student["identity"].partition("@")[0] + "@0123"

    edit_json(home / "pirate-smoke" / "2" / "lock.json", change)
    (path,) = (home / "store").glob("dpo-*-b/stage.json")
    edit_json(path, lambda stage: stage.update(cache_version=99))
    found = {entry["path"]: entry["b"] for entry in document(diff, home)["versions"]}
    model = "local:charrun/demo-student@0123"
    assert found == {"tinker": "0.39.0", "models.qwen3-30b-a3b.student": model, "stage dpo": 99}


def test_rows_that_differ_are_counted_and_answers_measured(home: Path, diff: Call) -> None:
    def change(rows: list[Any]) -> list[Any]:
        return [
            {**row, "answer": "Ahoy!", "tokens": 3, "prompt": "Why?"} if i < 3 else row for i, row in enumerate(rows)
        ]

    change_rows(home, "teacher", "chosen", change)
    change_rows(home, "prompts", "prompts", lambda rows: rows[:10])
    data = {entry["kind"]: entry for entry in document(diff, home)["cells"][0]["data"]}
    assert data["chosen"]["differing"] == 3 and data["chosen"]["shared_prompts"] == 13
    assert data["chosen"]["tokens_b"] < data["chosen"]["tokens_a"]
    assert (data["prompts"]["rows_a"], data["prompts"]["differing"], data["prompts"]["same"]) == (16, 6, False)
    assert data["rejected"]["same"] and data["reflections"]["tokens_a"] is None


def test_a_checkpoint_is_the_same_where_its_fingerprint_is(home: Path, diff: Call) -> None:
    change_rows(home, "sft", "checkpoint", lambda rows: [{**rows[0], "state": "tinker://another/path"}])
    data = {(entry["stage"], entry["kind"]): entry for entry in document(diff, home)["cells"][0]["data"]}
    assert data["sft", "checkpoint"]["same"]


def test_rows_that_are_gone_are_told_as_unknown(home: Path, diff: Call) -> None:
    for path in (home / "store").glob("*-b/chosen-*.jsonl"):
        path.unlink()
    change_rows(home, "teacher", "chosen", lambda rows: [])
    for path in (home / "store").glob("*-b/chosen-*.jsonl"):
        path.unlink()
    data = {entry["kind"]: entry for entry in document(diff, home)["cells"][0]["data"]}
    assert data["chosen"]["differing"] is None and not data["chosen"]["same"]


# -- cells --------------------------------------------------------------------------------------------------------


def test_cells_of_other_students_are_matched_by_character_and_scale(home: Path, diff: Call) -> None:
    rename_cell(home / "pirate-smoke" / "2", "pirate-a-larger-student-smoke")
    shown = diff(A, B, "--runs-dir", home).out
    assert "beside B's pirate-a-larger-student-smoke" in " ".join(shown.split())
    assert document(diff, home)["cells"][0]["b"] == "pirate-a-larger-student-smoke"


def test_runs_are_named_as_everywhere_and_an_unknown_one_is_a_usage_error(home: Path, diff: Call) -> None:
    assert diff(home / "pirate-smoke" / "1", "pirate-smoke/2", "--runs-dir", home).code == 0
    shown = diff("pirate-smoke/1", "pirate-smoke/3", "--runs-dir", home)
    assert shown.code == 2 and "did you mean" in shown.err and "Traceback" not in shown.err


def test_every_line_fits_80_columns(home: Path, diff: Call) -> None:
    change_rows(home, "evaluate", "evaluation", rates({"base": 120, "dpo": 0, "sft": 60}))
    for lines in (diff(A, B, "--runs-dir", home).out.splitlines(), diff(B, A, "--runs-dir", home).out.splitlines()):
        assert max(map(len, lines)) <= WIDTH, max(lines, key=len)
