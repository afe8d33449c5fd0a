"""A service that misbehaves: what passes ends in a finished run with an exact ledger, what stays in one sentence.

charrun repeats nothing itself: the SDK asks again, and a request that it repeats under its own number counts once.
"""

from __future__ import annotations

import pytest
from faults.lab import Lab
from faults.matrix import Matrix, tiers
from faults.plan import (
    CAPABILITIES,
    CONFIG,
    CREATE_SAMPLER,
    FOR_EVER,
    LOAD,
    PASS,
    RETRIEVE,
    SAMPLE,
    SAVE,
    SESSION,
    STEP,
    Fault,
)

WAIT = {"Retry-After": "1"}
PASSING: dict[str, tuple[Fault, ...]] = {
    "408": (Fault(SAMPLE, "status", nth=2, status=408), Fault(STEP, "status", nth=2, status=408)),
    "409": (Fault(SAMPLE, "status", nth=2, status=409), Fault(PASS, "status", nth=4, status=409)),
    "429 with Retry-After": (
        Fault(SAMPLE, "status", nth=1, times=3, status=429, headers=WAIT),
        Fault(STEP, "status", nth=1, status=429, headers=WAIT),
    ),
    "429 without Retry-After": (
        Fault(SAMPLE, "status", nth=1, times=3, status=429),
        Fault(SAVE, "status", nth=1, status=429),
    ),
    "500": (
        Fault(SAMPLE, "status", nth=3, status=500, seen=True),
        Fault(STEP, "status", nth=2, status=500, seen=True),
        Fault(RETRIEVE, "status", nth=5, status=500),
    ),
    "502": (Fault(SAMPLE, "status", nth=3, status=502), Fault(RETRIEVE, "status", nth=5, status=502)),
    "connection reset before the engine": (Fault(SAMPLE, "drop", nth=2), Fault(PASS, "drop", nth=3)),
    "connection reset after the engine": (Fault(SAMPLE, "reset", nth=2), Fault(STEP, "reset", nth=2)),
    "connection reset in mid-body": (
        Fault(SAMPLE, "reset-mid-body", nth=2),
        Fault(RETRIEVE, "reset-mid-body", nth=4),
        Fault(STEP, "reset-mid-body", nth=1),
    ),
    "answers a byte at a time": (Fault(RETRIEVE, "slow", nth=1, times=4, seconds=2.0),),
    "410 on a future": (Fault(RETRIEVE, "status", nth=3, status=410, request_type="Sample"),),
    "answers out of order": (Fault(RETRIEVE, "reorder", nth=1, times=4, seconds=3.0),),
    "duplicated answers": (Fault(RETRIEVE, "duplicate", nth=1, times=6), Fault(SAMPLE, "duplicate", nth=1, times=3)),
    "402 that is paid soon": (Fault(SAMPLE, "status", nth=3, status=402),),
}
UNPAID = "the service wants to be paid: Error code: 402"
STAYING: dict[str, tuple[tuple[Fault, ...], str, tuple[str, ...]]] = {
    "402": ((Fault(SAMPLE, "status", nth=3, times=FOR_EVER, status=402),), UNPAID, ()),
    "402 on the first request": ((Fault(CONFIG, "status", times=FOR_EVER, status=402),), UNPAID, ()),
    "402 before a session": ((Fault(CAPABILITIES, "status", times=FOR_EVER, status=402),), UNPAID, ()),
    "402 on a session": ((Fault(SESSION, "status", times=FOR_EVER, status=402),), UNPAID, ()),
    "402 on a step": ((Fault(STEP, "status", nth=2, times=FOR_EVER, status=402),), UNPAID, ()),
    "402 on a save": ((Fault(SAVE, "status", nth=1, times=FOR_EVER, status=402),), UNPAID, ()),
    "402 on a future": ((Fault(RETRIEVE, "status", nth=2, times=FOR_EVER, status=402),), UNPAID, ()),
    "403 on a session": ((Fault(SESSION, "status", status=403),), "the engine refuses access: ", ()),
    "410 on a step's future": (
        (Fault(RETRIEVE, "status", nth=2, status=410, request_type="OptimStep"),),
        "the engine has lost an answer: ",
        (),
    ),
    "410 on a save's future": (
        (Fault(RETRIEVE, "status", nth=1, status=410, request_type="SaveWeights"),),
        "the engine has lost an answer: ",
        (),
    ),
    "404 on a future": (
        (Fault(RETRIEVE, "status", nth=3, status=404, request_type="Sample"),),
        "the engine refuses a request: ",
        (),
    ),
    "400 on a sample": ((Fault(SAMPLE, "status", nth=3, status=400),), "the engine refuses a request: ", ()),
    "a sample's future that never completes": (
        (Fault(RETRIEVE, "never", nth=3, times=FOR_EVER),),
        "the engine has answered none of ",
        ("--patience", "0.1"),
    ),
    "a step's future that never completes": (
        (Fault(RETRIEVE, "never", nth=1, times=FOR_EVER, request_type="OptimStep"),),
        "the engine has answered none of ",
        ("--patience", "0.1"),
    ),
    "silence": (
        (Fault(SAMPLE, "silence", nth=2, times=FOR_EVER),),
        "the engine has answered none of ",
        ("--patience", "0.1"),
    ),
    "401": ((Fault(SAMPLE, "status", nth=2, times=FOR_EVER, status=401),), "the engine refuses the key", ()),
    "404 on a checkpoint's weights": (
        (Fault(CREATE_SAMPLER, "status", nth=1, times=FOR_EVER, status=404, model="sampler_weights"),),
        "the engine refuses a request: ",
        (),
    ),
    "404 on a training state": (
        (Fault(LOAD, "status", nth=1, times=FOR_EVER, status=404),),
        "the engine refuses a request: ",
        (),
    ),
}
QUICK = ("500",)
SAMPLED_PASSING = ("429 with Retry-After", "connection reset in mid-body", "410 on a future", "answers out of order")
SAMPLED_STAYING = ("402", "a step's future that never completes")


def passes(lab: Lab, name: str, matrix: Matrix) -> None:
    trial = lab.trial(faults=PASSING[name])
    ended = trial.start().wait()
    assert ended.code == 0 and "Traceback" not in ended.text, ended.text
    assert lab.proxy.plan.met > 0
    asks = lab.proxy.ledger.accepted_asks()
    rows = sum(len(row["sequences"]) for row in trial.rows())
    again = name == "410 on a future"  # its answer is gone, and the SDK samples again: both may be billed
    assert (sum(ask.sequences for ask in asks) > rows) == again
    assert trial.spent()[1] == len(asks) - len({ask.request for ask in asks}) == int(again)
    assert {ask.request for ask in asks} == lab.asked
    assert lab.proxy.ledger.steps == 8
    assert trial.published() == lab.expected
    matrix.count("a fault of the service that passes", 1, 1, trial.rows_lost(), 0)


def stays(lab: Lab, name: str, matrix: Matrix) -> None:
    faults, sentence, options = STAYING[name]
    trial = lab.trial(faults=faults)
    ended = trial.start("", *options).wait()
    assert ended.code in (1, 5) and "Traceback" not in ended.text, ended.text
    (told,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert sentence in told
    assert "non-retryable" not in ended.err and "defect" not in ended.err
    before = {f"{row['key']}:{row['start']}" for row in trial.rows()}
    trial.stored.append(before)
    lab.proxy.plan = type(lab.proxy.plan)()
    lab.proxy._never = set()
    trial.finish(tries=1)
    assert trial.published() == lab.expected and trial.rows_lost() == 0
    matrix.count("a fault of the service that stays", 1, 1, trial.rows_lost(), 0)


@pytest.mark.parametrize("name", tiers(PASSING, QUICK, SAMPLED_PASSING))
def test_a_fault_that_passes_ends_in_a_finished_run_with_an_exact_ledger(name: str, lab: Lab, matrix: Matrix) -> None:
    passes(lab, name, matrix)


@pytest.mark.parametrize("name", tiers(STAYING, (), SAMPLED_STAYING))
def test_a_fault_that_stays_ends_in_one_sentence_and_can_be_gone_on_from(name: str, lab: Lab, matrix: Matrix) -> None:
    stays(lab, name, matrix)
