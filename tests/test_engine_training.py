"""Training in the engine: its gradients and steps against transformers, PEFT and torch, on several architectures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from conftest import RunningEngine
from peft import LoraConfig, get_peft_model
from tinker import types
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from charrun.demo import MODELS
from charrun.engine.adam import AdamStep
from charrun.engine.causal import CausalLM, load_causal
from charrun.engine.errors import RequestRefused
from charrun.engine.lora import LoraSpec
from charrun.engine.losses import Loss, make_loss
from charrun.engine.packed_decoder import PackedDecoder
from charrun.engine.packing import pack
from charrun.engine.training import Datum, TrainingRun

DEMO = "charrun/demo-student"
CROSS_ENTROPY = make_loss("cross_entropy", {})
ADAM = AdamStep(1e-3, 0.9, 0.95, 1e-12, 0.0, 0.0)
AMPLE = 384 << 20
LENGTHS = (40, 3, 90, 130, 77, 80, 81, 1)
TINY = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "dtype": "float32",
    "pad_token_id": 0,
}
SIZED = {**TINY, "head_dim": 8}
FAMILIES: dict[str, tuple[Any, bool]] = {
    "llama": (LlamaConfig(**SIZED, tie_word_embeddings=False, attention_bias=True, mlp_bias=True), True),
    "llama with one key head": (LlamaConfig(**{**SIZED, "num_key_value_heads": 1}, tie_word_embeddings=True), True),
    "mistral": (MistralConfig(**SIZED, sliding_window=None), True),
    "qwen2": (Qwen2Config(**TINY, tie_word_embeddings=True), True),
    "qwen3 untied": (Qwen3Config(**SIZED, tie_word_embeddings=False), True),
    "gemma": (GemmaConfig(**SIZED), False),
    "phi3": (Phi3Config(**TINY), False),
}
"""Configurations, and whether the fast way fits."""
FAST = [name for name, (_, fast) in FAMILIES.items() if fast]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random model of each family; scaled up so that its distributions are not flat."""
    found = {DEMO: MODELS[DEMO]}
    for name, (config, _) in FAMILIES.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn(parameter.shape))
        found[name] = tmp_path_factory.mktemp("model")
        model.save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def bases(folders: dict[str, Path]) -> Callable[[str], CausalLM]:
    loaded: dict[str, CausalLM] = {}

    def base(name: str) -> CausalLM:
        if name not in loaded:
            loaded[name] = load_causal(folders[name], torch.device("cpu"), torch.float32)
        return loaded[name]

    return base


Opener = Callable[..., TrainingRun]


@pytest.fixture(scope="module")
def open_run(folders: dict[str, Path], bases: Callable[[str], CausalLM]) -> Opener:
    def start(
        name: str = DEMO, rank: int = 8, layers: str = "mlp attn", memory: int = AMPLE, general: bool = False
    ) -> TrainingRun:
        spec = LoraSpec.create(rank, "mlp" in layers, "attn" in layers, "unembed" in layers, 3)
        return TrainingRun(bases(name), spec, folders[name], memory, general)

    return start


def rows(vocabulary: int, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[Datum]:
    """Random rows; weights of both signs and some zeros."""
    rng = np.random.default_rng(seed)
    data = []
    for length in lengths:
        tokens = rng.integers(0, vocabulary, length + 1)
        weights = (rng.normal(size=length) * (rng.random(length) < 0.7)).astype(np.float32)
        data.append(Datum(tokens[:-1], tokens[1:], {"weights": weights}))
    return data


def vocabulary(run: TrainingRun) -> int:
    return run.lora.head.vocabulary


def gradients(run: TrainingRun) -> dict[str, Tensor]:
    return {name: view.clone() for name, view in run.lora.parameters.named(run.lora.parameters.gradient)}


def values(run: TrainingRun) -> dict[str, Tensor]:
    return {name: view.clone() for name, view in run.lora.parameters.named()}


def give_update(run: TrainingRun) -> None:
    """An adapter whose B is not zero, so that A has a gradient too."""
    generator = torch.Generator().manual_seed(1)
    adapter = run.lora.adapter()
    layers = {
        name: (first, 0.05 * torch.randn(second.shape, generator=generator))
        for name, (first, second) in adapter.layers.items()
    }
    run.lora.load(replace(adapter, layers=layers))


def plain_peft(folder: Path, run: TrainingRun, dtype: torch.dtype) -> tuple[Any, dict[str, Tensor]]:
    """A PEFT model of its own with the run's adapter, and its trainable parameters by name."""
    config = LoraConfig(r=run.lora.spec.rank, lora_alpha=32, target_modules=run.lora.config.target_modules)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), config).to(dtype).eval()
    trained = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    own = values(run)
    assert trained.keys() == own.keys()
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(own[name])
    return model, trained


def plain_loss(model: Any, data: Sequence[Datum]) -> Tensor:
    total = torch.zeros((), dtype=next(model.parameters()).dtype)
    for datum in data:
        logits = model(torch.from_numpy(datum.tokens)[None]).logits[0]
        chosen = torch.log_softmax(logits, -1).gather(-1, torch.from_numpy(datum.targets)[:, None])[:, 0]
        total = total - (chosen * torch.from_numpy(datum.inputs["weights"])).sum()
    return total


def apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest distance of a matrix, relative to the expected one's norm."""
    assert found.keys() == expected.keys()
    return max(float((found[n] - e).norm() / e.norm().clamp_min(1e-30)) for n, e in expected.items())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_trained_the_fast_way_where_it_fits(open_run: Opener, name: str) -> None:
    assert isinstance(open_run(name).lora.decoder, PackedDecoder) == FAMILIES[name][1]


@pytest.mark.parametrize(
    ("name", "rank", "layers"),
    [
        *((name, 8, "mlp attn") for name in FAMILIES),
        ("qwen2", 1, "mlp attn"),
        ("qwen2", 2, "mlp attn unembed"),
        ("qwen3 untied", 1, "mlp attn unembed"),
        (DEMO, 4, "mlp attn"),
        (DEMO, 64, "mlp attn"),
        (DEMO, 8, "mlp"),
        (DEMO, 8, "attn"),
        (DEMO, 8, "unembed"),
        (DEMO, 64, "mlp attn unembed"),
    ],
)
def test_gradients_are_those_of_autograd_on_a_peft_model(
    open_run: Opener, folders: dict[str, Path], name: str, rank: int, layers: str
) -> None:
    run = open_run(name, rank, layers)
    give_update(run)
    data = rows(vocabulary(run))
    result = run.run(data, CROSS_ENTROPY, True)
    model, trained = plain_peft(folders[name], run, torch.float64)
    loss = plain_loss(model, data)
    loss.backward()
    expected = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-2)
    assert apart(gradients(run), expected) < 1e-5


@pytest.mark.parametrize("name", [DEMO, "llama"])
@pytest.mark.parametrize(("weight_decay", "grad_clip_norm"), [(0.0, 0.0), (0.01, 1.0)])
def test_twenty_steps_follow_a_plain_loop(
    open_run: Opener, folders: dict[str, Path], name: str, weight_decay: float, grad_clip_norm: float
) -> None:
    run = open_run(name)
    model, trained = plain_peft(folders[name], run, torch.float32)
    # with an eps of 1e-12 the first steps are signs of gradients, and those near zero are rounding noise
    step = AdamStep(1e-3, 0.9, 0.95, 1e-8, weight_decay, grad_clip_norm)
    adam = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=weight_decay)
    for number in range(20):
        data = rows(vocabulary(run), (20, 50, 33, 7), seed=number % 4)
        loss = plain_loss(model, data)
        adam.zero_grad()
        loss.backward()
        limit = grad_clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), limit)
        adam.step()
        result = run.run(data, CROSS_ENTROPY, True)
        assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-2)
        assert run.optim_step(step)["grad_norm:mean"] == pytest.approx(float(norm), rel=1e-3)


@pytest.mark.parametrize("general", [False, True])
def test_a_step_is_torchs_adamw_on_each_matrix(open_run: Opener, general: bool) -> None:
    run = open_run(general=general)
    own = {name: torch.nn.Parameter(value) for name, value in values(run).items()}
    adam = torch.optim.AdamW(own.values(), lr=1e-2, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.1)
    for number in range(4):
        run.run(rows(vocabulary(run), (30, 9), number), CROSS_ENTROPY, True)
        for name, gradient in gradients(run).items():
            own[name].grad = gradient
        torch.nn.utils.clip_grad_norm_(own.values(), 2.0)
        adam.step()
        run.optim_step(AdamStep(1e-2, 0.9, 0.95, 1e-12, 0.1, 2.0))
        for name, value in values(run).items():
            torch.testing.assert_close(value, own[name].detach(), atol=1e-7, rtol=2e-6)
    assert not run.lora.parameters.gradient.any()


@pytest.mark.parametrize("name", [DEMO, "gemma"])
def test_forward_gives_the_logprobs_of_forward_backward_to_the_bit(open_run: Opener, name: str) -> None:
    run = open_run(name)
    give_update(run)
    data = rows(vocabulary(run))
    forward = run.run(data, CROSS_ENTROPY, False)
    for result in (run.run(data, CROSS_ENTROPY, True), open_and_score(open_run, name, data)):
        assert all(np.array_equal(*pair) for pair in zip(forward.logprobs, result.logprobs, strict=True))
        assert result.loss == forward.loss


def open_and_score(open_run: Opener, name: str, data: list[Datum]) -> Any:
    fresh = open_run(name)
    give_update(fresh)
    return fresh.run(data, CROSS_ENTROPY, True)


def test_a_backward_pass_after_a_forward_pass_gives_the_same_gradient_to_the_bit(open_run: Opener) -> None:
    after, alone = open_run(), open_run()
    data = rows(vocabulary(after))
    weighted = [replace(datum, inputs={"weights": np.ones_like(datum.inputs["weights"])}) for datum in data]
    for _ in range(2):
        after.run(data, CROSS_ENTROPY, False)
        for run in (after, alone):
            run.run(weighted, CROSS_ENTROPY, True)
        assert torch.equal(after.lora.parameters.gradient, alone.lora.parameters.gradient)
        for run in (after, alone):
            run.optim_step(ADAM)
    assert torch.equal(after.lora.parameters.flat, alone.lora.parameters.flat)


def test_forward_passes_without_end_keep_no_more_than_their_memory(open_run: Opener) -> None:
    run = open_run(memory=8 << 20)
    others = [rows(vocabulary(run), (200, 100), seed) for seed in range(12)]
    reference = open_run(memory=8 << 20)
    for data in others:
        run.run(data, CROSS_ENTROPY, False)
    for each in (run, reference):
        each.run(others[0], CROSS_ENTROPY, True)
        each.run(others[-1], CROSS_ENTROPY, True)
    assert torch.equal(run.lora.parameters.gradient, reference.lora.parameters.gradient)


@pytest.mark.parametrize("name", [DEMO, "qwen2", "gemma"])
def test_results_do_not_depend_on_how_rows_are_batched(open_run: Opener, name: str) -> None:
    ample, scant = open_run(name), open_run(name, memory=1)
    data = rows(vocabulary(ample), (*LENGTHS, 300, 290, 280, 200))
    found = []
    for run in (ample, scant):
        give_update(run)
        found.append((run.run(data, CROSS_ENTROPY, True), gradients(run)))
    assert apart(found[0][1], found[1][1]) < 1e-5
    for one, other in zip(found[0][0].logprobs, found[1][0].logprobs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_rows_without_weight_are_scored_and_move_nothing(open_run: Opener) -> None:
    run = open_run()
    data = rows(vocabulary(run), (50, 30))
    silent = [replace(datum, inputs={"weights": np.zeros_like(datum.inputs["weights"])}) for datum in data]
    result = run.run(silent, CROSS_ENTROPY, True)
    assert result.loss == 0 and not run.lora.parameters.gradient.any()
    assert all((row < 0).all() for row in result.logprobs)
    run.run(data, CROSS_ENTROPY, True)
    alone = gradients(run)
    run.optim_step(replace(ADAM, learning_rate=0.0))
    run.run([*rows(vocabulary(run), (60,), 5)[:0], *data, *silent], CROSS_ENTROPY, True)
    assert apart(gradients(run), alone) < 1e-5


def test_several_targets_of_a_position_add_up(open_run: Opener) -> None:
    many, single = open_run(), open_run()
    data = rows(vocabulary(many), (20, 31))
    other = rows(vocabulary(many), (20, 31), seed=1)
    both = [
        Datum(a.tokens, *(np.stack(pair, -1) for pair in ((a.targets, b.targets),)), _stacked(a, b))
        for a, b in zip(data, other, strict=True)
    ]
    mixed = [both[0], data[1], replace(other[1], tokens=data[1].tokens)]
    singles = [*data, *(replace(b, tokens=a.tokens) for a, b in zip(data, other, strict=True))]
    result, expected = many.run(mixed, CROSS_ENTROPY, True), single.run(singles, CROSS_ENTROPY, True)
    assert result.loss == pytest.approx(expected.loss, rel=1e-5)
    assert [row.shape for row in result.logprobs] == [(20, 2), (31,), (31,)]
    np.testing.assert_allclose(result.logprobs[0][:, 1], expected.logprobs[2], atol=1e-4)
    assert apart(gradients(many), gradients(single)) < 1e-5


def _stacked(one: Datum, other: Datum) -> dict[str, Any]:
    return {"weights": np.stack((one.inputs["weights"], other.inputs["weights"]), -1)}


def test_a_sequence_ratio_is_the_mean_over_its_marked_tokens(open_run: Opener) -> None:
    run = open_run()
    data = rows(vocabulary(run), (20, 31))
    now = run.run(data, CROSS_ENTROPY, False).logprobs
    rng = np.random.default_rng(0)
    marks = [(rng.random(len(row)) < 0.5).astype(np.float32) for row in now]
    extra = {"clip_low_threshold": 0.5, "clip_high_threshold": 2.0}
    inputs = [
        {"logprobs": row - shift, "advantages": mark, "sequence_ratio_mask": mark}
        | {name: np.full(len(row), value, np.float32) for name, value in extra.items()}
        for row, mark, shift in zip(now, marks, (np.float32(0.1), np.float32(-0.2)), strict=True)
    ]
    given = [replace(datum, inputs=each) for datum, each in zip(data, inputs, strict=True)]
    result = run.run(given, make_loss("gspo", {}), True)
    expected = -(marks[0].sum() * math.exp(0.1) + marks[1].sum() * math.exp(-0.2))
    assert result.loss == pytest.approx(expected, rel=1e-4)
    weights = [-mark * math.exp(shift) for mark, shift in zip(marks, (0.1, -0.2), strict=True)]
    plain = open_run()
    weighted = [replace(d, inputs={"weights": -w.astype(np.float32)}) for d, w in zip(data, weights, strict=True)]
    plain.run(weighted, CROSS_ENTROPY, True)
    assert apart(gradients(run), gradients(plain)) < 1e-4


def train(run: TrainingRun, numbers: range) -> list[float]:
    losses = []
    for number in numbers:
        losses.append(run.run(rows(vocabulary(run), (30, 55, 12), number), CROSS_ENTROPY, True).loss)
        run.optim_step(ADAM)
    return losses


@pytest.mark.parametrize("general", [False, True])
def test_the_same_calls_give_the_same_weights_to_the_bit(open_run: Opener, general: bool) -> None:
    runs = [open_run(rank=64, general=general) for _ in range(2)]
    losses = [train(run, range(4)) for run in runs]
    assert losses[0] == losses[1]
    assert torch.equal(runs[0].lora.parameters.flat, runs[1].lora.parameters.flat)


def test_a_saved_state_goes_on_to_the_bit(open_run: Opener) -> None:
    run, other = open_run(), open_run()
    train(run, range(3))
    train(other, range(5, 7))
    other.lora.load(run.lora.adapter())
    other.load_optimizer(run.optimizer_tensors())
    assert train(run, range(3, 6)) == train(other, range(3, 6))
    assert torch.equal(run.lora.parameters.flat, other.lora.parameters.flat)


def test_a_failed_pass_leaves_nothing_but_a_refused_step(open_run: Opener) -> None:
    run, clean = open_run(rank=64), open_run(rank=64)
    calls = 0

    def fails(logprobs: Tensor, inputs: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ValueError("no more")
        return CROSS_ENTROPY.total(logprobs, inputs)

    many = rows(vocabulary(run), (300,) * 12)
    with pytest.raises(ValueError, match="no more"):
        run.run(many, Loss({"weights": 1.0}, "weights", fails), True)
    with pytest.raises(RequestRefused, match="no more"):
        run.optim_step(ADAM)
    assert train(run, range(3)) == train(clean, range(3))
    assert torch.equal(run.lora.parameters.flat, clean.lora.parameters.flat)


def test_a_bf16_base_trains_an_fp32_adapter(open_run: Opener, folders: dict[str, Path]) -> None:
    exact = open_run(rank=16)
    base = load_causal(folders[DEMO], torch.device("cpu"), torch.bfloat16)
    rough = TrainingRun(base, LoraSpec.create(16, True, True, False, 3), folders[DEMO], AMPLE)
    assert isinstance(rough.lora.decoder, PackedDecoder)
    data = rows(vocabulary(exact))
    for run in (exact, rough):
        give_update(run)
        run.run(data, CROSS_ENTROPY, True)
    found, expected = rough.lora.parameters.gradient, exact.lora.parameters.gradient
    assert found.dtype == torch.float32
    assert float(torch.cosine_similarity(found, expected, dim=0)) > 0.99


@pytest.mark.parametrize("name", [*FAST, DEMO])
@pytest.mark.parametrize("rank", [1, 64])
def test_a_kept_pass_is_as_large_as_estimated(open_run: Opener, name: str, rank: int) -> None:
    decoder = open_run(name, rank).lora.decoder
    packing = pack([np.arange(200) % 300, np.arange(190) % 300, np.arange(60) % 300], torch.device("cpu"))
    _, kept = decoder.forward(packing, True)
    size = sum(held(kept).values()) / len(packing.tokens)
    assert 0.4 * decoder.bytes_per_token < size <= decoder.bytes_per_token


def held(value: Any, seen: dict[int, int] | None = None) -> dict[int, int]:
    """Bytes of the storages that a structure of tensors holds, by address."""
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
    elif isinstance(value, list | tuple):
        for each in value:
            held(each, seen)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            held(getattr(value, name), seen)
    return seen


def test_a_dpo_step_through_the_sdk_moves_as_plain_autograd_says(
    demo_engine: RunningEngine, folders: dict[str, Path], open_run: Opener
) -> None:
    local = open_run()
    data = rows(vocabulary(local), (40, 25, 60, 33))
    model, trained = plain_peft(folders[DEMO], local, torch.float32)
    reference = [-300.0, -200.0, -450.0, -260.0]

    def objective(sums: list[Tensor]) -> Tensor:
        gains = [each - ref for each, ref in zip(sums, reference, strict=True)]
        margins = torch.stack([gains[0] - gains[1], gains[2] - gains[3]])
        return -torch.nn.functional.logsigmoid(0.01 * margins).mean()

    def custom(_: list[types.Datum], logprobs: list[Tensor]) -> tuple[Tensor, dict[str, float]]:
        return objective([row.sum() for row in logprobs]), {}

    sent = [
        types.Datum(
            model_input=types.ModelInput.from_ints(datum.tokens.tolist()),
            loss_fn_inputs={"target_tokens": datum.targets, "weights": np.ones(len(datum.tokens), np.float32)},
        )
        for datum in data
    ]
    adam = torch.optim.AdamW(trained.values(), lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    params = types.AdamParams(learning_rate=1e-3, eps=1e-8)
    ones = [replace(d, inputs={"weights": np.full(len(d.tokens), -1.0, np.float32)}) for d in data]
    with tinker.ServiceClient(base_url=demo_engine.base_url, api_key=demo_engine.api_key) as service:
        client = service.create_lora_training_client(DEMO, rank=8, seed=3, train_unembed=False).result()
        for _ in range(5):
            adam.zero_grad()
            expected = objective([plain_loss(model, [datum]) for datum in ones])
            expected.backward()
            adam.step()
            found = client.forward_backward_custom(sent, custom)
            client.optim_step(params)
            assert found.result().metrics["loss:sum"] == pytest.approx(float(expected.detach()), rel=1e-4)
