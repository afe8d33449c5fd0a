"""One engine, one proxy, one small spec: runs that are disturbed, and what they have in common with one that is not.

Everything is real: the command line, the SDK, the engine, SIGKILL. The spec is smaller than smoke, and its trainings
take several steps, so that kills find them in the middle.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from faults.ledger import Ask
from faults.plan import Fault
from faults.processes import Ended, Engine, Runner, engine
from faults.proxy import Proxy
from faults.zygote import Zygote

from charrun.store.ledger import LEDGER, read_ledger

SPEC = """
version: 1
name: tiny
seed: 7
engine: auto
characters: [pirate]
models: [{teacher: charrun/demo-student-small, student: charrun/demo-student-small}]
scales: [{name: tiny, pairs: 4, samples_per_prompt: 2, reflections: 10, interactions: 1, turns: 2}]
stages:
  - prompts
  - {uses: teacher, with: {max_tokens: 48}}
  - {uses: student, with: {max_tokens: 48}}
  - {uses: pairs, with: {most_dropped: 1}}
  - {uses: dpo, with: {batch_size: 1, checkpoint_every: 2, lora_rank: 4, learning_rate: 1e-3}}
  - reflection
  - interaction
  - {uses: sft, with: {batch_size: 3, checkpoint_every: 2, learning_rate: 1e-3}}
  - export
  - {uses: evaluate, with: {prompts: 100, calibration_prompts: 20, max_tokens: 24, scored_as: neutral}}
"""
STAGES = ("prompts", "teacher", "student", "pairs", "dpo", "reflection", "interaction", "sft", "export", "evaluate")
_DELIVERED_SECONDS = 1.0
"""An answer that was handed over so long before a kill must have been stored."""
_ARRIVES_SECONDS = 0.5
"""What a killed process had sent may be read from the socket so long afterwards; the next one begins later."""


@dataclass
class Trial:
    """One runs folder, disturbed until it is finished.

    Attributes:
        runs: The folder.
        kills: When processes were killed, on the monotonic clock.
        stored: Keys of the rows that were stored at each kill.
    """

    lab: Lab
    runs: Path
    kills: list[float] = field(default_factory=list)
    stored: list[set[str]] = field(default_factory=list)

    def start(self, fault: str = "", *args: str) -> Runner:
        """The command."""
        return Runner(self.lab.zygote, self.lab.spec, self.runs, self.lab.proxy.base_url, *args, fault=fault)

    def disturbed(self, at: float) -> None:
        """Note what was there when something was killed."""
        self.kills.append(at)
        self.stored.append({f"{row['key']}:{row['start']}" for row in self.rows()})

    def finish(self, *args: str, tries: int = 6) -> Ended:
        """The same command until it ends well: a run whose engine died under it may have to notice first."""
        for _ in range(tries):
            ended = self.start("", *args).wait()
            assert "Traceback" not in ended.text, ended.text
            if ended.code == 0:
                return ended
            assert ended.code in (1, 5), ended.text
        raise AssertionError(ended.text)

    def rows(self) -> list[dict[str, Any]]:
        """Every stored response."""
        paths = sorted((self.runs / "store").glob("*/items.jsonl"))
        return [json.loads(line) for p in paths for line in p.read_text().rpartition("\n")[0].splitlines()]

    def journal(self) -> list[dict[str, Any]]:
        """Events of its run."""
        return [json.loads(line) for line in (self.runs / "tiny/1/journal.jsonl").read_text().splitlines()]

    def published(self) -> dict[str, bytes]:
        """Every published file, by its place in the store; of checkpoints what does not depend on their paths."""
        found: dict[str, bytes] = {}
        for path in (self.runs / "store").glob("*/[!.]*.jsonl"):
            kind = path.name.rpartition("-")[0]
            stage = path.parent.name.rpartition("-")[0]
            if kind == "checkpoint":
                row = json.loads(path.read_text())
                weights = self.lab.engine.weights(row["state"])
                if weights.exists():  # the last one that was published
                    found[f"{path.parent.name}/weights"] = weights.read_bytes() + row["fingerprint"].encode()
            elif kind == "adapter":
                found[f"{path.parent.name}/adapter"] = json.loads(path.read_text())["weights_sha256"].encode()
            elif kind or (path.name == "steps.jsonl" and stage in ("dpo", "sft")):
                found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
        return found

    def rows_lost(self) -> int:
        """Rows that were stored at a kill and are not there any more."""
        now = {f"{row['key']}:{row['start']}" for row in self.rows()}
        return len(set().union(*self.stored) - now) if self.stored else 0

    def paid_twice(self) -> int:
        """Requests that were sent again after a kill although their answer had been handed over well before it."""
        groups: dict[str, list[Ask]] = {}
        for ask in self.lab.proxy.ledger.accepted_asks():
            groups.setdefault(ask.key, []).append(ask)
        twice = 0
        for asks in groups.values():
            for earlier, later in pairwise(asks):
                since = earlier.accepted - _ARRIVES_SECONDS
                between = [kill for kill in self.kills if since < kill <= later.accepted]
                first = min(between, default=float("inf"))
                twice += 0 < earlier.delivered < first - _DELIVERED_SECONDS or not between
        return twice

    def ledger_is_exact(self) -> bool:
        """Sequences that the engine was asked for are those of the rows plus those that were in flight at a kill."""
        asks = self.lab.proxy.ledger.accepted_asks()
        rows = sum(len(row["sequences"]) for row in self.rows())
        once = {ask.key: ask.sequences for ask in asks}
        lost = sum(ask.sequences for ask in asks) - rows
        flying = sum(len(self.lab.proxy.ledger.in_flight(kill - _DELIVERED_SECONDS)) for kill in self.kills)
        near = [(kill - _DELIVERED_SECONDS, kill + _ARRIVES_SECONDS) for kill in self.kills]
        flying += sum(begin <= ask.accepted < end for begin, end in near for ask in asks)
        return sum(once.values()) >= rows - self.given and 0 <= lost + self.given <= 16 * flying

    def spent(self) -> tuple[int, int]:
        """Sampling and scoring requests in the run's ledger: those that have ended, and those without an end."""
        totals = read_ledger(self.runs / "tiny/1" / LEDGER)
        return totals.all().requests, sum(most.requests for most in totals.in_doubt().values())

    given: int = 0
    """Sequences that were there before the trial began."""
    spent_before: int = 0
    """Requests that were in the ledger then."""
    is_faulty: bool = False
    """Whether the service has faults."""


class Lab:
    """The engine, the proxy before it, and what a run makes that nobody disturbs."""

    def __init__(self, folder: Path, zygote: Zygote, served: Engine, proxy: Proxy) -> None:
        self.folder, self.zygote, self.engine, self.proxy = folder, zygote, served, proxy
        self.spec = folder / "tiny.yaml"
        self.spec.write_text(SPEC)
        self._trials = 0
        proxy.begin()
        self.whole = Trial(self, folder / "whole")
        self.whole_run = self.whole.finish(tries=1)
        self.asked = {ask.request for ask in proxy.ledger.accepted_asks()}
        self.expected = self.whole.published()
        self.seconds = self.whole_run.seconds

    def trial(self, before: str = "", faults: tuple[Fault, ...] = ()) -> Trial:
        """A new folder, empty or as a run leaves it that has done the stages before one."""
        self._trials += 1
        trial = Trial(self, self.folder / f"trial-{self._trials}")
        index = STAGES.index(before) if before else 0
        if index:
            shutil.copytree(self._prepared(index), trial.runs)
            trial.given = sum(len(row["sequences"]) for row in trial.rows())
            trial.spent_before = trial.spent()[0]
        trial.is_faulty = bool(faults)
        self.proxy.begin(faults)
        return trial

    def _prepared(self, index: int) -> Path:
        place = self.folder / f"before-{STAGES[index]}"
        if not place.exists():
            self.proxy.begin()
            Trial(self, place).finish("--until", STAGES[index - 1], tries=1)
        return place

    def check(self, trial: Trial, until: str = "") -> None:
        """What a disturbed run must have in common with one that is not.

        Raises:
            AssertionError: It does not.
        """
        done = STAGES[: STAGES.index(until) + 1] if until else STAGES
        expected = {name: data for name, data in self.expected.items() if name.rpartition("/")[0][:-17] in done}
        made = {name: data for name, data in trial.published().items() if name.rpartition("/")[0][:-17] in done}
        if until:  # a later stage may ask an earlier one for more rows
            assert made.keys() <= expected.keys()
            assert {name.partition("/")[0] for name in made} == {name.partition("/")[0] for name in expected}
        else:
            assert made.keys() == expected.keys()
        for name, data in made.items():
            assert data == expected[name], name
        assert trial.rows_lost() == 0
        assert trial.paid_twice() == 0
        assert trial.ledger_is_exact()
        (ended, without_end), accepted = trial.spent(), self.proxy.ledger.accepted_count()
        assert ended <= accepted + trial.spent_before
        if not trial.is_faulty:  # upon a fault the SDK may send a request again, of which the run knows nothing
            assert accepted + trial.spent_before <= ended + without_end
        assert {ask.request for ask in self.proxy.ledger.accepted_asks()} <= self.asked


@contextmanager
def laboratory(folder: Path) -> Iterator[Lab]:
    """A lab, gone afterwards."""
    zygote = Zygote()
    try:
        with engine(folder / "engine", zygote) as served, Proxy(served.base_url) as proxy:
            yield Lab(folder, zygote, served, proxy)
    finally:
        zygote.close()
