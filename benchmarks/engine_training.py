"""Training through the engine, over HTTP with the real SDK, against a plain PyTorch + PEFT loop in this process.

    python benchmarks/engine_training.py [--model charrun/demo-student] [--rank 64] [--repeats 9]

Prints seconds per step (medians of interleaved steps) and the ratio. `B` is the plain loop: the transformers model with
PEFT's adapters on the same layers, rows padded to the longest, logits into cross entropy, AdamW.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tinker
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model
from tinker import types
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM

from charrun.demo import MODELS
from charrun.engine.adam import AdamStep
from charrun.engine.causal import load_causal
from charrun.engine.lora import LoraSpec
from charrun.engine.losses import make_loss
from charrun.engine.process import EngineProcess
from charrun.engine.training import Datum, TrainingRun

BETA = 0.1
ACTIVATION_BYTES = 384 << 20
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAM = types.AdamParams(learning_rate=1e-4, beta1=0.9, beta2=0.95, eps=1e-12)
Rows = Sequence[NDArray[np.int64]]


@dataclass(frozen=True)
class Timing:
    """Median seconds per step of one case, and its tokens per step."""

    case: str
    tokens: int
    plain: float
    engine: float
    alone: float | None

    def line(self) -> str:
        """A row of the table."""
        alone = f"{self.tokens / self.alone:>9,.0f} {self.plain / self.alone:>6.2f}" if self.alone else " " * 16
        return (
            f"{self.case:<22} {self.tokens:>7,} {self.tokens / self.plain:>9,.0f} {self.tokens / self.engine:>9,.0f} "
            f"{self.plain / self.engine:>6.2f} {alone} {self.engine / self.plain:>8.2f}"
        )


HEADER = f"{'case':<22} {'tokens':>7} {'B tok/s':>9} {'HTTP':>9} {'x B':>6} {'no HTTP':>9} {'x B':>6} {'time / B':>8}"


class PlainLoop:
    """The reference: transformers, PEFT and AdamW, nothing else."""

    def __init__(self, folder: Path, rank: int) -> None:
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
        config = LoraConfig(r=rank, lora_alpha=32, lora_dropout=0.0, target_modules=LAYERS, task_type="CAUSAL_LM")
        self.model: Any = get_peft_model(model, config).train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._adam = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)

    def logits(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Logits [rows, longest, vocabulary] and targets [rows, longest], -100 where a row is padded."""
        longest = max(map(len, rows)) - 1
        tokens = torch.zeros((len(rows), longest), dtype=torch.int64)
        targets = torch.full((len(rows), longest), -100)
        mask = torch.zeros((len(rows), longest), dtype=torch.int64)
        for number, row in enumerate(rows):
            values = torch.from_numpy(row)
            tokens[number, : len(row) - 1], targets[number, : len(row) - 1] = values[:-1], values[1:]
            mask[number, : len(row) - 1] = 1
        return self.model(input_ids=tokens, attention_mask=mask).logits, targets

    def step(self, rows: Rows) -> None:
        """A step of supervised training."""
        logits, targets = self.logits(rows)
        self._update(functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100))

    def dpo_step(self, rows: Rows, reference: Tensor) -> None:
        """A step of DPO on rows chosen, rejected, chosen, ...; reference log-probs [rows] are given."""
        logits, targets = self.logits(rows)
        losses = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")
        self._update(dpo_loss(-losses.view(targets.shape).sum(-1), reference))

    def _update(self, loss: Tensor) -> None:
        self._adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()


class EngineLoop:
    """The same steps as a Tinker program."""

    def __init__(self, service: tinker.ServiceClient, model: str, rank: int) -> None:
        self._client = service.create_lora_training_client(model, rank=rank, train_unembed=False, seed=1).result()

    def step(self, rows: Rows) -> None:
        """A step of supervised training."""
        count = sum(len(row) - 1 for row in rows)
        data = [_datum(row, 1 / count) for row in rows]
        done = self._client.forward_backward(data, "cross_entropy"), self._client.optim_step(ADAM)
        for future in done:
            future.result()

    def dpo_step(self, rows: Rows, reference: Tensor) -> None:
        """A step of DPO."""

        def loss(_: list[types.Datum], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
            return dpo_loss(torch.stack([row.sum() for row in logprobs]), reference), {}

        done = self._client.forward_backward_custom([_datum(row, 0.0) for row in rows], loss)
        stepped = self._client.optim_step(ADAM)
        done.result()
        stepped.result()


class DirectLoop:
    """The engine's training run without a server."""

    def __init__(self, folder: Path, rank: int, activation_bytes: int) -> None:
        base = load_causal(folder, torch.device("cpu"), torch.float32)
        spec = LoraSpec.create(rank, True, True, False, 1)
        self.run = TrainingRun(base, spec, folder, activation_bytes)
        self._loss = make_loss("cross_entropy", {})

    def step(self, rows: Rows) -> None:
        """A step of supervised training."""
        count = sum(len(row) - 1 for row in rows)
        weights = [np.full(len(row) - 1, 1 / count, np.float32) for row in rows]
        data = [Datum(row[:-1], row[1:], {"weights": w}) for row, w in zip(rows, weights, strict=True)]
        self.run.run(data, self._loss, True)
        self.run.optim_step(AdamStep(1e-4, 0.9, 0.95, 1e-12, 0.0, 0.0))


def dpo_loss(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Mean over pairs of `-log sigmoid(beta * margin)`; both [2 * pairs], chosen and rejected in turns."""
    gain = logprobs - reference
    return -functional.logsigmoid(BETA * (gain[0::2] - gain[1::2])).mean()


def even_rows(vocabulary: int, count: int = 16, length: int = 256) -> list[NDArray[np.int64]]:
    """Rows of one length."""
    rng = np.random.default_rng(0)
    return [rng.integers(3, vocabulary, length + 1) for _ in range(count)]


def mixed_rows(vocabulary: int, count: int = 16) -> list[NDArray[np.int64]]:
    """Rows of 32 to 512 tokens."""
    rng = np.random.default_rng(1)
    lengths = np.linspace(32, 512, count).astype(int)
    return [rng.integers(3, vocabulary, length + 1) for length in rng.permutation(lengths)]


def compare(
    plain: Callable[[], None], engine: Callable[[], None], alone: Callable[[], None] | None, repeats: int
) -> Any:
    """Median seconds of each, taken in turns after one of each to warm up."""
    actions = [action for action in (plain, engine, alone) if action is not None]
    seconds: list[list[float]] = [[] for _ in actions]
    for number in range(repeats + 1):
        for action, found in zip(actions, seconds, strict=True):
            began = time.perf_counter()
            action()
            if number:
                found.append(time.perf_counter() - began)
    medians = [statistics.median(found) for found in seconds]
    return medians[0], medians[1], medians[2] if alone is not None else None


def measure(service: tinker.ServiceClient, name: str, folder: Path, rank: int, repeats: int) -> list[Timing]:
    """All three cases; the service is an engine's on this machine that serves the model in `folder` as `name`."""
    plain, engine, direct = (
        PlainLoop(folder, rank),
        EngineLoop(service, name, rank),
        DirectLoop(folder, rank, 400 << 20),
    )
    vocabulary = int(plain.model.config.vocab_size)
    found = []
    for case, rows in (("16 x 256", even_rows(vocabulary)), ("16 x 32 to 512", mixed_rows(vocabulary))):
        times = compare(
            lambda rows=rows: plain.step(rows),
            lambda rows=rows: engine.step(rows),
            lambda rows=rows: direct.step(rows),
            repeats,
        )
        found.append(Timing(case, sum(len(row) - 1 for row in rows), *times))
    pairs = even_rows(vocabulary, 32, 256)
    reference = torch.full((32,), -1900.0)
    times = compare(
        lambda: plain.dpo_step(pairs, reference), lambda: engine.dpo_step(pairs, reference), None, max(3, repeats // 2)
    )
    found.append(Timing("DPO, 16 pairs x 256", sum(len(row) - 1 for row in pairs), *times))
    return found


def _datum(row: NDArray[np.int64], weight: float) -> types.Datum:
    inputs = {"target_tokens": row[1:], "weights": np.full(len(row) - 1, weight, np.float32)}
    return types.Datum(model_input=types.ModelInput.from_ints(row[:-1].tolist()), loss_fn_inputs=inputs)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="charrun/demo-student")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    folder = MODELS[options.model]
    with (
        tempfile.TemporaryDirectory() as storage,
        EngineProcess.start({options.model: folder}, Path(storage), log=Path(storage, "engine.log")) as process,
        tinker.ServiceClient(base_url=process.base_url, api_key=process.api_key) as service,
    ):
        timings = measure(service, options.model, folder, options.rank, options.repeats)
    print(f"{options.model}, LoRA rank {options.rank}, {torch.get_num_threads()} threads, {os.cpu_count()} CPUs")
    print(HEADER)
    for timing in timings:
        print(timing.line())


if __name__ == "__main__":
    main()
