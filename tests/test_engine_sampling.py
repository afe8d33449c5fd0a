"""The sampler in this process: what a request gets depends on nothing but the request, and is what the model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from charrun.demo import MODELS
from charrun.engine.blocks import BLOCK, BlockPool
from charrun.engine.errors import RequestRefused
from charrun.engine.folders import describe
from charrun.engine.fused import FusedComputer
from charrun.engine.general import GeneralComputer
from charrun.engine.lora import Adapter, LoraSpec
from charrun.engine.models import HostedModel
from charrun.engine.requests import SampleJob, SampleResult, SampleSpec
from charrun.engine.sampling import SamplingScheduler, Weights
from charrun.engine.settings import EngineSettings
from charrun.engine.stops import StopRule

STUDENT = "charrun/demo-student"
NEVER = StopRule(frozenset())
SHAPE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}


def host(name: str, folder: Path) -> HostedModel:
    return HostedModel(describe(name, folder), torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def student() -> HostedModel:
    return host(STUDENT, MODELS[STUDENT])


def scheduler(threads: int = 1, **options: Any) -> SamplingScheduler:
    return SamplingScheduler(
        EngineSettings(models={}, storage=Path("unused"), api_key="tml-unused", threads=threads, **options)
    )


def request(prompt: Sequence[int] | NDArray[np.int64], new: int, **options: Any) -> SampleSpec:
    plain: dict[str, Any] = {"samples": 1, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "seed": 0, "stop": NEVER}
    return SampleSpec(prompt=np.array(prompt, np.int64), max_tokens=new, **{**plain, **options})


def serve(
    sampler: SamplingScheduler, weights: Weights | Sequence[Weights], specs: Sequence[SampleSpec], at_once: int = 1000
) -> list[SampleResult]:
    """Results in the order of the requests, of which so many arrive at a time."""
    results: dict[int, SampleResult] = {}

    errors: list[Exception] = []
    each = [weights] * len(specs) if isinstance(weights, Weights) else weights
    entries = list(enumerate(zip(each, specs, strict=True)))
    while entries or sampler.has_work:
        for number, (own, spec) in entries[:at_once]:
            sampler.add(own, SampleJob(spec, partial(results.__setitem__, number), errors.append))
        entries = entries[at_once:]
        sampler.work(0.02)
        if errors:
            raise errors[0]
    return [results[number] for number in range(len(specs))]


def varied(count: int, seed: int = 3) -> list[SampleSpec]:
    """Requests of all kinds, many of which begin alike."""
    rng = np.random.default_rng(seed)
    beginning = np.arange(200) % 1900 + 5
    specs = []
    for number in range(count):
        own = rng.integers(10, 2000, int(rng.integers(1, 200)))
        prompt = np.concatenate([beginning[: int(rng.integers(0, 200))], own])
        specs.append(
            request(
                prompt,
                int(rng.integers(1, 90)),
                samples=int(rng.choice([1, 1, 1, 3])),
                temperature=float(rng.choice([0.0, 0.7, 1.0, 1.5])),
                top_p=float(rng.choice([1.0, 0.95, 0.4])),
                top_k=int(rng.choice([-1, -1, 5, 50])),
                seed=number,
                score_from=[None, 1, len(prompt) - 1][int(rng.integers(0, 3))] if len(prompt) > 1 else None,
            )
        )
    return specs


def contents(results: Sequence[SampleResult]) -> list[Any]:
    """Everything that must be equal to the bit."""
    return [
        (
            [(sequence.tokens, sequence.logprobs) for sequence in result.sequences],
            None if result.scores is None or result.scores.logprobs is None else result.scores.logprobs.tobytes(),
        )
        for result in results
    ]


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_request_gets_the_same_bits_alone_in_a_crowd_in_any_order_and_from_a_warm_cache(
    student: HostedModel, threads: int
) -> None:
    weights, specs = Weights(STUDENT, student), varied(60)
    sampler = scheduler(threads)
    crowd = serve(sampler, weights, specs)
    expected = contents(crowd)
    warm = serve(sampler, weights, specs)
    assert sum(result.cached_tokens for result in warm) > sum(result.cached_tokens for result in crowd)
    assert contents(warm) == expected
    backwards = serve(scheduler(threads), weights, specs[::-1], at_once=1)
    assert contents(backwards[::-1]) == expected
    tight = serve(scheduler(threads, max_sequences=3, prefill_tokens=17), weights, specs)
    assert contents(tight) == expected
    assert [contents(serve(scheduler(threads), weights, [spec])) for spec in specs[:8]] == [
        [content] for content in expected[:8]
    ]


def test_an_answer_that_becomes_a_prompt_is_found_in_the_cache_and_scores_the_same_bits(student: HostedModel) -> None:
    weights, sampler = Weights(STUDENT, student), scheduler()
    spec = request(range(10, 110), 100, temperature=0.7)
    (first,) = serve(sampler, weights, [spec])
    whole = np.concatenate([spec.prompt, np.array(first.sequences[0].tokens)])
    (warm,) = serve(sampler, weights, [request(whole, 5, seed=9)])
    assert warm.cached_tokens == 192  # all full blocks of the 199 positions that were computed
    for each in (sampler, scheduler()):
        (scored,) = serve(each, weights, [request(whole, 1, score_from=100)])
        assert scored.scores is not None and scored.scores.logprobs is not None
        assert scored.scores.logprobs[100:].tolist() == first.sequences[0].logprobs
    (cold,) = serve(scheduler(), weights, [request(whole, 5, seed=9)])
    assert contents([warm]) == contents([cold])


def test_requests_that_begin_alike_at_the_same_moment_compute_their_beginning_once(student: HostedModel) -> None:
    specs = [request([*range(10, 139), 200 + number], 3, seed=number) for number in range(10)]
    results = serve(scheduler(), Weights(STUDENT, student), specs)
    assert [result.cached_tokens for result in results] == [0] + [128] * 9


def test_samples_of_one_request_share_its_prompt_and_differ(student: HostedModel) -> None:
    weights = Weights(STUDENT, student)
    several = serve(scheduler(), weights, [request(range(10, 80), 20, samples=6, seed=4)])[0]
    assert len({tuple(sequence.tokens) for sequence in several.sequences}) == 6
    fewer = serve(scheduler(), weights, [request(range(10, 80), 20, samples=2, seed=4)])[0]
    assert contents([several])[0][0][:2] == contents([fewer])[0][0]


def test_more_samples_than_memory_has_room_for_come_in_waves(student: HostedModel) -> None:
    weights, spec = Weights(STUDENT, student), request(range(10, 80), 60, samples=40, score_from=1)
    expected = contents(serve(scheduler(), weights, [spec]))
    block = student.weights().cache_bytes_per_position * BLOCK
    small = scheduler(cache_bytes=7 * block)
    assert contents(serve(small, weights, [spec])) == expected
    with pytest.raises(RequestRefused, match="memory for keys and values of 448"):
        serve(small, weights, [request(range(10, 80), 600)])


def test_cancelled_requests_give_their_blocks_back(student: HostedModel) -> None:
    sampler, weights = scheduler(), Weights(STUDENT, student)
    jobs = [
        SampleJob(request(range(10, 100 + number), 300, seed=number), lambda _: None, lambda _: None)
        for number in range(20)
    ]
    for job in jobs:
        sampler.add(weights, job)
    sampler.work(0.05)
    for job in jobs:
        job.cancelled = True
    while sampler.has_work:
        sampler.work(0.05)
    (station,) = sampler._stations.values()
    assert station.pool.available == station.pool.count


def adapters(model: HostedModel, count: int) -> list[Weights]:
    """Random adapters of the model's attention and MLP."""
    found = []
    linears = {
        name: module
        for name, module in model.weights().module.named_modules()
        if isinstance(module, torch.nn.Linear) and "_proj" in name
    }
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        spec = LoraSpec(4, True, True, False, number)
        layers = {
            name: (
                torch.randn(4, module.in_features, generator=generator) * 0.02,
                torch.randn(module.out_features, 4, generator=generator) * 0.02,
            )
            for name, module in linears.items()
        }
        adapter = Adapter(spec, layers)
        found.append(Weights(f"adapter-{number}", model, lambda adapter=adapter: adapter))
    return found


def test_several_adapters_and_the_base_decode_in_one_batch_each_with_its_own_weights(student: HostedModel) -> None:
    weights = [*adapters(student, 3), Weights(STUDENT, student)]
    specs = varied(24, seed=8)
    owners = [weights[number % 4] for number in range(24)]
    together = serve(scheduler(), owners, specs)
    apart = [serve(scheduler(), own, [spec])[0] for own, spec in zip(owners, specs, strict=True)]
    assert contents(together) == contents(apart)
    assert contents([apart[0]]) != contents(serve(scheduler(), weights[3], [specs[0]]))


def hugging_face_logprobs(folder: Path, tokens: Sequence[int]) -> NDArray[np.float32]:
    """Log-probs [length, vocabulary] by transformers' own pass."""
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([list(tokens)])).logits[0].float()
    return torch.log_softmax(logits, -1).numpy()


def save(model: Any, folder: Path) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module", params=["llama", "qwen2", "llama3-rope", "gemma", "gemma3"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Other architectures with random weights."""
    torch.manual_seed(1)
    rope = {"rope_type": "llama3", "rope_theta": 1e4, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 128}
    build: dict[str, Callable[[], Any]] = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False)),
        "llama3-rope": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=rope)),
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{k: v for k, v in SHAPE.items() if k != "head_dim"})),
        "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SHAPE)),
        "gemma3": lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, sliding_window=512)),
    }
    yield request.param, save(build[request.param](), tmp_path_factory.mktemp(request.param))


def test_every_architecture_samples_from_the_distribution_that_transformers_computes(other: tuple[str, Path]) -> None:
    kind, folder = other
    model = host(kind, folder)
    weights, sampler = Weights(kind, model), scheduler(prefill_tokens=50)
    specs = [
        request(range(5, 5 + length), 30, temperature=temperature, top_p=top_p, seed=length)
        for length, temperature, top_p in [(1, 1.0, 1.0), (70, 0.5, 1.0), (130, 2.0, 0.9), (64, 0.0, 1.0)]
    ]
    results = serve(sampler, weights, specs)
    for spec, result in zip(specs, results, strict=True):
        sampled = result.sequences[0].tokens
        whole = [*spec.prompt.tolist(), *sampled]
        expected = hugging_face_logprobs(folder, whole)[len(spec.prompt) - 1 : -1]
        found = result.sequences[0].logprobs
        assert found == pytest.approx(expected[np.arange(30), sampled].tolist(), abs=1e-4)
        if spec.temperature == 0:
            assert sampled == expected.argmax(-1).tolist()
        (scored,) = serve(sampler, weights, [request(whole, 1, score_from=len(spec.prompt))])
        assert scored.scores is not None and scored.scores.logprobs is not None
        assert scored.scores.logprobs[len(spec.prompt) :].tolist() == pytest.approx(found, abs=1e-4)
    computer = next(iter(sampler._stations.values())).computer
    assert isinstance(computer, GeneralComputer if kind.startswith("gemma") else FusedComputer)


def test_the_general_way_gives_what_the_fused_one_gives(student: HostedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [replace(spec, temperature=0.0, max_tokens=5) for spec in varied(20, seed=5)]
    fused = serve(scheduler(), Weights(STUDENT, student), specs)
    monkeypatch.setattr(FusedComputer, "of", classmethod(lambda *_: None))
    weights = [*adapters(student, 1) * 10, *[Weights(STUDENT, student)] * 10]
    general = serve(scheduler(prefill_tokens=100), weights, specs)
    for one, other in list(zip(fused, general, strict=True))[10:]:
        assert one.sequences[0].logprobs == pytest.approx(other.sequences[0].logprobs, abs=1e-3)


def outcomes(sampler: SamplingScheduler, entries: Sequence[tuple[Weights, SampleSpec]]) -> list[Any]:
    """A result or an error for each request."""
    found: dict[int, Any] = {}
    for number, (weights, spec) in enumerate(entries):
        put = partial(found.__setitem__, number)
        sampler.add(weights, SampleJob(spec, put, put))
    while sampler.has_work:
        sampler.work(0.05)
    return [found[number] for number in range(len(entries))]


def test_weights_that_give_no_distribution_fail_their_own_requests_alone(student: HostedModel) -> None:
    (good,) = adapters(student, 1)
    assert good.adapter is not None
    layers = {name: (first * float("nan"), second) for name, (first, second) in good.adapter().layers.items()}
    broken = Weights("broken", student, lambda: Adapter(LoraSpec(4, True, True, False, 0), layers))
    spec = request(range(10, 90), 20)
    first, failed, last = outcomes(scheduler(), [(good, spec), (broken, spec), (Weights(STUDENT, student), spec)])
    assert isinstance(failed, RequestRefused) and "not finite" in failed.message
    assert contents([first, last]) == contents(serve(scheduler(), [good, Weights(STUDENT, student)], [spec, spec]))


def test_an_adapter_that_cannot_be_read_costs_no_room(student: HostedModel) -> None:
    def read() -> Adapter:
        raise FileNotFoundError("adapter_model.safetensors")

    sampler, spec = scheduler(), request(range(10, 90), 20)
    answers = outcomes(sampler, [(Weights("gone", student, read), spec)] * 5)
    assert all(isinstance(answer, FileNotFoundError) for answer in answers)
    (station,) = sampler._stations.values()
    assert station.pool.available == station.pool.count


def test_after_a_failure_within_the_sampler_waiting_requests_are_answered_and_later_ones_served(
    student: HostedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampler, weights, spec = scheduler(), Weights(STUDENT, student), request(range(10, 90), 20)
    expected = contents(serve(sampler, weights, [spec]))
    for method in ("hidden", "copy_block"):
        with monkeypatch.context() as patch:
            patch.setattr(FusedComputer, method, lambda *_: 1 / 0)
            (failed,) = outcomes(sampler, [(weights, replace(spec, samples=2))])
        assert isinstance(failed, ZeroDivisionError)
        assert contents(serve(sampler, weights, [spec])) == expected
    with monkeypatch.context() as patch:
        patch.setattr(BlockPool, "give_back", lambda *_: 1 / 0)
        answers = outcomes(sampler, [(weights, spec), (weights, replace(spec, seed=2, max_tokens=90))])
    assert any(isinstance(answer, ZeroDivisionError) for answer in answers)
    assert contents(serve(sampler, weights, [spec])) == expected
