"""One client of benchmarks/soak.py: asks an engine for things whose answers are known, and checks each.

    python benchmarks/soak_client.py FOLDER NUMBER

Whoever gets an answer first writes it down in FOLDER/expected; everyone else, whichever client, at whatever load and
after however many restarts, must get the same. A line per finished task goes to FOLDER/<number>-<pid>.jsonl.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tinker
from tinker import types

MODEL = "charrun/demo-student-small"
VOCABULARY = 1024
TASKS = 24
"""Sampling tasks that all clients share."""
SEEDS = 3
"""Training runs that all clients share."""


class Wrong(Exception):
    """An answer that is not what was answered before, or not what must follow from it."""


class Client:
    """One session with the engine and the folder of known answers."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._rng = random.Random(f"{number}-{os.getpid()}")
        self._service = tinker.ServiceClient(display_name=f"soak {number}")
        self._sampler = self._service.create_sampling_client(base_model=MODEL).result()

    def work(self) -> tuple[str, int]:
        """One task of a random kind; returns its kind and the number of answers that were checked."""
        kinds: dict[str, Callable[[], int]] = {"sample": self.sample, "burst": self.burst, "train": self.train}
        kind = self._rng.choices(list(kinds), [4, 3, 2])[0]
        return kind, kinds[kind]()

    def sample(self) -> int:
        """A seeded request, and its log-probs computed again from the tokens alone."""
        task = self._rng.randrange(TASKS)
        prompt, samples, params = sampling_task(task)
        response = self._sampler.sample(types.ModelInput.from_ints(prompt), samples, params).result()
        self._same(f"sample-{task}", answer(response))
        sequence = response.sequences[0]
        whole = types.ModelInput.from_ints([*prompt, *sequence.tokens])
        again = self._sampler.compute_logprobs(whole).result()
        self._same(f"logprobs-{task}", again)
        if params.temperature == 1 and not np.allclose(again[len(prompt) :], sequence.logprobs, rtol=0, atol=1e-3):
            raise Wrong(f"sample-{task}: sampled log-probs are not the recomputed ones")
        return 2

    def burst(self) -> int:
        """Sixteen requests at once."""
        tasks = [self._rng.randrange(TASKS) for _ in range(16)]
        futures = []
        for task in tasks:
            prompt, samples, params = sampling_task(task)
            futures.append(self._sampler.sample(types.ModelInput.from_ints(prompt), samples, params))
        for task, future in zip(tasks, futures, strict=True):
            self._same(f"sample-{task}", answer(future.result()))
        return len(tasks)

    def train(self) -> int:
        """A training run, saved, sampled from, resumed and deleted, in a session of its own."""
        seed = self._rng.randrange(SEEDS)
        rows = training_rows(seed)
        adam = types.AdamParams(learning_rate=1e-3)
        with tinker.ServiceClient(display_name="soak training") as service:
            run = service.create_lora_training_client(MODEL, rank=8, seed=seed, train_unembed=False).result()
            steps = [(run.forward_backward(rows, "cross_entropy"), run.optim_step(adam)) for _ in range(4)]
            curve = [passed.result().metrics["loss:sum"] for passed, _ in steps]
            self._near(f"curve-{seed}", curve)
            state = run.save_state("state").result().path
            weights = run.save_weights_for_sampler("sampler").result().path
            sampler = service.create_sampling_client(model_path=weights).result()
            prompt = types.ModelInput.from_ints(sampling_task(seed)[0])
            self._near(f"tuned-{seed}", sampler.compute_logprobs(prompt).result()[1:])
            resumed = service.create_training_client_from_state_with_optimizer(state).result()
            on = [resumed.forward_backward(rows, "cross_entropy"), run.forward_backward(rows, "cross_entropy")]
            self._near(f"resumed-{seed}", [each.result().metrics["loss:sum"] for each in on])
            rest = tinker.RestClient()
            for path in (state, weights):
                rest.delete_checkpoint_from_tinker_path(path).result()
            with contextlib.suppress(tinker.NotFoundError):
                service.create_sampling_client(model_path=weights).result()
                raise Wrong("a deleted checkpoint can still be sampled from")
        return 5

    def _known(self, name: str, value: Any) -> Any:
        """What was answered to this first."""
        path = self._folder / "expected" / f"{name}.json"
        if not path.exists():
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(value))
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        return json.loads(path.read_text())

    def _same(self, name: str, value: Any) -> None:
        value = json.loads(json.dumps(value))
        if self._known(name, value) != value:
            raise Wrong(f"{name}: not what was answered before")

    def _near(self, name: str, value: list[float]) -> None:
        known = self._known(name, value)
        if not np.allclose(known, value, rtol=1e-4, atol=1e-4):
            raise Wrong(f"{name}: {value} is not {known}")


def sampling_task(task: int) -> tuple[list[int], int, types.SamplingParams]:
    """Prompt, number of samples and parameters of a task."""
    rng = random.Random(task)
    prompt = [rng.randrange(20, VOCABULARY) for _ in range(rng.randint(5, 200))]
    temperature = rng.choice([0.0, 0.7, 1.0, 1.0])
    return (
        prompt,
        rng.randint(1, 4),
        types.SamplingParams(max_tokens=rng.randint(8, 96), seed=task, temperature=temperature, stop=[]),
    )


def training_rows(seed: int) -> list[types.Datum]:
    """Eight random rows of different lengths."""
    rng = random.Random(1000 + seed)
    rows = []
    for _ in range(8):
        tokens = [rng.randrange(20, VOCABULARY) for _ in range(rng.randint(16, 128))]
        targets = {"target_tokens": tokens[1:], "weights": [1.0] * (len(tokens) - 1)}
        rows.append(types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=targets))
    return rows


def answer(response: types.SampleResponse) -> list[Any]:
    """Tokens and log-probs of each sequence."""
    return [[list(each.tokens), [float(number) for number in each.logprobs or ()]] for each in response.sequences]


def main() -> None:
    """Work until FOLDER/stop exists."""
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    with (folder / f"{number}-{os.getpid()}.jsonl").open("w", buffering=1) as log:
        client = Client(folder, number)
        log.write(json.dumps({"kind": "ready", "checked": 0, "seconds": 0.0, "wrong": None}) + "\n")
        while not (folder / "stop").exists():
            began, kind, checked, wrong = time.monotonic(), "task", 0, None
            try:
                kind, checked = client.work()
            except (Wrong, tinker.TinkerError, ValueError) as error:
                wrong = f"{type(error).__name__}: {error}"
            line = {"kind": kind, "checked": checked, "seconds": time.monotonic() - began, "wrong": wrong}
            log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
