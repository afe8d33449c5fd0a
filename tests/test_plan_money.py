"""What a plan says of money: tokens of each stage, what they are known from, caps, and budgets that are too small."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, charrun
from rich.console import Console
from run_copies import caller

from charrun.commands.money import require_enough
from charrun.errors import BudgetReached
from charrun.pipeline.foresight import Forecast, Foresight
from charrun.pipeline.plan import PlannedCell, PlannedStage, priced
from charrun.report.plan import Money, money_lines, plan_document, print_plan, total
from charrun.service.models import hub_name
from charrun.spec.prices import Rates, own_rates
from charrun.usage import Usage

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import money as bench
from service_sim.process import Running, simulated

STAGES = "[prompts, teacher, student, pairs, {uses: dpo, with: {monitor: {stop: false}}}]"
RATES = own_rates({"prefill": 1, "sample": 2, "train": 3})
Plan = Callable[..., str]
GUESSED = "answers of 1/32 of max_tokens to all of it"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulated(tmp_path_factory.mktemp("service"), bench.models(), tokens=40) as running:
        yield running


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return bench.spec_at(tmp_path, bench.TINY, stages=STAGES)


def capped(spec: Path, usd: float, **caps: float) -> None:
    spec.write_text(spec.read_text() + f"budget: {json.dumps({'usd': usd, 'stages': caps})}\n")


@pytest.fixture
def plan(spec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Plan:
    """What a plan of the spec says, in this process."""
    call = caller(capsys, monkeypatch)

    def planned(*words: str, code: int = 0) -> str:
        outcome = call("plan", spec, "--runs-dir", spec.parent / "runs", *words)
        assert outcome.code == code, outcome.text
        return outcome.out

    return planned


def document(plan: Plan, *words: str) -> Any:
    return json.loads(plan(*words, "--json"))


# -- budgets that are too small -----------------------------------------------------------------------------------


def test_a_stage_whose_low_end_is_above_its_cap_is_told_before_anything_is_paid(
    service: Running, spec: Path, tmp_path: Path
) -> None:
    capped(spec, 3, dpo=0.0001)
    runs, before = tmp_path / "runs", service.bill()
    refused = charrun(spec, "--runs-dir", runs, "--yes", env=service.environment)
    assert refused.code == 6 and bench.same(bench.settled(service), before), refused.text
    assert re.search(r"dpo will cost \$0\.\d+ to \$0\.\d+, and the cap of that stage is \$0\.00010*:", refused.err)
    assert "nothing was begun" in refused.err and "the run will cost" not in refused.err
    assert re.search(r"--set budget\.stages\.dpo=0\.\d{4}, or add --partial", refused.err)


@pytest.mark.slow
def test_a_run_with_partial_spends_up_to_a_cap_and_goes_on_under_a_higher_one(
    service: Running, spec: Path, tmp_path: Path
) -> None:
    capped(spec, 3, dpo=0.0001)
    runs, before = tmp_path / "runs", service.bill()
    begun = charrun(spec, "--runs-dir", runs, "--yes", "--partial", env=service.environment)
    assert begun.code == 6 and "the budget of dpo is reached" in begun.err
    assert not bench.same(bench.settled(service), before)
    done = charrun(spec, "--runs-dir", runs, "--yes", "--set", "budget.stages.dpo=0.1", env=service.environment)
    assert done.code == 0, done.text


def test_a_plan_shows_caps_beside_costs_and_says_which_are_too_small(spec: Path, plan: Plan) -> None:
    capped(spec, 3, dpo=0.0001, teacher=0.005, student=2)
    told = plan("--plain")
    assert re.search(r"^  dpo: .*\$0\.\d{4}-0\.\d{4} of at most \$0\.00010*$", told, re.MULTILINE)
    of_that = r"of that dpo at most \$0\.00010*, teacher at most \$0\.0050, student at most \$2\.00\."
    assert re.search(rf"Its budget is \$3\.00, which it never exceeds; {of_that}", told)
    stops = r"a run stops with exit code 6 before it begins, unless --partial\."
    needs = r"The high end needs --set budget\.stages\.dpo=0\.\d{4}\."
    assert re.search(rf"^The cap of dpo, \$0\.00010*, is below the low end of .*: {stops} {needs}$", told, re.MULTILINE)
    assert re.search(r"^The cap of teacher, \$0\.0050, is below the high end .*: a run may stop", told, re.MULTILINE)
    assert "The cap of student" not in told and "The budget is below" not in told
    found = document(plan)
    caps = {stage["id"]: stage["cap_usd"] for stage in found["cells"][0]["stages"]}
    assert caps == {"prompts": None, "teacher": 0.005, "student": 2, "pairs": None, "dpo": 0.0001}
    assert [(each["stage"], each["low_end_fits"], each["high_end_fits"]) for each in found["limits"]] == [
        (None, True, True), ("dpo", False, False), ("teacher", True, False), ("student", True, True),
    ]  # fmt: skip
    assert len(found["warnings"]) == 1 and found["warnings"][0] in told
    table = plan()
    assert re.search(r"^  stage .* dollars +cap  why", table, re.MULTILINE)
    assert re.search(r"^  student .* 2\.00  after", table, re.MULTILINE)


def test_a_plan_says_that_its_low_end_is_above_the_budget_and_what_the_high_end_needs(plan: Plan) -> None:
    told = plan("--budget", "0.0001")
    low, high = re.findall(r"^It will cost \$(\S+) to \$(\S+)\.$", told, re.MULTILINE)[0]
    stops = "a run stops with exit code 6 before it begins, unless --partial."
    (needed,) = re.findall(
        rf"The budget is below the low end of \${low} to \${high}: {stops} The high end needs --budget (\S+)\.\n", told
    )
    assert 0 <= float(needed) - float(high) < 0.0002
    enough = plan("--budget", needed, "--exit-code", code=10)
    assert "is below the" not in enough
    between = plan("--budget", f"{(float(low) + float(high)) / 2:.4f}", "--exit-code", code=10)
    assert "The budget is below the high end" in between and "a run may stop on its way" in between
    plan("--budget", "0.0001", "--exit-code", code=10)
    assert document(plan, "--budget", "0.0001")["warnings"][0] in told


# -- tokens, and what they are known from --------------------------------------------------------------------------


def test_a_plan_tells_the_tokens_of_each_stage_in_80_columns(plan: Plan) -> None:
    told = plan()
    lines = told.splitlines()
    heading = next(line for line in lines if line.startswith("  tokens "))
    assert heading.split() == ["tokens", "calls", "prompt", "cached", "sampled", "forward", "trained"]
    table = lines[lines.index(heading) :][:4]
    assert [line.split()[0] for line in table[1:]] == ["teacher", "student", "dpo"]
    assert all(len(line) <= 80 for line in table)
    assert re.fullmatch(r"  teacher +6 +3\.\dk +1\.\dk-3\.\dk +192-6\.2k", table[1])
    assert re.fullmatch(r"  dpo +24 +1\.\dk-13k +0-\d+ +24 +6\.\dk-61k +1\.\dk-13k", table[3])
    assert f"  teacher, student: {GUESSED}\n" in told and f"  dpo: rows of teacher, student: {GUESSED}\n" in told
    assert re.search(r"3\.\dk prompt tokens, .* of them cached, 192-6\.2k sampled, \$0", plan("--plain"))
    found = {stage["id"]: stage for stage in document(plan)["cells"][0]["stages"]}
    assert found["dpo"]["basis"] == f"rows of teacher, student: {GUESSED}" and "sources" not in found["dpo"]
    assert "how large they get is not known before the first" in told
    steps = [
        found[id][end][model]["steps"]
        for id in ("student", "dpo")
        for end in ("low", "high")
        for model in found[id][end]
    ]
    assert steps == [0, 0, 1, 1]


def test_a_training_rests_on_rows_that_are_counted_or_on_the_lengths_of_their_answers() -> None:
    used = {"model": Usage(trained_tokens=5)}
    stages = {
        ("cell", "sft"): Forecast(used, used, ()),
        ("other", "talks"): Forecast(used, used, ("8 answers", "a probe")),
    }
    cell = PlannedCell(
        "cell",
        (
            PlannedStage("pairs", "done", "in the store"),
            PlannedStage("talks", "shared", "with other"),
            PlannedStage("sorted", "to do", "after talks", sources=("talks",)),
            PlannedStage("sft", "to do", "after sorted", sources=("pairs", "sorted")),
        ),
    )
    (found,) = priced([cell], foresight(stages))
    rows = ["rows of pairs: counted", "rows of talks: 8 answers", "rows of talks: a probe"]
    assert found.stages[-1].basis == "; ".join(rows)
    alone = PlannedCell("cell", (PlannedStage("sft", "to do", "never made"),))
    assert priced([alone], foresight(stages))[0].stages[0].basis == "counted"


@pytest.mark.parametrize(
    "model",
    ["Qwen/Qwen3-8B", "Qwen/Qwen3-8B:peft:131072", "meta-llama/Llama-3.1-8B-Instruct", "openai/gpt-oss-120b/high"],
)
def test_a_tokenizer_is_looked_for_where_the_sdk_has_it_from(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinker.lib.public_interfaces import sampling_client
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    asked: list[str] = []
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, **_: asked.append(name))
    (load,) = (each for name, each in vars(sampling_client).items() if name.startswith("_load_tokenizer"))
    getattr(load, "__wrapped__", load)(model, None)
    assert asked == [hub_name(model)]


def test_requests_are_those_of_the_dry_run_where_there_was_one() -> None:
    known = PlannedStage("a", "to do", "", 1, 2, high={"m": Usage(requests=5), "n": Usage(requests=1)})
    assert total([PlannedCell("c", (known, PlannedStage("b", "to do", "", 1, 2)))]).endswith("; 8 requests")


def test_many_tokens_and_long_ids_stay_within_80_columns() -> None:
    most = Usage(20_000, 9_940_000, 9_940_000, 123_456_789, 99_000_000, 98_000_000)
    stages = {("cell", id): Forecast({"model": Usage(trained_tokens=1)}, {"model": most}, ()) for id in ("a", "b" * 40)}
    cell = PlannedCell("cell", tuple(PlannedStage(id, "to do", "never made") for _, id in stages))
    out = io.StringIO()
    ahead = foresight(stages)
    print_plan(Console(file=out, width=80), None, priced([cell], ahead), False, Money(ahead, None, 0))  # type: ignore[arg-type]
    lines = out.getvalue().splitlines()
    table = lines[next(n for n, line in enumerate(lines) if line.startswith("  tokens")) :][:6]
    assert all(len(line) <= 80 for line in table) and "0-20M" in out.getvalue() and "b" * 40 in out.getvalue()


# -- prices that nobody knows --------------------------------------------------------------------------------------


def test_of_a_model_without_a_price_of_training_only_training_is_unknown(spec: Path, plan: Plan) -> None:
    spec.write_text(spec.read_text().replace(', "train": 0.36', ""))
    told = plan()
    line = "It is not known what charrun/demo-student costs to train: say it under `prices` in the spec, as `train`."
    rest = re.search(r"^The rest will cost \$(\S+) to \$(\S+)\.$", told, re.MULTILINE)
    assert line in told and rest
    found = document(plan)
    assert found["usd"] is None and line in found["warnings"]
    assert found["unpriced"] == [{"model": "charrun/demo-student", "unknown": "train"}]
    assert found["known_usd"] == [pytest.approx(float(each), abs=1e-4) for each in rest.groups()]
    usd = {stage["id"]: stage["usd"] for stage in found["cells"][0]["stages"]}
    assert usd["dpo"] is None and usd["teacher"][1] > 0 and usd["student"][1] > 0
    until = document(plan, "--until", "pairs")
    assert until["usd"] == until["known_usd"] and not until["unpriced"] and not until["warnings"]


def test_a_price_that_nobody_knows_is_told_in_json_too() -> None:
    used = {"model": Usage(sampled_tokens=1_000_000), "other": Usage(sampled_tokens=1_000_000)}
    ahead = foresight({("cell", "talks"): Forecast(used, used, ())}, {"model": RATES, "other": None})
    found = plan_document([], Money(ahead, None, 0))
    assert found["usd"] is None and found["known_usd"] == [2, 2]
    assert found["unpriced"] == [{"model": "other", "unknown": "all"}]
    assert found["warnings"] == ["It is not known what other costs: say it under `prices` in the spec."]
    assert money_lines(Money(ahead, None, 0))[:2] == [*found["warnings"], "The rest will cost $2.0000 to $2.0000."]


# -- what was spent ------------------------------------------------------------------------------------------------


def test_a_cap_counts_what_its_stage_has_spent_and_costs_in_all_cells() -> None:
    used = {"model": Usage(sampled_tokens=1_000_000)}  # two dollars
    stages = {("one", "talks"): Forecast(used, used, ()), ("two", "talks"): Forecast(used, used, ())}
    ahead, spent = foresight(stages), {"talks": 10**12}
    require_enough(Money(ahead, 5, 10**12, {"talks": 5}, spent), partial=False)
    short = Money(ahead, 4.99, 10**12, {"talks": 4.5}, spent)
    require_enough(short, partial=True)
    require_enough(None, partial=False)
    with pytest.raises(BudgetReached) as told:
        require_enough(short, partial=False)
    assert told.value.message == (
        "the run will cost $4.0000 to $4.0000, beside $1.0000 that are spent, and its budget is $4.99; "
        "talks will cost $4.0000 to $4.0000, beside $1.0000 that are spent, and the cap of that stage is $4.50: "
        "nothing was begun"
    )
    assert "with --budget 5.0000 and --set budget.stages.talks=5.0000, or add --partial" in told.value.hint


def test_a_plan_tells_what_is_held_from_what_is_spent_and_of_a_budget_that_is_exceeded_by_how_much() -> None:
    used = {"model": Usage(sampled_tokens=1_000_000)}  # two dollars
    ahead = foresight({("cell", "talks"): Forecast(used, used, ())})
    enough, over = Money(ahead, 5, 2 * 10**12, held=10**12), Money(ahead, 1.5, 2 * 10**12, held=10**12)
    told = "beside $1.0000 that it has cost already and $1.0000 held for requests without an end."
    assert f"It will cost $2.0000 to $2.0000, {told}" in money_lines(enough)
    assert "Its budget is $5.00, which it never exceeds." in money_lines(enough)
    assert "Its budget is $1.50, it is over by $0.5000 already: nothing more is asked for." in money_lines(over)
    assert plan_document([], over)["held_usd"] == 1
    with pytest.raises(BudgetReached) as short:
        require_enough(over, partial=False)
    assert short.value.hint.endswith("`charrun cost --reconcile --settle` frees what of that is only held")


def foresight(stages: dict[tuple[str, str], Forecast], rates: dict[str, Rates | None] | None = None) -> Foresight:
    return Foresight(stages, rates or {"model": RATES}, set(), {}, {})
