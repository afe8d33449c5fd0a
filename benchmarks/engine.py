"""The local engine, through the real SDK over HTTP, against transformers and PEFT in this process, in one run.

    python benchmarks/engine.py [--only sampling,training,load,roofline] [--quick]
    python benchmarks/engine.py --shape qwen3-0.6b --device cuda     # random weights, bf16, where there is a GPU

Reference A is `transformers.generate` with the LoRA adapter merged, in static batches of 128, left padded, each batch
as long as its longest request, with as many torch threads as suit it best. Reference B is a plain PyTorch + PEFT loop.
`tok/s` counts tokens that were asked for. `alone` is the engine's sampler without a server, in this process.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine_load
import engine_training
import numpy as np
import tinker
import torch
from numpy.typing import NDArray
from peft import PeftModel
from tinker import types
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from charrun.demo import MODELS
from charrun.engine.causal import load_causal
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.folders import describe
from charrun.engine.models import HostedModel
from charrun.engine.process import EngineProcess
from charrun.engine.requests import SampleJob, SampleResult, SampleSpec
from charrun.engine.sampling import SamplingScheduler, Weights
from charrun.engine.settings import EngineSettings
from charrun.engine.stops import StopRule

BATCH = 128
CONVERSATIONS, TURNS, TURN_TOKENS, USER_TOKENS = 150, 8, 128, 20
Prompt = NDArray[np.int64]


@dataclass(frozen=True)
class Request:
    """One request: a prompt and how many tokens to sample."""

    prompt: Prompt
    tokens: int


@dataclass(frozen=True)
class Case:
    """Requests that are made at once, and how they are sampled."""

    name: str
    requests: Sequence[Request]
    temperature: float = 1.0
    top_p: float = 1.0


class Reference:
    """Reference A."""

    def __init__(self, folder: Path, adapter: Path, device: str) -> None:
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=dtype).to(device)
        merged: Any = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        self._model = merged.eval()
        self._device = device
        self.threads = self._best_threads()

    def _best_threads(self) -> int:
        """The number of torch's threads with which this reference is fastest here; it is set."""
        trial = Case("trial", [Request(np.arange(10, 110), 8)] * BATCH)
        speeds = {}
        for threads in sorted({1, torch.get_num_threads()}):
            torch.set_num_threads(threads)
            self.serve(trial)
            speeds[threads] = timed(self, trial)
        best = max(speeds, key=lambda threads: speeds[threads])
        torch.set_num_threads(best)
        return best

    def serve(self, case: Case) -> list[list[int]]:
        """The sampled tokens of each request."""
        answers = []
        for start in range(0, len(case.requests), BATCH):
            part = case.requests[start : start + BATCH]
            longest = max(len(request.prompt) for request in part)
            tokens, mask = np.zeros((len(part), longest), np.int64), np.zeros((len(part), longest), np.int64)
            for row, request in enumerate(part):
                tokens[row, longest - len(request.prompt) :] = request.prompt
                mask[row, longest - len(request.prompt) :] = 1
            new = max(request.tokens for request in part)
            with torch.inference_mode():
                found = self._model.generate(
                    input_ids=torch.from_numpy(tokens).to(self._device),
                    attention_mask=torch.from_numpy(mask).to(self._device),
                    max_new_tokens=new,
                    min_new_tokens=new,
                    do_sample=True,
                    temperature=case.temperature,
                    top_p=case.top_p,
                    top_k=0,
                    pad_token_id=0,
                )
            rows = found[:, longest:].tolist()
            answers += [row[: request.tokens] for row, request in zip(rows, part, strict=True)]
        return answers


class Served:
    """The engine behind HTTP, as a Tinker program sees it."""

    def __init__(self, client: tinker.SamplingClient) -> None:
        self._client = client

    def serve(self, case: Case) -> list[list[int]]:
        """The sampled tokens of each request."""
        futures = [
            self._client.sample(
                types.ModelInput.from_ints(request.prompt.tolist()),
                1,
                types.SamplingParams(
                    max_tokens=request.tokens,
                    temperature=case.temperature,
                    top_p=case.top_p,
                    seed=number,
                    stop=[],
                ),
            )
            for number, request in enumerate(case.requests)
        ]
        return [list(future.result().sequences[0].tokens) for future in futures]


class Alone:
    """The engine's sampler without a server."""

    def __init__(self, name: str, folder: Path, storage: Path, path: str, device: str) -> None:
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model = HostedModel(describe(name, folder), torch.device(device), dtype)
        store = CheckpointStore(storage)
        checkpoint = store.find(path)
        self._weights = Weights(path, model, lambda: store.adapter(checkpoint))
        self._scheduler = SamplingScheduler(EngineSettings(models={}, storage=storage, api_key="tml-benchmark"))

    def serve(self, case: Case) -> list[list[int]]:
        """The sampled tokens of each request."""
        results: dict[int, SampleResult] = {}
        for number, request in enumerate(case.requests):
            spec = SampleSpec(
                request.prompt, 1, request.tokens, case.temperature, case.top_p, -1, number, StopRule(frozenset())
            )
            job = SampleJob(spec, lambda result, number=number: results.__setitem__(number, result), _fail)
            self._scheduler.add(self._weights, job)
        while self._scheduler.has_work:
            self._scheduler.work(1.0)
        return [results[number].sequences[0].tokens for number in range(len(case.requests))]


def _fail(error: Exception) -> None:
    raise error


Sampler = Reference | Served | Alone


def sampling_cases(rng: np.random.Generator, vocabulary: int, scale: int) -> list[Case]:
    """The cases of the table; `scale` 1 is the whole, more is a part."""

    def prompts(count: int) -> list[Prompt]:
        return [rng.integers(10, vocabulary - 10, int(rng.integers(90, 111))) for _ in range(count)]

    some = 256 // scale
    spread = rng.integers(8, 257, some)
    return [
        Case("256 x 256 new", [Request(prompt, 256) for prompt in prompts(some)]),
        Case("256 x 64 new", [Request(prompt, 64) for prompt in prompts(some)]),
        Case("256 x 8 to 256 new", [Request(p, int(n)) for p, n in zip(prompts(some), spread, strict=True)]),
        Case("256 x 256, T .7 top-p .95", [Request(prompt, 256) for prompt in prompts(some)], 0.7, 0.95),
    ]


def timed(sampler: Sampler, case: Case) -> float:
    """Tokens per second."""
    began = time.perf_counter()
    answers = sampler.serve(case)
    seconds = time.perf_counter() - began
    wanted = [request.tokens for request in case.requests]
    assert [len(answer) for answer in answers] == wanted, "not what was asked for"
    return sum(wanted) / seconds


def converse(sampler: Sampler, rng: np.random.Generator, vocabulary: int, scale: int) -> float:
    """Tokens per second of conversations: each turn is a new request whose prompt holds all turns before."""
    count, turns = CONVERSATIONS // scale, TURNS
    histories = [rng.integers(10, vocabulary - 10, 100) for _ in range(count)]
    if isinstance(sampler, Served):
        return _converse_freely(sampler, histories, rng, vocabulary)
    began = time.perf_counter()
    for _ in range(turns):
        case = Case("turn", [Request(history, TURN_TOKENS) for history in histories])
        for number, answer in enumerate(sampler.serve(case)):
            user = rng.integers(10, vocabulary - 10, USER_TOKENS)
            histories[number] = np.concatenate([histories[number], np.array(answer), user])
    return count * turns * TURN_TOKENS / (time.perf_counter() - began)


def _converse_freely(served: Served, histories: list[Prompt], rng: np.random.Generator, vocabulary: int) -> float:
    """Each conversation goes on as soon as it has its answer."""
    seeds = rng.integers(0, 2**31, len(histories))

    def talk(number: int) -> None:
        own, history = np.random.default_rng(seeds[number]), histories[number]
        for _ in range(TURNS):
            (answer,) = served.serve(Case("turn", [Request(history, TURN_TOKENS)]))
            history = np.concatenate([history, np.array(answer), own.integers(10, vocabulary - 10, USER_TOKENS)])

    began = time.perf_counter()
    with ThreadPoolExecutor(len(histories)) as threads:
        list(threads.map(talk, range(len(histories))))
    return len(histories) * TURNS * TURN_TOKENS / (time.perf_counter() - began)


def report_sampling(samplers: dict[str, Sampler], vocabulary: int, scale: int, repeats: int) -> dict[str, float]:
    """Measures and prints the table of sampling; returns the best tokens per second of each sampler's first case."""
    rng = np.random.default_rng(0)
    for sampler in samplers.values():
        timed(sampler, Case("warm up", [Request(np.arange(10, 110), 8)] * 4))
    print(f"\n{'sampling':<28} {'A tok/s':>9} {'HTTP':>9} {'x A':>6} {'alone':>9} {'x A':>6}")
    best: dict[str, float] = {}
    rows: list[tuple[str, Callable[[Sampler], float]]] = []
    for number in range(4):
        rows.append(("", lambda sampler, number=number: timed(sampler, sampling_cases(rng, vocabulary, scale)[number])))
    rows.append(("", lambda sampler: converse(sampler, rng, vocabulary, scale)))
    names = [case.name for case in sampling_cases(rng, vocabulary, scale)]
    names.append(f"{CONVERSATIONS} conversations x {TURNS}")
    for name, (_, measure) in zip(names, rows, strict=True):
        found: dict[str, list[float]] = {key: [] for key in samplers}
        for _ in range(repeats):
            for key, sampler in samplers.items():
                found[key].append(measure(sampler))
        speeds = {key: float(np.median(values)) for key, values in found.items()}
        best.update({key: max(best.get(key, 0.0), value) for key, value in speeds.items()})
        a, http, alone = speeds["A"], speeds["HTTP"], speeds["alone"]
        print(f"{name:<28} {a:>9,.0f} {http:>9,.0f} {http / a:>6.2f} {alone:>9,.0f} {alone / a:>6.2f}", flush=True)
    return best


def report_roofline(folder: Path, device: str, speeds: dict[str, float]) -> None:
    """What the machine's matrix product reaches at the model's shapes, beside what sampling made of it."""
    causal = load_causal(folder, torch.device(device), torch.float32 if device == "cpu" else torch.bfloat16)
    linears = [module for module in causal.module.modules() if isinstance(module, torch.nn.Linear)]
    operations = 2 * sum(module.weight.numel() for module in linears)
    seconds = 0.0
    with torch.inference_mode():
        for module in linears:
            inputs = torch.randn(BATCH, module.in_features, dtype=module.weight.dtype, device=device)
            module(inputs)
            times = []
            for _ in range(50):
                began = time.perf_counter()
                module(inputs)
                if device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - began)
            seconds += float(np.median(times))
    reached = BATCH * operations / seconds
    threads = torch.get_num_threads()
    print(f"\nroofline: linear layers alone, {BATCH} rows, {threads} threads: {reached / 1e9:,.0f} GFLOP/s", end="")
    print(f" = {reached / operations:,.0f} tokens/s")
    for name, speed in speeds.items():
        share = speed * operations / reached
        print(f"  {name}: {speed * operations / 1e9:,.1f} GFLOP/s in linear layers, {share:.0%} of it")


def shaped_model(folder: Path) -> Path:
    """A model of Qwen3-0.6B's shape with random weights."""
    config = Qwen3Config(
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=40_960,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen3ForCausalLM(config).to(torch.bfloat16).save_pretrained(str(folder))
    return folder


def adapter_for_sampling(service: tinker.ServiceClient, name: str, vocabulary: int) -> tuple[str, str]:
    """Checkpoints of a slightly trained adapter: to sample from, and to download."""
    client = service.create_lora_training_client(name, rank=32, train_unembed=False, seed=1).result()
    rng = np.random.default_rng(0)
    row = rng.integers(10, vocabulary - 10, 65)
    inputs = {"target_tokens": row[1:], "weights": np.full(64, 1 / 64, np.float32)}
    datum = types.Datum(model_input=types.ModelInput.from_ints(row[:-1].tolist()), loss_fn_inputs=inputs)
    for _ in range(2):
        client.forward_backward([datum], "cross_entropy").result()
        client.optim_step(types.AdamParams(learning_rate=1e-3)).result()
    return client.save_weights_for_sampler("sampler").result().path, client.save_state("state").result().path


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="charrun/demo-student")
    parser.add_argument("--shape", choices=["qwen3-0.6b"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", default="sampling,training,load,roofline")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="an eighth of the requests")
    options = parser.parse_args()
    parts, scale = options.only.split(","), 8 if options.quick else 1
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        name = options.shape or options.model
        folder = shaped_model(root / "model") if options.shape else MODELS[options.model]
        vocabulary = describe(name, folder).vocabulary
        print(f"{name} on {options.device}, {os.cpu_count()} CPUs, torch {torch.__version__}")
        with (
            EngineProcess.start(
                {name: folder}, root / "storage", log=root / "engine.log", device=options.device
            ) as process,
            tinker.ServiceClient(base_url=process.base_url, api_key=process.api_key) as service,
        ):
            best: dict[str, float] = {}
            if "sampling" in parts:
                path, _state = adapter_for_sampling(service, name, vocabulary)
                store = CheckpointStore(root / "storage")
                adapter = store.folder(store.find(path).place)
                reference = Reference(folder, adapter, options.device)
                samplers: dict[str, Sampler] = {
                    "A": reference,
                    "HTTP": Served(service.create_sampling_client(path).result()),
                    "alone": Alone(name, folder, root / "storage", path, options.device),
                }
                print(f"A runs with {reference.threads} torch threads")
                best = report_sampling(samplers, vocabulary, scale, options.repeats)
            if "training" in parts:
                print(f"\ntraining, LoRA rank {options.rank}\n{engine_training.HEADER}")
                for timing in engine_training.measure(service, name, folder, options.rank, 3 * options.repeats):
                    print(timing.line(), flush=True)
            if "load" in parts:
                engine_load.report(process, service, name, vocabulary)
            if "roofline" in parts:
                report_roofline(folder, options.device, best)


if __name__ == "__main__":
    main()
