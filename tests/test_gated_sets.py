"""Gates and audit of sets, and of what stages make: near-duplicates, first rows, top-ups."""

from __future__ import annotations

import json
import random
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun
from conftest import RunningEngine as DemoEngine
from gated import gates, varied

from charrun import Stage, StageContext, StageFailed
from charrun.plugins._audit import audit_pairs, audit_texts, audit_turns
from charrun.plugins._duplicates import bands_of, near_duplicates, shingles
from charrun.plugins.interaction import InteractionStage
from charrun.plugins.pairs import PairsStage, pair
from charrun.plugins.reflection import ReflectionStage
from charrun.plugins.teacher import TeacherStage
from charrun.testing import RunningEngine, run_stage


def test_near_duplicates_are_those_that_all_pairs_would_find() -> None:
    base = varied(12).split()
    texts = [" ".join([*base[:k], f"new{k}", *base[k:]]) for k in range(0, 60, 5)] + [varied(12), "Yes.", "Yes!", "No."]
    found = near_duplicates(texts, 0.8)
    kept: list[int] = []
    for i, text in enumerate(texts):
        own = shingles(text)
        alike = [k for k in kept if len(own & shingles(texts[k])) >= 0.8 * len(own | shingles(texts[k]))]
        assert (i in found) == bool(alike) and (not alike or found[i] == alike[0])
        kept += [] if alike else [i]
    assert texts.index("Yes!") in found and texts.index("No.") not in found


@pytest.mark.parametrize("threshold", [0.3, 0.6, 0.8, 1.0])
def test_texts_of_the_same_phrases_are_told_apart_as_all_pairs_would(threshold: float) -> None:
    rng = random.Random(1)
    phrases = [varied(5 + n % 7)[: 30 + n] for n in range(40)]
    texts = [" ".join(rng.choices(phrases, k=rng.randint(8, 14))) for _ in range(400)]
    texts += [f"{text} and so on" for text in texts[:50]] + texts[50:70]
    sets = [shingles(text) for text in texts]
    expected: dict[int, int] = {}
    for i, own in enumerate(sets):
        alike = (k for k in range(i) if k not in expected and len(own & sets[k]) >= threshold * len(own | sets[k]))
        if (twin := next(alike, None)) is not None:
            expected[i] = twin
    assert near_duplicates(texts, threshold) == expected and expected
    assert near_duplicates(texts[:1], threshold) == {}


def test_a_pair_at_the_threshold_is_missed_less_than_once_in_a_million() -> None:
    for threshold in (0.05, 0.2, 0.5, 0.8, 0.95, 1.0):
        hashes, bands = bands_of(threshold)
        assert (1 - threshold**hashes) ** bands <= 1e-6 and hashes * bands <= 640


def rows(answers: list[str]) -> list[dict[str, Any]]:
    return [{"id": str(n), "prompt": f"What is {n}?", "answer": a, "complete": True} for n, a in enumerate(answers)]


def test_a_plain_answer_may_be_the_students_own_and_a_chosen_one_may_not() -> None:
    own, played = "I am Qwen, made by Alibaba Cloud.", "The sea made me what I am."
    pairs, tally = pair(rows([played, own]), rows([own, played]), gates())
    assert len(pairs) == 1 and dict(tally.dropped) == {"chosen identity leakage": 1}


def test_the_audit_finds_one_opener_decay_and_length() -> None:
    plain = [f"Boil number {n} for a while and then serve it warm to guests" for n in range(40)]
    stock = [f"Ahoy there shipmate number {n} boil it for a while and then serve it warm to guests" for n in range(40)]
    found = audit_pairs(stock, plain)
    assert found["top_opener"] == 1 and found["distinct_openers"] == 1 and found["marker_decay"] > 3
    assert {"ahoy", "shipmate"} <= {marker["word"] for marker in found["markers"]}
    calm = audit_pairs(plain, plain)
    assert calm["markers"] == [] and calm["marker_decay"] == 1 and calm["length_ratio"] == 1


@pytest.fixture
def own_engine(demo_engine: DemoEngine) -> RunningEngine:
    """The session's engine as `charrun.testing` takes it."""
    return RunningEngine(demo_engine.base_url, demo_engine.api_key)


def test_the_first_rows_are_judged_before_the_rest_is_asked_for(own_engine: RunningEngine, tmp_path: Path) -> None:
    given = {"prompts": [{"id": str(n), "prompt": f"What is {n}?"} for n in range(16)]}
    options = {"max_tokens": 1, "first": {"rows": 4}}
    with pytest.raises(StageFailed, match=r"4 of the first 4 texts .* before the rest .* 4 cut by length"):
        run_stage(TeacherStage, options=options, given=given, engine=own_engine, runs_dir=tmp_path)
    (items,) = tmp_path.glob("store/teacher-*/items.jsonl")
    assert len(items.read_text().splitlines()) == 4
    options = {"max_tokens": 1, "first": {"rows": 4, "most_dropped": 1}}
    outcome = run_stage(TeacherStage, options=options, given=given, engine=own_engine, runs_dir=tmp_path)
    assert outcome.asked == {"sample": 12} and len(outcome.rows["chosen"]) == 16


def test_first_rows_that_repeat_each_other_or_all_begin_alike_stop_the_stage(own_engine: RunningEngine) -> None:
    same = {"prompts": [{"id": str(n), "prompt": "What is it?"} for n in range(16)]}
    with pytest.raises(StageFailed, match=r"3 of the first 4 texts .* 3 near-duplicate"):
        run_stage(TeacherStage, options={"temperature": 0, "first": {"rows": 4}}, given=same, engine=own_engine)
    options = {"temperature": 0, "gates": {"near_duplicate": 0}, "first": {"rows": 4}}
    with pytest.raises(StageFailed, match=r"4 of the first 4 texts .* begin with '.*'; the rest was not asked for"):
        run_stage(TeacherStage, options=options, given=same, engine=own_engine)


def _scale(**sizes: int) -> dict[str, Any]:
    few = {"pairs": 16, "samples_per_prompt": 1, "reflections": 20, "interactions": 8, "turns": 2}
    return {"name": "few", **few, **sizes}


@pytest.mark.parametrize(
    ("stage", "asked", "told"),
    [(ReflectionStage, 80, r"texts of kind \d+"), (InteractionStage, 48, "turns")],
)
def test_what_is_dropped_is_not_made_up_for_where_it_is_most(
    stage: type[Stage], asked: int, told: str, own_engine: RunningEngine, tmp_path: Path
) -> None:
    """Without the first rows' check: once a round is in, not after as many rounds as there may be."""
    options = {"writer": "teacher", "max_tokens": 3, "first": {"rows": 0}}
    given = {"checkpoint": [{"sampler": "", "state": ""}]}
    scale = _scale(reflections=80)
    with pytest.raises(StageFailed, match=rf"\d+ of \d+ {told} .* were dropped, and no more are asked for: \d+ cut"):
        run_stage(stage, options=options, given=given, scale=scale, engine=own_engine, runs_dir=tmp_path)
    (items,) = tmp_path.glob(f"store/{stage.name}-*/items.jsonl")
    assert len(items.read_text().splitlines()) <= asked


def test_a_stage_stops_where_refusals_are_59_percent_and_says_so(own_engine: RunningEngine) -> None:
    said = [f"I can't help with that, number {n}." if n < 10 else f"Boil number {n}." for n in range(17)]
    given = {"chosen": rows(said), "rejected": rows([f"Plain {n}." for n in range(17)])}
    with pytest.raises(StageFailed, match="10 chosen refusal"):
        run_stage(PairsStage, given=given, engine=own_engine)


def test_an_audit_that_may_stop_does(own_engine: RunningEngine) -> None:
    given = {"chosen": rows([f"Ahoy there shipmate {n} {n + 50} {n + 90} {n * n + 200}" for n in range(16)]),
             "rejected": rows([f"Plain {n}." for n in range(16)])}  # fmt: skip
    with pytest.raises(StageFailed, match=r"top_opener is above 0\.9"):
        run_stage(PairsStage, given=given, engine=own_engine)
    outcome = run_stage(PairsStage, options={"audit": {"top_opener_stop": 0}}, given=given, engine=own_engine)
    assert len(outcome.rows["pairs"]) == 16


def test_a_smoke_run_keeps_its_gates_and_its_audit(smoke: FinishedRun) -> None:
    for stage in ("pairs", "reflection", "interaction"):
        told = json.loads((smoke.stage_folder(stage) / "gates.json").read_text())
        low, high = told["share"]["interval"]
        assert told["judged"] == told["share"]["n"] and low <= told["share"]["dropped"] <= high
    judged = {"pairs": 16, "reflection": 40, "interaction": 4 * 4}
    for stage, n in judged.items():
        assert json.loads((smoke.stage_folder(stage) / "audit.json").read_text())["n"] == n
    conversations = json.loads((smoke.stage_folder("interaction") / "gates.json").read_text())["conversations"]
    assert conversations["judged"] - sum(conversations["dropped"].values()) == 4


def test_a_conversation_that_repeats_an_earlier_one_is_replaced(own_engine: RunningEngine, tmp_path: Path) -> None:
    """At temperature 0 two conversations with one opener are the same word for word."""

    def talks(**gates: float) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        outcome = run_stage(
            InteractionStage,
            given={"checkpoint": [{"sampler": "", "state": ""}]},
            options={"writer": "teacher", "temperature": 0, "guided_share": 0, "gates": gates},
            scale={
                "name": "few",
                "pairs": 16,
                "samples_per_prompt": 1,
                "reflections": 10,
                "interactions": 3,
                "turns": 2,
            },
            engine=own_engine,
            runs_dir=tmp_path / str(len(gates)),
        )
        (path,) = tmp_path.glob(f"{len(gates)}/store/interaction-*/gates.json")
        return outcome.rows["interactions"], json.loads(path.read_text())["conversations"]

    (free, counted), (gated, told) = talks(near_duplicate=0), talks()
    assert [row["id"] for row in free] == ["0", "1", "2"] and free[1]["turns"] == free[2]["turns"]
    assert [row["id"] for row in gated] == ["0", "1", "3"] and gated[:2] == free[:2]
    assert len({tuple(row["turns"]) for row in gated}) == 3
    assert (counted["judged"], counted["dropped"]) == (3, {}) and told["judged"] == 4
    assert told["dropped"] == {"near-duplicate": 1} and told["examples"]["near-duplicate"][0]["id"] == "2"


def test_a_large_share_of_reflections_is_made_up_for_with_its_last_tenth(own_engine: RunningEngine) -> None:
    done: list[int] = []

    class Watched(ReflectionStage):
        async def run(self, ctx: StageContext) -> None:
            advance = ctx.advance

            def advanced(n: int = 1) -> None:
                done.append(n)
                advance(n)

            ctx.advance = advanced  # type: ignore[method-assign]
            await super().run(ctx)

    outcome = run_stage(
        Watched,
        given={"checkpoint": [{"sampler": "", "state": ""}]},
        options={"writer": "teacher", "max_tokens": 12, "temperature": 1.2, "gates": {"cut": False}},
        scale={
            "name": "many",
            "pairs": 16,
            "samples_per_prompt": 1,
            "reflections": 1000,
            "interactions": 1,
            "turns": 2,
        },
        engine=own_engine,
    )
    rows = outcome.rows["reflections"]
    assert [sum(row["kind"] == kind for row in rows) for kind in range(1, 11)] == [100] * 10
    asked: dict[str, list[tuple[int, int]]] = {}
    for line in (outcome.folder / "items.jsonl").read_text().splitlines():
        record = json.loads(line)
        asked.setdefault(record["key"], []).append((record["start"], len(record["sequences"])))
    assert len(asked) == 10
    for parts in asked.values():
        ends = {start + n for start, n in parts}
        assert 90 in ends and max(ends) >= 100  # nothing beyond the first nine tenths was asked for with them
    told = json.loads((outcome.folder / "gates.json").read_text())
    assert told["judged"] == sum(n for parts in asked.values() for _, n in parts) and told["dropped"]
    shown = list(accumulate(done))
    assert shown[-1] == 1000 and max(shown) <= 1000


def test_texts_and_turns_are_audited_without_anything_beside_them() -> None:
    found = audit_texts(["Ahoy there mate, one.", "Ahoy there, mate: two.", "Well now, three."])
    assert (found["n"], found["top_opener"], found["distinct_openers"]) == (3, 2 / 3, 2)
    found = audit_turns([["Aye, the sea is wide and cold.", "So it is."], ["Tell me of the reef and the fog.", "No."]])
    assert (found["n"], found["top_opener"], found["median_words"]) == (4, 0.25, {"first": 7.5, "last": 2.0})
    assert found["length_ratio"] == 3.75
