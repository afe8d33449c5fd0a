"""What requests without an end have used, by the engine's bill, which tells training tokens of every kind as one."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import RunningEngine, charrun

from charrun.pipeline.bill import ends_by_bill
from charrun.service.engine import Billed
from charrun.store.ledger import LEDGER, LEDGER_NOTE, Ledger, Place, read_ledger
from charrun.store.lines import sealed
from charrun.usage import Usage, of_samples

DPO = Place("pirate-smoke", "dpo", "org/student")


def custom(tokens: int) -> Usage:
    """A forward pass, then a forward-and-backward pass."""
    return Usage(forward_tokens=tokens, trained_tokens=tokens)


def settled(tmp_path: Path, known: list[Usage], open_ones: list[Usage], training: int) -> Usage | None:
    """All that requests without an end have used where so much is billed, beside what has ended."""
    ledger = Ledger(tmp_path / LEDGER)
    for usage in known:
        ledger.settle(str(ledger.reserve(DPO, usage)), usage)
    for usage in open_ones:
        ledger.reserve(DPO, usage)
    ledger.close()
    note = {LEDGER_NOTE: ledger.process, "cell": DPO.cell, "stage": DPO.stage}
    ends = ends_by_bill(read_ledger(tmp_path / LEDGER), [Billed(note, DPO.model, "training", training, None)])
    assert len(ends) in (0, len(open_ones))
    total = Usage()
    for usage in ends.values():
        total.add(usage)
    return total if ends else None


@pytest.mark.parametrize(
    ("billed", "forward", "trained"),
    [(0, 0, 0), (2439, 2439, 0), (4878, 2439, 2439), (4878 + 2471, 4910, 2439), (2 * 4910, 4910, 4910)],
)
def test_of_two_steps_of_a_custom_loss_those_passes_were_done_that_come_first(
    tmp_path: Path, billed: int, forward: int, trained: int
) -> None:
    """A run that was killed with a step in flight and the next one behind it."""
    known = [Usage(forward_tokens=700), custom(2500)]
    found = settled(tmp_path, known, [custom(2439), custom(2471)], 700 + 5000 + billed)
    assert found == Usage(forward_tokens=forward, trained_tokens=trained)


def test_a_process_that_ended_before_it_was_heard_used_nothing_where_a_later_one_is_billed(tmp_path: Path) -> None:
    first, second, third = (Ledger(tmp_path / LEDGER) for _ in range(3))
    numbers = [str(ledger.reserve(DPO, custom(100))) for ledger in (first, second, third)]
    for ledger in (first, second, third):
        ledger.close()
    note = {LEDGER_NOTE: second.process, "cell": DPO.cell, "stage": DPO.stage}
    ends = ends_by_bill(read_ledger(tmp_path / LEDGER), [Billed(note, DPO.model, "training", 200, None)])
    assert ends == {numbers[0]: Usage(), numbers[1]: custom(100)}


def test_plain_steps_and_forward_passes_are_told_apart_by_their_order(tmp_path: Path) -> None:
    steps = [Usage(trained_tokens=300), Usage(trained_tokens=200)]
    assert settled(tmp_path, [], [*steps, Usage(forward_tokens=50)], 500) == Usage(trained_tokens=500)


def test_a_bill_that_ends_within_a_pass_counts_forward_passes_first(tmp_path: Path) -> None:
    """As of a request that the SDK has sent in parts."""
    assert settled(tmp_path, [], [custom(1000)], 1200) == Usage(forward_tokens=1000, trained_tokens=200)


@pytest.mark.parametrize(("prefill", "cached", "sampled", "requests"), [(0, 0, 0, 0), (20, 64, 9, 1), (84, 84, 20, 2)])
def test_of_samples_without_an_end_those_count_as_requests_whose_prompts_are_billed(
    tmp_path: Path, prefill: int, cached: int, sampled: int, requests: int
) -> None:
    """Of one that has ended, and two with prompts of 84 tokens."""
    ledger, place = Ledger(tmp_path / LEDGER), replace(DPO, stage="teacher")
    ended = of_samples(50, 0, 1, 7)
    ledger.settle(str(ledger.reserve(place, ended)), ended)
    for _ in range(2):
        ledger.reserve(place, of_samples(84, 0, 1, 100))
    ledger.close()
    note = {LEDGER_NOTE: ledger.process, "cell": place.cell, "stage": place.stage}
    counts = {"prefill": 50 + prefill, "cached": cached, "sampled": 7 + sampled}
    bill = [Billed(note, place.model, kind, count, None) for kind, count in counts.items()]
    (used, nothing) = ends_by_bill(read_ledger(tmp_path / LEDGER), bill).values()
    assert used == Usage(requests, prefill, cached, sampled) and nothing == Usage()


@pytest.mark.parametrize("billed", [-1, 2001])
def test_nothing_is_said_where_the_bill_cannot_be_right(tmp_path: Path, billed: int) -> None:
    assert settled(tmp_path, [custom(5)], [custom(1000)], 10 + billed) is None


class Closed(BaseHTTPRequestHandler):
    """A service whose billing rows this key may not read."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.dumps({"detail": "only an owner may"}).encode()
        self.send_response(403 if "billing" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def closed() -> Iterator[str]:
    """Address of a service."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def a_run(runs_dir: Path, engine: str) -> None:
    """As much of a run as is asked for its bill."""
    folder = runs_dir / "x" / "1"
    folder.mkdir(parents=True)
    started = {"v": 2, "seq": 0, "event": "run_started", "time": 1.79e9, "engine": engine, "cells": []}
    (folder / "journal.jsonl").write_bytes(sealed(started))


@pytest.mark.parametrize("options", [(), ("--settle",)])
def test_of_a_service_without_billing_rows_the_ledger_stands_by_itself(
    options: tuple[str, ...], tmp_path: Path, demo_engine: RunningEngine, closed: str
) -> None:
    a_run(tmp_path, "tinker")
    ask: list[str | Path] = ["cost", "x", "--runs-dir", tmp_path, "--reconcile", *options]
    alone = "\n  the ledger stands by itself: `charrun cost` shows it\n"
    env = {"TINKER_API_KEY": demo_engine.api_key, "TINKER_BASE_URL": demo_engine.base_url}
    outcome = charrun(*ask, env=env)
    assert outcome.code == 5
    assert outcome.err == f"error: {demo_engine.base_url} has no billing rows to compare with{alone}"
    outcome = charrun(*ask, env={"TINKER_API_KEY": "tml-key", "TINKER_BASE_URL": closed})
    assert outcome.code == 5
    assert outcome.err == f"error: {closed} does not let this key read the account's billing rows{alone}"
    outcome = charrun(*ask, env={**env, "TINKER_API_KEY": "tml-wrong"})
    assert outcome.code == 5 and "refuses the key" in outcome.err


def test_an_engine_without_a_bill_says_so(tmp_path: Path) -> None:
    a_run(tmp_path, "local")
    outcome = charrun("cost", "x", "--runs-dir", tmp_path, "--reconcile")
    assert outcome.code == 5
    assert outcome.err == (
        "error: the engine local has no bill\n  the ledger stands by itself: `charrun cost` shows it\n"
    )
