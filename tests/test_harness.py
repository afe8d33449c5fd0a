"""lm-evaluation-harness on a run's checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import FinishedRun

from charrun import CharrunError, user
from charrun.harness import Asker, cut

TASK = """
task: few_questions
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: ""
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_a_text_ends_where_the_first_of_the_stops_begins() -> None:
    assert cut("one\ntwo. three", ["\n\n", ". ", "\n"]) == "one"
    assert cut("one", ["\n", ""]) == "one" and cut("one", []) == "one"


def test_a_run_that_is_not_there_is_told_without_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(CharrunError, match="there are no runs"):
        Asker("nothing", None, None, False, tmp_path)


@pytest.fixture(scope="module")
def asker(smoke: FinishedRun) -> Iterator[Asker]:
    opened = Asker("pirate-smoke", None, "sft", False, smoke.runs_dir)
    yield opened
    opened.close()


@pytest.mark.slow
def test_log_likelihoods_are_the_engines_and_a_greedy_answer_is_greedy(asker: Asker) -> None:
    from tinker import types

    chat = asker.opened.chat
    prompt = chat.prompt([user("How do I keep going when a project drags on?")])
    text = asker.all([lambda: asker.generate(prompt, {"max_gen_toks": 24, "do_sample": False})])[0]
    greedy, other = chat.encode(text)[:12], chat.encode("Berlin is a city.")
    (mine, is_greedy), (_, is_other) = asker.all(
        [lambda: asker.loglikelihood(prompt, greedy), lambda: asker.loglikelihood(prompt, other)]
    )
    assert is_greedy and not is_other

    async def direct() -> list[float]:
        whole = types.ModelInput.from_ints([*prompt, *greedy])
        return list(await asker.opened.client.compute_logprobs(whole))[-len(greedy) :]

    (values,) = asker.all([direct])
    assert mine == pytest.approx(sum(values), abs=1e-4)
    cut_off = asker.all([lambda: asker.generate(prompt, {"max_gen_toks": 24, "do_sample": False, "until": [" "]})])
    assert cut_off == [text.split(" ")[0]]


@pytest.mark.slow
def test_a_prompt_is_kept_however_long_an_answer_may_be(asker: Asker, capsys: pytest.CaptureFixture[str]) -> None:
    longest, chat = asker.opened.longest, asker.opened.chat
    prompts = [chat.prompt([user(text)]) for text in ("How do tides work?", "What should I cook for six guests?")]

    def said(most: int) -> list[str]:
        return asker.all([partial(asker.generate, prompt, {"max_gen_toks": most}) for prompt in prompts])

    short = said(48)
    assert short[0] != short[1]
    for whole in (said(longest - 1), said(2 * longest)):
        assert all(text.startswith(start) for text, start in zip(whole, short, strict=True))
    assert "did not fit" not in capsys.readouterr().err
    long = [*prompts[0]] * (longest // len(prompts[0]) + 1)
    work: list[Any] = [lambda: asker.generate(long, {"max_gen_toks": 8}), lambda: asker.loglikelihood(long, prompts[1])]
    asker.all([*work, lambda: asker.generate(prompts[0], {"max_gen_toks": 8})])
    told = f"2 of 3 texts did not fit into {longest:,} tokens and lost their beginnings"
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_the_harness_runs_a_task_on_a_checkpoint(smoke: FinishedRun, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="pip install 'charrun[lm-eval]'")
    data = tmp_path / "data.jsonl"
    rows = [{"question": f"What is {n} plus 1?", "options": [str(n), str(n + 1)], "answer": 1} for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "few.yaml").write_text(TASK.format(data=data))
    arguments = f"run=pirate-smoke,stage=dpo,runs_dir={smoke.runs_dir}"
    command = [sys.executable, "-m", "charrun.harness", "run", "--model", "charrun", "--model_args", arguments]
    command += ["--tasks", "few_questions", "--include_path", str(tmp_path), "--apply_chat_template"]
    command += ["--output_path", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HF_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(path.read_text())
    assert 0 <= found["results"]["few_questions"]["acc,none"] <= 1
    assert found["n-samples"]["few_questions"]["effective"] == 8
