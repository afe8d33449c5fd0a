"""The simulated service of benchmarks/: it speaks the protocol, keeps its times, and its bill is the ledger's sum."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, charrun

from charrun.demo import MODELS
from charrun.store.ledger import LEDGER, read_ledger

sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import money
from service_sim.critical import Job, least_seconds, one_by_one
from service_sim.process import Running, simulated

TOLD = "with: {monitor: {stop: false}}"
"""The simulated service learns nothing, and the monitor would stop for that."""
STAGES = f"[prompts, teacher, student, pairs, {{uses: dpo, {TOLD}}}, reflection, interaction, {{uses: sft, {TOLD}}}]"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    return money.spec_at(tmp_path, money.TINY, stages=STAGES)


def done(service: Running, spec: Path, *args: str) -> None:
    outcome = charrun(spec, "--runs-dir", spec.parent / "runs", "--yes", *args, env=service.environment)
    assert outcome.code == 0, outcome.text


def test_the_services_bill_is_the_ledger_to_the_token(spec: Path, tmp_path: Path) -> None:
    with simulated(tmp_path / "service", money.models(), tokens=40, prices=money.PRICES) as service:
        done(service, spec)
        paid = money.dollars(service.bill())
        ended, doubt, document = money.ledger(tmp_path / "runs")
        assert money.same(service.bill(), ended) and not money._sum(doubt)
        assert {kind for each in ended.values() for kind, n in each.items() if n} == set(money.KINDS)
        assert document["total"]["usd_high"] == pytest.approx(paid, abs=1e-12)
        other = tmp_path / "other"
        other.mkdir()
        (other / spec.name).write_text(spec.read_text())
        done(service, other / spec.name, "--until", "teacher")  # another run of the same name, in the same hour
        told = charrun("cost", "--runs-dir", tmp_path / "runs", "--reconcile", env=service.environment)
        assert told.code == 0, told.text
        assert f"The engine estimates ${paid:,.4f} for it." in told.out
        rows = [line.split() for line in told.out.splitlines() if line.startswith("charrun/")]
        assert {row[1] for row in rows} == {"prompt", "cached", "sampled", "training", "forward"}
        for _, kind, ours, unsure, billed, told_so in (row for row in rows if row[1] != "forward"):
            assert unsure == "0" and told_so == ("within" if kind == "training" else "equal")
            assert kind == "training" or billed == ours  # forward passes are billed as training here
        (training,) = [int(row[4].replace(",", "")) for row in rows if row[1] == "training"]
        bill = service.bill()[money.STUDENT]
        assert training == bill["trained"] + bill["forward"]


def test_a_request_that_was_turned_away_waited_and_took_no_longer(spec: Path, tmp_path: Path) -> None:
    """The SDK holds it back for a second and more: that is no time of the service's, and no request in flight."""
    with simulated(tmp_path / "service", money.models(), tokens=40, seconds=0.3, cap=4) as service:
        done(service, spec, "--until", "teacher")
        jobs = [json.loads(line) for line in (service.storage / "jobs.jsonl").read_text().splitlines()]
    (folder,) = (tmp_path / "runs").glob("*/1")
    (times,) = read_ledger(folder / LEDGER).times.values()
    assert len(times) == len(jobs) > 4
    assert sum(waited >= 1 for _, waited in times) >= len(times) - 4  # of the first, four are taken
    served = sum(job["done"] - job["arrived"] for job in jobs)
    assert served <= sum(seconds for seconds, _ in times) < served + 0.7 * len(times)


@pytest.mark.slow
def test_what_a_killed_run_had_in_flight_is_settled_by_the_bill(spec: Path, tmp_path: Path) -> None:
    """And answers that the service bills and loses: both attempts are in the ledger."""
    place = ("--runs-dir", tmp_path / "runs")
    with simulated(tmp_path / "service", money.models(), tokens=40, seconds=0.2, lost=0.1) as service:
        for point in ("row.after:3", "step.submitted:1"):
            env = {**service.environment, "CHARRUN_FAULT": point}
            assert charrun(spec, *place, "--yes", env=env).code == -signal.SIGKILL
        done(service, spec)
        billed = money.settled(service)
        ended, doubt, document = money.ledger(tmp_path / "runs")
        assert money._sum(ended) < money._sum(billed) <= money._sum(ended) + money._sum(doubt)
        told = charrun("cost", *place, "--reconcile", "--settle", env=service.environment)
        assert told.code == 0, told.text
        assert f"Settled: {document['requests_without_end']} requests without an end" in told.out
        ended, doubt, document = money.ledger(tmp_path / "runs")
        assert money.same(billed, ended) and not money._sum(doubt) and not document["requests_without_end"]
        refused = charrun("cost", *place, "--settle", env=service.environment)
        assert refused.code == 2 and "--settle goes with --reconcile" in refused.err


def test_the_critical_path_is_what_jobs_have_to_wait_for() -> None:
    def job(kind: str, stage: str, arrived: float, *needs: int, samples: int = 1) -> Job:
        return Job(kind, stage, 2.0, samples, "run" if kind in ("backward", "step") else "", arrived, 0.0, set(needs))

    answers = [job("sample", "ask", 0.0, samples=3), job("sample", "ask", 0.0), job("sample", "ask", 2.0, 1)]
    assert least_seconds(answers, 0.0) == 4.0  # the third was made from the second
    assert least_seconds(answers, 0.0, 3) == 6.0  # one at a time beside three, which go first
    assert least_seconds(one_by_one(answers), 0.0, 2) == 6.0
    training = [job("backward", "train", 5.0, 0, 2), job("step", "train", 5.0), job("backward", "train", 5.0)]
    training += [job("step", "train", 5.0), job("sample", "test", 30.0, 6)]
    assert least_seconds([*answers, *training], 10.0) == 22.0  # two cycles, then an answer
    evaluated = [*answers, job("sample", "other", 0.0)]
    assert least_seconds(evaluated, 0.0, in_stages=True) == 6.0  # no stage before the one before it has ended


def test_it_keeps_its_times_and_its_cap(tmp_path: Path) -> None:
    import tinker

    with simulated(
        tmp_path / "service", {"m": MODELS["charrun/demo-student-small"]}, seconds=0.5, cap=4, cycle=1.0
    ) as service:
        client = tinker.ServiceClient(base_url=service.address, api_key="tml-simulated-service")
        sampler = client.create_sampling_client(base_model="m").result()
        prompt, params = (
            tinker.types.ModelInput.from_ints(list(range(5, 45))),
            tinker.types.SamplingParams(max_tokens=9, seed=1),
        )
        begun = time.monotonic()
        answers = [future.result() for future in [sampler.sample(prompt, 1, params) for _ in range(4)]]
        assert 0.5 <= time.monotonic() - begun < 5
        assert len({tuple(answer.sequences[0].tokens) for answer in answers}) == 1  # the request decides
        assert sorted(answer.prompt_cache_hit_tokens for answer in answers) == [0, 32, 32, 32]
        trainer = client.create_lora_training_client(base_model="m", rank=4).result()
        datum = tinker.types.Datum(
            model_input=prompt,
            loss_fn_inputs={"target_tokens": [1] * 40, "weights": [1.0] * 40},  # type: ignore[dict-item]
        )
        begun = time.monotonic()
        for _ in range(2):
            step = trainer.forward_backward([datum], "cross_entropy"), trainer.optim_step(tinker.types.AdamParams())
            assert [each.result() for each in step]
        assert time.monotonic() - begun > 1  # the second step waits for the next cycle
        assert service.bill()["m"] == {"prefill": 64, "cached": 96, "sampled": 36, "trained": 80}
