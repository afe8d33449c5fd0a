"""The main job at smoke scale, through the real SDK against the real engine, as a person runs it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from conftest import SPECS, FinishedRun, charrun
from run_copies import copy_of

from charrun.store.ledger import LEDGER, read_ledger

STAGES = ("teacher", "student", "dpo", "reflection", "interaction", "sft", "evaluate")


def test_the_run_says_where_it_happens_and_with_which_stand_ins(smoke: FinishedRun) -> None:
    assert "No Tinker credentials were found" in smoke.outcome.out
    assert "charrun/demo-teacher stands in for Qwen/Qwen3-235B-A22B-Instruct-2507" in smoke.outcome.out
    assert "charrun/demo-student stands in for Qwen/Qwen3-30B-A3B" in smoke.outcome.out


def test_every_stage_makes_exactly_its_scales_rows(smoke: FinishedRun) -> None:
    assert len(smoke.rows("prompts", "prompts")) >= 16
    assert len(smoke.rows("pairs", "pairs")) == 16
    reflections = smoke.rows("reflection", "reflections")
    assert len(reflections) == 40
    assert sorted({row["kind"] for row in reflections}) == list(range(1, 11))
    interactions = smoke.rows("interaction", "interactions")
    assert [len(row["turns"]) for row in interactions] == [4] * 4
    assert sum(row["guided"] for row in interactions) == 2


def test_pairs_hold_two_different_sound_answers_to_the_same_prompt(smoke: FinishedRun) -> None:
    for row in smoke.rows("pairs", "pairs"):
        assert row["chosen"] and row["rejected"] and row["chosen"] != row["rejected"]


def test_training_rows_end_on_an_assistant_turn_under_a_note_without_traits(smoke: FinishedRun) -> None:
    for row in smoke.rows("interaction", "interactions"):
        assert row["messages"][-1] == {"role": "assistant", "content": row["turns"][-1]}
        assert len(row["messages"][0]["content"]) < 100
        assert row["opener"] not in row["turns"]


def test_the_invariants_of_step_zero_were_checked_and_held(smoke: FinishedRun) -> None:
    checks = {(e["stage"], e["name"]): e for e in smoke.events if e["event"] == "check"}
    assert set(checks) == {
        ("dpo", "largest policy-reference log-prob gap"),
        ("dpo", "DPO loss at step 0 minus ln 2"),
        ("dpo", "mean margin at step 0"),
        ("dpo", "largest sampler-trainer log-prob gap"),
        ("sft", "largest sampler-trainer log-prob gap"),
    }
    assert all(check["holds"] for check in checks.values())
    assert checks["dpo", "largest policy-reference log-prob gap"]["limit"] == 1e-4
    assert checks["dpo", "DPO loss at step 0 minus ln 2"]["limit"] == 1e-4


def test_the_first_steps_loss_is_ln_2_plus_the_nll_term(smoke: FinishedRun) -> None:
    first = json.loads((smoke.stage_folder("dpo") / "steps.jsonl").read_text().splitlines()[0])
    assert first["dpo_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["loss"] == pytest.approx(first["dpo_loss"] + 0.1 * first["chosen_nll"], rel=1e-5)


def test_the_evaluation_uses_prompts_that_no_training_row_used(smoke: FinishedRun) -> None:
    answers = [json.loads(line) for line in (smoke.stage_folder("evaluate") / "answers.jsonl").read_text().splitlines()]
    tested = {row["prompt"].casefold() for row in answers}
    trained = {row["prompt"].casefold() for row in smoke.rows("pairs", "pairs")}
    trained |= {row["prompt"].casefold() for row in smoke.rows("reflection", "reflections")}
    assert len(tested) >= 100 and not tested & trained
    (evaluation,) = smoke.rows("evaluate", "evaluation")
    assert [rate["model"] for rate in evaluation["rates"]] == ["base", "dpo", "sft"]
    assert all(rate["n"] == len(tested) for rate in evaluation["rates"])


def test_the_summary_shows_counts_emergence_samples_and_paths(smoke: FinishedRun) -> None:
    for expected in ("16 pairs", "40 reflections", "4 interactions", "base", "after dpo", "after sft", "before:"):
        assert expected in smoke.outcome.out
    (adapter,) = smoke.rows("export", "adapter")
    assert str(smoke.runs_dir / adapter["folder"]) in smoke.outcome.out
    assert "Final checkpoint: tinker://" in smoke.outcome.out


def test_the_report_fills_in_what_was_generated_how_fast_and_at_what_cost(smoke: FinishedRun) -> None:
    text = (smoke.folder / "report.md").read_text()
    parts = dict(re.findall(r"^## (.*)\n\n((?:.*\n)*?)(?=## |\Z)", text, re.MULTILINE))
    assert list(parts) == [
        "Configuration", "Scale", "Generation and training", "Throughput", "Cost", "Observations",
    ]  # fmt: skip
    assert "| teacher | charrun/demo-teacher for Qwen/Qwen3-235B-A22B-Instruct-2507 |" in parts["Configuration"]
    assert "| dpo | learning_rate: 0.005 |" in parts["Configuration"] and "{'" not in parts["Configuration"]
    assert "| smoke | 16 | 1 | 40 | 4 x 4 |" in parts["Scale"]
    assert "| reflection | 40 reflections |" in parts["Generation and training"]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in parts["Throughput"].splitlines()]
    speeds = {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in rows if row[0] in STAGES}
    assert set(speeds) == set(STAGES)
    for requests, speed, flying, median, slowest, waited in speeds.values():
        assert speed > 0 and 0 < median <= slowest and waited >= 0 and 0 < flying <= requests
    totals = read_ledger(smoke.folder / LEDGER).all()
    assert f"| all | {totals.requests:,} | {totals.prefill_tokens:,} | {totals.cached_tokens:,} |" in parts["Cost"]
    assert "Nothing is paid for on this engine." in parts["Cost"]
    assert "In character (pirate)" in parts["Observations"] and parts["Observations"].count("| holds |") == 5


def test_a_finished_run_answers_from_its_store_without_an_engine(smoke: FinishedRun, tmp_path: Path) -> None:
    runs = copy_of(smoke, tmp_path)
    log = runs / "pirate-smoke" / "1" / "engine.log"
    before = log.stat().st_mtime_ns
    again = charrun(SPECS / "pirate-smoke.yaml", "--runs-dir", runs)
    assert again.code == 0
    assert again.out.count("already done") == 10
    assert log.stat().st_mtime_ns == before
    assert not (runs / "pirate-smoke" / "2").exists()


def test_rows_are_plain_json_lines_of_one_schema(smoke: FinishedRun) -> None:
    for path in (smoke.runs_dir / "store").rglob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len({tuple(sorted(row)) for row in rows}) <= 1, path


def test_a_damaged_artifact_is_made_again_from_the_recorded_samples(smoke: FinishedRun, tmp_path: Path) -> None:
    runs = copy_of(smoke, tmp_path)
    (path,) = (runs / smoke.stage_folder("pairs").relative_to(smoke.runs_dir)).glob("pairs-*.jsonl")
    whole = path.read_text()
    path.write_text(whole.replace('"prompt":"', '"prompt":"x', 1))
    again = charrun(SPECS / "pirate-smoke.yaml", "--runs-dir", runs)
    assert again.code == 0, again.text
    assert "damaged" in again.out
    assert path.read_text() == whole


def test_the_exported_adapter_gives_the_engines_log_probs_in_peft(smoke: FinishedRun, tmp_path: Path) -> None:
    import tinker
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from charrun.chat import Chat, load_tokenizer, user
    from charrun.demo import MODELS
    from charrun.engine.process import EngineProcess

    folder = MODELS["charrun/demo-student"]
    chat = Chat(load_tokenizer(folder), {"enable_thinking": False})
    (adapter,) = smoke.rows("export", "adapter")
    (checkpoint,) = smoke.rows("sft", "checkpoint")
    tokens = [*chat.prompt([user("How do I start a herb garden?")]), *chat.completion("Start small, and water it.")]
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), str(smoke.runs_dir / adapter["folder"])
    )
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0, :-1]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
    models = {"charrun/demo-student": folder}
    with EngineProcess.start(models, smoke.runs_dir / "engine", log=tmp_path / "log") as engine:
        client = tinker.ServiceClient(base_url=engine.base_url, api_key=engine.api_key)
        sampler = client.create_sampling_client(model_path=checkpoint["sampler"]).result()
        found = sampler.compute_logprobs(tinker.types.ModelInput.from_ints(tokens)).result()
    assert torch.tensor(found[1:]).sub(expected).abs().max().item() < 1e-4


def test_the_card_names_character_models_rows_evaluation_and_versions(smoke: FinishedRun) -> None:
    (adapter,) = smoke.rows("export", "adapter")
    card = (smoke.runs_dir / adapter["folder"] / "README.md").read_text()
    for expected in ("charrun/demo-teacher", "16 pairs", "40 reflections", "AUC", "tinker 0.38", "scale alpha/rank"):
        assert expected in card


def test_the_card_says_where_a_constitution_comes_from_and_under_which_licence(smoke: FinishedRun) -> None:
    from charrun.plugins.export import _card

    (adapter,) = smoke.rows("export", "adapter")
    facts = json.loads((smoke.runs_dir / adapter["folder"] / "charrun.json").read_text())
    assert "licence of the constitution" not in _card(facts)
    facts["character"] |= {"licence": "Apache-2.0", "source": "https://example.org/poet.yaml"}
    assert "Taken from https://example.org/poet.yaml; licence of the constitution: Apache-2.0." in _card(facts)
    facts["character"] |= {"licence": ""}
    assert "licence of the constitution: not known." in _card(facts)
