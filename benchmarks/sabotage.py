"""What a training's checks and its monitor catch, and at which step: `python benchmarks/sabotage.py [RUNS_DIR]`.

The real rows of `pirate-mini` on the demo models (made first, or found in RUNS_DIR) are sabotaged, or the stage is, and
`dpo` and `sft` run on them for real. Printed: the sabotage, what stopped it, and after how many of its steps.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from unittest.mock import patch

from charrun import StageFailed
from charrun.chat import Chat, TrainedRow
from charrun.demo import MODELS
from charrun.engine.process import EngineProcess
from charrun.pipeline.reference import Reference
from charrun.plugins.dpo import DpoStage
from charrun.plugins.sft import SftStage
from charrun.stage import Stage
from charrun.testing import RunningEngine, run_stage

REPOSITORY = Path(__file__).parent.parent
Rows = list[dict[str, Any]]
DPO, SFT = {"learning_rate": 5e-3}, {"learning_rate": 1.25e-3}


class ShiftedDpo(DpoStage):
    """Trained rows whose targets are the tokens after the next: an off-by-one in the data pipeline."""

    name: ClassVar[str] = "dpo"

    async def run(self, ctx: Any) -> None:
        from tinker import types

        def shifted(row: TrainedRow, weight: float = 1.0) -> types.Datum:
            targets = types.TensorData(data=[*row.tokens[2:], row.tokens[-1]], dtype="int64")
            weights = types.TensorData(data=[weight * on for on in row.trained[1:]], dtype="float32")
            given = types.ModelInput.from_ints(list(row.tokens[:-1]))
            return types.Datum(model_input=given, loss_fn_inputs={"target_tokens": targets, "weights": weights})

        with patch.object(TrainedRow, "datum", shifted):
            await super().run(ctx)


class _OtherWeights(Stage):
    """Rows whose loss weights are not those of the tokens that the checks looked at."""

    factor: ClassVar[float] = 1.0
    late: ClassVar[int] = 0

    async def run(self, ctx: Any) -> None:
        from tinker import types

        datum_of = TrainedRow.datum

        def other(row: TrainedRow, weight: float = 1.0) -> types.Datum:
            datum = datum_of(row, weight)
            weights = [self.factor * each for each in datum.loss_fn_inputs["weights"].data]
            weights = [*[0.0] * self.late, *weights[: len(weights) - self.late]]
            given = {**datum.loss_fn_inputs, "weights": types.TensorData(data=weights, dtype="float32")}
            return types.Datum(model_input=datum.model_input, loss_fn_inputs=given)

        with patch.object(TrainedRow, "datum", other):
            await super().run(ctx)


class LateWeightsDpo(_OtherWeights, DpoStage):
    """Weights one token late: an off-by-one in the loss mask, behind all checks of the rows."""

    name: ClassVar[str] = "dpo"
    late: ClassVar[int] = 1


class LateWeightsSft(_OtherWeights, SftStage):
    """The same in SFT."""

    name: ClassVar[str] = "sft"
    late: ClassVar[int] = 1


class NoWeightsSft(_OtherWeights, SftStage):
    """Targets that are zeroed."""

    name: ClassVar[str] = "sft"
    factor: ClassVar[float] = 0.0


class ForeignReferenceDpo(DpoStage):
    """A reference whose log-probs were made under another template, as raw `User:` / `Assistant:` text."""

    name: ClassVar[str] = "dpo"

    async def run(self, ctx: Any) -> None:
        reference_of = type(ctx).reference

        async def foreign(ctx: Any, adapter: Any, rows: Sequence[TrainedRow]) -> Any:
            others = [_raw(adapter.chat, row) for row in rows]
            found = await reference_of(ctx, adapter, others)
            return _Renamed(found, {tuple(row.tokens): other for row, other in zip(rows, others, strict=True)})

        with patch.object(type(ctx), "reference", foreign):
            await super().run(ctx)


class _Renamed(Reference):
    """The log-probs of other rows under the names of these."""

    def __init__(self, found: Reference, others: Mapping[tuple[int, ...], TrainedRow]) -> None:
        self._found, self._others = found, others

    def sum(self, row: TrainedRow) -> float:
        return self._found.sum(self._others[tuple(row.tokens)])

    def values(self, row: TrainedRow) -> Sequence[float]:
        return self._found.values(self._others[tuple(row.tokens)])


def _raw(chat: Chat, row: TrainedRow) -> TrainedRow:
    """The row's answer after its context without the template's tokens."""
    start = bytes(row.trained).index(1)
    words = chat.tokenizer.decode(list(row.tokens[:start]), skip_special_tokens=True)
    context = chat.encode(f"User: {words}\nAssistant:")
    answer = row.tokens[start:]
    return TrainedRow(array("i", [*context, *answer]), bytes([0] * len(context) + [1] * len(answer)))


@contextmanager
def every_row(changed: Callable[[TrainedRow], TrainedRow]) -> Iterator[None]:
    """Training rows are changed after their rendering; rendering none meanwhile is an error of the sabotage."""
    rows_of, met = Chat.rows_of, 0

    def ruined(chat: Chat, *args: Any, **more: Any) -> list[list[TrainedRow]]:
        nonlocal met
        rows = [[changed(row) for row in each] for each in rows_of(chat, *args, **more)]
        met += len(rows)
        return rows

    with patch.object(Chat, "rows_of", ruined):
        yield
        assert met, "the stage rendered nothing that could be sabotaged"


class TruncatedDpo(DpoStage):
    """Rows truncated to their first tokens, as with a `max_length` that is applied after rendering."""

    name: ClassVar[str] = "dpo"
    left: ClassVar[int] = 0

    async def run(self, ctx: Any) -> None:
        def cut(row: TrainedRow) -> TrainedRow:
            end = bytes(row.trained).index(1) + self.left
            return TrainedRow(row.tokens[:end], row.trained[:end])

        with every_row(cut):
            await super().run(ctx)


class BarelyTruncatedDpo(TruncatedDpo):
    """A few tokens are left of each answer."""

    name: ClassVar[str] = "dpo"
    left: ClassVar[int] = 5


class UserTurnsSft(SftStage):
    """The loss mask marks what the user says."""

    name: ClassVar[str] = "sft"

    async def run(self, ctx: Any) -> None:
        def flipped(row: TrainedRow) -> TrainedRow:
            return TrainedRow(row.tokens, bytes([0, *(1 - on for on in row.trained[1:])]))

        with every_row(flipped):
            await super().run(ctx)


@dataclass(frozen=True)
class Sabotage:
    """One way to ruin a training.

    Attributes:
        what: In words.
        rows: Changes the pairs, or SFT's reflections.
        stage: The stage that runs.
        options: Its options.
        must: Whether it must be caught before a tenth of the steps.
    """

    what: str
    rows: Callable[[Rows], Rows] = lambda rows: rows
    stage: type[Stage] = DpoStage
    options: Mapping[str, Any] = field(default_factory=dict)
    must: bool = True


def swapped(rows: Rows) -> Rows:
    """Chosen and rejected have changed places."""
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


def at_random(rows: Rows) -> Rows:
    """They have in every second pair."""
    return [swapped([row])[0] if n % 2 else row for n, row in enumerate(rows)]


def first_words(rows: Rows) -> Rows:
    """Of each answer six words are left, as a whole answer."""
    return [{**row, **{side: " ".join(row[side].split()[:6]) for side in ("chosen", "rejected")}} for row in rows]


def chosen_cut_to(words: int) -> Callable[[Rows], Rows]:
    """Of each chosen answer so many words are left."""
    return lambda rows: [{**row, "chosen": " ".join(row["chosen"].split()[:words])} for row in rows]


def words_shuffled(rows: Rows) -> Rows:
    """The words of each reflection in another order."""
    found = []
    for row in rows:
        words = row["text"].split()
        Random(row["id"]).shuffle(words)
        found.append({**row, "text": " ".join(words)})
    return found


def shifted_ids(rows: Rows) -> Rows:
    """Every token of the chosen answers is the next one of the vocabulary."""
    from charrun.chat import load_tokenizer

    chat = Chat(load_tokenizer(MODELS["charrun/demo-student"]), {"enable_thinking": False})
    specials = set(chat.tokenizer.all_special_ids)

    def moved(text: str) -> str:
        tokens = [token + 1 for token in chat.encode(text) if token + 1 not in specials and token + 1 < 1000]
        return chat.decode(tokens).strip()

    return [{**row, "chosen": moved(row["chosen"])} for row in rows]


MATRIX = (
    Sabotage("targets shifted by one", stage=ShiftedDpo),
    Sabotage("token ids shifted by one", shifted_ids),
    Sabotage("reference from another template", stage=ForeignReferenceDpo),
    Sabotage("chosen and rejected swapped", swapped),
    Sabotage("chosen and rejected at random", at_random),
    Sabotage("targets truncated to nothing", stage=TruncatedDpo),
    Sabotage("targets truncated to 5 tokens", stage=BarelyTruncatedDpo),
    Sabotage("answers cut to 6 words", first_words),
    Sabotage("chosen answers empty", chosen_cut_to(0)),
    Sabotage("chosen answers cut to 1 word", chosen_cut_to(1)),
    Sabotage("weights one token late", stage=LateWeightsDpo, must=False),
    Sabotage("learning rate 1e-12", options={"learning_rate": 1e-12}, must=False),
    Sabotage("learning rate 1e-4", options={"learning_rate": 1e-4}, must=False),
    Sabotage("learning rate 1", options={"learning_rate": 1.0}, must=False),
    Sabotage("swapped, direction off", swapped, options={"monitor": {"direction": False}}, must=False),
    Sabotage(
        "swapped, direction off, 16 scored", swapped, options={"monitor": {"direction": False, "scored_pairs": 16}}
    ),
    Sabotage("at random, direction off", at_random, options={"monitor": {"direction": False}}, must=False),
    Sabotage("SFT: loss on user turns", stage=UserTurnsSft),
    Sabotage("SFT: words shuffled, batches of 8", words_shuffled, SftStage, {"batch_size": 8}),
    Sabotage("SFT: weights one token late", stage=LateWeightsSft, must=False),
    Sabotage("SFT: weights of 0", stage=NoWeightsSft, must=False),
    Sabotage("SFT: learning rate 1", stage=SftStage, options={"learning_rate": 1.0}, must=False),
    Sabotage("none: DPO", must=False),
    Sabotage("none: SFT", stage=SftStage, must=False),
)


@dataclass(frozen=True)
class Caught:
    """How a sabotaged training ended.

    Attributes:
        by: What stopped it; empty where it went through.
        step: Optimiser steps that were done until then,
        steps: of how many.
    """

    by: str
    step: int
    steps: int


def tried(sabotage: Sabotage, given: Mapping[str, Rows], engine: RunningEngine, batch_size: int = 16) -> Caught:
    """Run the sabotaged stage for real."""
    done: list[str] = []
    own = SFT if issubclass(sabotage.stage, SftStage) else DPO
    options = {**own, "batch_size": batch_size, **sabotage.options}
    kind = "pairs" if "pairs" in given else "reflections"
    rows = {**given, kind: sabotage.rows(given[kind])}
    size = len(given["pairs"]) if "pairs" in given else len(given["reflections"]) + len(given["interactions"])
    steps = -(-size // options["batch_size"])
    try:
        run_stage(
            sabotage.stage,
            options=options,
            given=rows,
            engine=engine,
            watch=lambda moment: done.append(moment) if moment == "step" else None,
        )
    except StageFailed as error:
        return Caught(_short(error.message), len(done), steps)
    return Caught("", len(done), steps)


def _short(message: str) -> str:
    """The first line of what a failed cell says, without its place."""
    line = message.splitlines()[0]
    return line[line.index("monitor.") :] if "monitor." in line else line


@contextmanager
def running() -> Iterator[RunningEngine]:
    """An engine with the demo models."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "engine.log"
        with EngineProcess.start(MODELS, Path(folder) / "storage", log=log, device="cpu") as process:
            yield RunningEngine(process.base_url, process.api_key, lambda: None)


def rows_of(runs_dir: Path) -> dict[str, Rows]:
    """What `pirate-mini` published in a store, by kind."""
    found = {}
    for stage, kind in (("pairs", "pairs"), ("reflection", "reflections"), ("interaction", "interactions")):
        for path in sorted((runs_dir / "store").glob(f"{stage}-*/{kind}-*.jsonl")):
            found[kind] = [json.loads(line) for line in path.read_text().splitlines()]
    return found


def main() -> None:
    """Print the matrix."""
    runs_dir = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "runs"
    spec = REPOSITORY / "specs" / "pirate-mini.yaml"
    made = ["--until", "interaction", "--runs-dir", str(runs_dir), "--plain"]
    subprocess.run([sys.executable, "-m", "charrun", str(spec), *made], check=True, stdout=subprocess.DEVNULL)
    rows = rows_of(runs_dir)
    print("| sabotage | caught by | after |\n|---|---|---|")
    with running() as engine:
        run_stage(DpoStage, options=DPO, given={"pairs": rows["pairs"]}, engine=engine, runs_dir=runs_dir / "dpo")
        for sabotage in MATRIX:
            print_row(sabotage, tried(sabotage, given_of(sabotage, rows, engine, runs_dir / "dpo"), engine))


def given_of(sabotage: Sabotage, rows: Mapping[str, Rows], engine: RunningEngine, place: Path) -> dict[str, Rows]:
    """The rows that the stage consumes; SFT continues a healthy DPO's checkpoint."""
    if issubclass(sabotage.stage, DpoStage):
        return {"pairs": list(rows["pairs"])}
    outcome = run_stage(DpoStage, options=DPO, given={"pairs": rows["pairs"]}, engine=engine, runs_dir=place)
    return {
        "checkpoint": outcome.rows["checkpoint"],
        "reflections": list(rows["reflections"]),
        "interactions": list(rows["interactions"]),
    }


def print_row(sabotage: Sabotage, caught: Caught) -> None:
    """One row of the table."""
    late = " (too late)" if sabotage.must and caught.step > caught.steps / 10 else ""
    print(f"| {sabotage.what} | {caught.by or '-'} | {caught.step} of {caught.steps} steps{late} |", flush=True)


if __name__ == "__main__":
    main()
