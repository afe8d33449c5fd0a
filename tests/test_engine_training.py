"""Training in the engine: its gradients and steps against transformers, PEFT and torch, on several architectures."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from conftest import RunningEngine
from tinker import types
from torch import Tensor
from training_models import (
    ADAM,
    AMPLE,
    CROSS_ENTROPY,
    DEMO,
    FAMILIES,
    FAST,
    LENGTHS,
    apart,
    folder,
    give_update,
    gradients,
    open_run,
    plain_loss,
    plain_peft,
    rows,
    train,
    values,
    vocabulary,
)

from charrun.engine.adam import AdamStep
from charrun.engine.causal import load_causal
from charrun.engine.errors import RequestRefused
from charrun.engine.lora import LoraSpec
from charrun.engine.losses import Loss, make_loss
from charrun.engine.packed_decoder import PackedDecoder
from charrun.engine.packing import pack
from charrun.engine.training import Datum, TrainingRun


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_is_trained_the_fast_way_where_it_fits(name: str) -> None:
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
def test_gradients_are_those_of_autograd_on_a_peft_model(name: str, rank: int, layers: str) -> None:
    run = open_run(name, rank, layers)
    give_update(run)
    data = rows(vocabulary(run))
    result = run.run(data, CROSS_ENTROPY, True)
    model, trained = plain_peft(folder(name), run, torch.float64)
    loss = plain_loss(model, data)
    loss.backward()
    expected = {name: parameter.grad for name, parameter in trained.items() if parameter.grad is not None}
    assert result.loss == pytest.approx(float(loss.detach()), rel=1e-5, abs=1e-2)
    assert apart(gradients(run), expected) < 1e-5


@pytest.mark.parametrize("name", [DEMO, "llama"])
@pytest.mark.parametrize(("weight_decay", "grad_clip_norm"), [(0.0, 0.0), (0.01, 1.0)])
def test_twenty_steps_follow_a_plain_loop(name: str, weight_decay: float, grad_clip_norm: float) -> None:
    run = open_run(name)
    model, trained = plain_peft(folder(name), run, torch.float32)
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
def test_a_step_is_torchs_adamw_on_each_matrix(general: bool) -> None:
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
def test_forward_gives_the_logprobs_of_forward_backward_to_the_bit(name: str) -> None:
    run = open_run(name)
    give_update(run)
    data = rows(vocabulary(run))
    forward = run.run(data, CROSS_ENTROPY, False)
    for result in (run.run(data, CROSS_ENTROPY, True), open_and_score(name, data)):
        assert all(np.array_equal(*pair) for pair in zip(forward.logprobs, result.logprobs, strict=True))
        assert result.loss == forward.loss


def open_and_score(name: str, data: list[Datum]) -> Any:
    fresh = open_run(name)
    give_update(fresh)
    return fresh.run(data, CROSS_ENTROPY, True)


def test_a_backward_pass_after_a_forward_pass_gives_the_same_gradient_to_the_bit() -> None:
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


def test_forward_passes_without_end_keep_no_more_than_their_memory() -> None:
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
def test_results_do_not_depend_on_how_rows_are_batched(name: str) -> None:
    ample, scant = open_run(name), open_run(name, memory=1)
    data = rows(vocabulary(ample), (*LENGTHS, 300, 290, 280, 200))
    found = []
    for run in (ample, scant):
        give_update(run)
        found.append((run.run(data, CROSS_ENTROPY, True), gradients(run)))
    assert apart(found[0][1], found[1][1]) < 1e-5
    for one, other in zip(found[0][0].logprobs, found[1][0].logprobs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_rows_without_weight_are_scored_and_move_nothing() -> None:
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


def test_several_targets_of_a_position_add_up() -> None:
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


def test_a_sequence_ratio_is_the_mean_over_its_marked_tokens() -> None:
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


@pytest.mark.parametrize("general", [False, True])
def test_the_same_calls_give_the_same_weights_to_the_bit(general: bool) -> None:
    runs = [open_run(rank=64, general=general) for _ in range(2)]
    losses = [train(run, range(4)) for run in runs]
    assert losses[0] == losses[1]
    assert torch.equal(runs[0].lora.parameters.flat, runs[1].lora.parameters.flat)


def test_a_saved_state_goes_on_to_the_bit() -> None:
    run, other = open_run(), open_run()
    train(run, range(3))
    train(other, range(5, 7))
    other.lora.load(run.lora.adapter())
    other.load_optimizer(run.optimizer_tensors())
    assert train(run, range(3, 6)) == train(other, range(3, 6))
    assert torch.equal(run.lora.parameters.flat, other.lora.parameters.flat)


def test_a_failed_pass_leaves_nothing_but_a_refused_step() -> None:
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


def test_a_bf16_base_trains_an_fp32_adapter() -> None:
    exact = open_run(rank=16)
    base = load_causal(folder(DEMO), torch.device("cpu"), torch.bfloat16)
    rough = TrainingRun(base, LoraSpec.create(16, True, True, False, 3), folder(DEMO), AMPLE)
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
def test_a_kept_pass_is_as_large_as_estimated(name: str, rank: int) -> None:
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


def test_a_dpo_step_through_the_sdk_moves_as_plain_autograd_says(demo_engine: RunningEngine) -> None:
    local = open_run()
    data = rows(vocabulary(local), (40, 25, 60, 33))
    model, trained = plain_peft(folder(DEMO), local, torch.float32)
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
