"""The engine's losses: their gradients against autograd of the textbook formulas on a plain PEFT model."""

from __future__ import annotations

import itertools
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import httpx
import numpy as np
import pytest
import tinker
import torch
from conftest import RunningEngine
from peft import PeftModel
from safetensors.torch import load_file
from tinker import types
from tinker.proto.request_conv import forward_backward_request_to_proto
from transformers import AutoModelForCausalLM

from charrun.demo import MODELS
from charrun.engine.losses import LOSSES, REFUSED, make_loss

MODEL = "charrun/demo-student-small"
VOCABULARY = 2000
Tensors = dict[str, torch.Tensor]
Formula = Callable[[torch.Tensor, Tensors], torch.Tensor]


@pytest.fixture(scope="module")
def rest(demo_engine: RunningEngine) -> tinker.RestClient:
    return tinker.RestClient(**demo_engine.address)


def adapter(rest: tinker.RestClient, client: tinker.TrainingClient, folder: Path) -> Path:
    """The client's adapter as a PEFT folder."""
    folder.mkdir()
    path = client.save_weights_external(folder.name).result().path
    for name, url in rest.get_external_weights_urls(path).result().urls.items():
        with urllib.request.urlopen(url) as answer:
            (folder / name).write_bytes(answer.read())
    return folder


class Trained:
    """A training client whose adapter has moved a little, and a PEFT model with the same adapter."""

    def __init__(self, service: tinker.ServiceClient, rest: tinker.RestClient, folder: Path) -> None:
        self.rest, self.folder = rest, folder
        self.client = service.create_lora_training_client(MODEL, rank=8, seed=3, train_unembed=False).result()
        self.client.forward_backward([warm_up()], "cross_entropy")
        self.client.optim_step(types.AdamParams(learning_rate=1e-2)).result()
        self.before = adapter(rest, self.client, folder / "before")
        base = AutoModelForCausalLM.from_pretrained(MODELS[MODEL])
        self.model = PeftModel.from_pretrained(base, self.before, is_trainable=True).eval()

    def engines_gradient(self) -> Tensors:
        """What forward_backward has added up, told from an Adam step that moves each weight by its gradient."""
        large = 1e6  # with betas of 0, a step is lr * g / (|g| + eps)
        self.client.optim_step(types.AdamParams(learning_rate=large, beta1=0, beta2=0, eps=large)).result()
        after = load_file(adapter(self.rest, self.client, self.folder / "after") / "adapter_model.safetensors")
        before = load_file(self.before / "adapter_model.safetensors")
        moved = {name: before[name].double() - after[name].double() for name in before}
        return {name: step / (1 - step.abs() / large) for name, step in moved.items()}

    def gradient(self) -> Tensors:
        """The PEFT model's."""
        return {
            name.replace(".default", ""): parameter.grad
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def logprobs(self, tokens: Sequence[int], targets: torch.Tensor) -> torch.Tensor:
        """[length] or [length, k] log-probs of the targets."""
        table = torch.log_softmax(self.model(torch.tensor([list(tokens)])).logits[0], -1)
        return table.gather(-1, targets.view(len(tokens), -1)).view(targets.shape)


@pytest.fixture
def trained(service: tinker.ServiceClient, rest: tinker.RestClient, tmp_path: Path) -> Trained:
    return Trained(service, rest, tmp_path)


def warm_up() -> types.Datum:
    inputs = {"target_tokens": list(range(11, 41)), "weights": [1.0] * 30}
    return types.Datum(model_input=types.ModelInput.from_ints(list(range(10, 40))), loss_fn_inputs=inputs)


def rollouts(trained: Trained, extra: Callable[[np.random.Generator, int], dict[str, Any]]) -> list[types.Datum]:
    """Rows as a reinforcement learner makes them: sampled log-probs near the model's, none on the prompt."""
    rng = np.random.default_rng(5)
    data = []
    for length in (7, 33, 18, 1):
        tokens = rng.integers(0, VOCABULARY, length + 1)
        with torch.no_grad():
            own = trained.logprobs(tokens[:-1].tolist(), torch.from_numpy(tokens[1:])).numpy()
        prompt = np.arange(length) < length // 3
        inputs = {
            "target_tokens": tokens[1:].tolist(),
            "logprobs": np.where(prompt, 0, own + rng.normal(0, 0.4, length)).astype(np.float32),
            "advantages": np.where(prompt, 0, rng.normal(0, 1, length)).astype(np.float32),
            **extra(rng, length),
        }
        data.append(types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1].tolist()), loss_fn_inputs=inputs))
    return data


def ratio(p: torch.Tensor, row: Tensors) -> torch.Tensor:
    return (p - row["logprobs"]).exp()


def ppo(low: float, high: float) -> Formula:
    def total(p: torch.Tensor, row: Tensors) -> torch.Tensor:
        bounds = row.get("clip_low_threshold", torch.tensor(low)), row.get("clip_high_threshold", torch.tensor(high))
        r, a = ratio(p, row), row["advantages"]
        return -torch.minimum(r * a, r.clamp(*bounds) * a).sum()

    return total


def gspo(low: float, high: float) -> Formula:
    def total(p: torch.Tensor, row: Tensors) -> torch.Tensor:
        marked = row["sequence_ratio_mask"] != 0
        mean = (p - row["logprobs"])[marked].mean().detach()
        r, a = torch.exp(mean) * torch.exp(p - p.detach()), row["advantages"]
        return -torch.minimum(r * a, r.clamp(low, high) * a).sum()

    return total


def nothing(rng: np.random.Generator, length: int) -> dict[str, Any]:
    return {}


def thresholds(rng: np.random.Generator, length: int) -> dict[str, Any]:
    low, high = rng.uniform(0.5, 0.9, length), rng.uniform(1.1, 1.6, length)
    return {"clip_low_threshold": low.astype(np.float32), "clip_high_threshold": high.astype(np.float32)}


def answer_mask(rng: np.random.Generator, length: int) -> dict[str, Any]:
    return {"sequence_ratio_mask": (np.arange(length) >= length // 3).astype(np.float32)}


CLIP = {"clip_low_threshold": 0.7, "clip_high_threshold": 1.1}
CASES = {
    "importance_sampling": ({}, nothing, lambda p, row: -(ratio(p, row) * row["advantages"]).sum()),
    "ppo": ({}, nothing, ppo(0.8, 1.2)),
    "ppo with thresholds": (CLIP, nothing, ppo(0.7, 1.1)),
    "ppo with a token's own thresholds": ({}, thresholds, ppo(0.8, 1.2)),
    "cispo": (
        {},
        nothing,
        lambda p, row: -(ratio(p, row).clamp(0.8, 1.2).detach() * p * row["advantages"]).sum(),
    ),
    "cispo with thresholds": (
        CLIP,
        nothing,
        lambda p, row: -(ratio(p, row).clamp(0.7, 1.1).detach() * p * row["advantages"]).sum(),
    ),
    "dro": (
        {"beta": 0.05},
        nothing,
        lambda p, row: -(p * row["advantages"] - 0.025 * (p - row["logprobs"]) ** 2).sum(),
    ),
    "gspo": ({"clip_low_threshold": 0.9, "clip_high_threshold": 1.05}, answer_mask, gspo(0.9, 1.05)),
}


def check(trained: Trained, data: list[types.Datum], loss: str, config: dict[str, float], formula: Formula) -> None:
    """Loss, log-probs and gradient of the engine against the formula's."""
    forward = trained.client.forward(data, loss, config).result()
    result = trained.client.forward_backward(data, loss, config).result()
    expected = torch.zeros(())
    for datum, output in zip(data, result.loss_fn_outputs, strict=True):
        row = {name: tensor.to_torch() for name, tensor in datum.loss_fn_inputs.items()}
        p = trained.logprobs(datum.model_input.to_ints(), row["target_tokens"])
        expected = expected + formula(p, row)
        np.testing.assert_allclose(output["logprobs"].to_numpy(), p.detach(), atol=1e-4)
    expected.backward()
    assert result.metrics["loss:sum"] == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    assert forward.metrics["loss:sum"] == pytest.approx(result.metrics["loss:sum"], rel=1e-5, abs=1e-5)
    found, wanted = trained.engines_gradient(), trained.gradient()
    assert found.keys() == wanted.keys()
    scale = max(float(each.abs().max()) for each in wanted.values())
    for name in wanted:
        np.testing.assert_allclose(found[name] / scale, wanted[name] / scale, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_a_policy_loss_has_the_gradient_of_its_formula(trained: Trained, case: str) -> None:
    config, extra, formula = CASES[case]
    check(trained, rollouts(trained, extra), case.split()[0], config, formula)


@pytest.mark.parametrize("sparse", [False, True])
def test_cross_entropy_takes_several_targets_a_position(trained: Trained, sparse: bool) -> None:
    rng = np.random.default_rng(6)
    data = []
    for length, targets in ((12, 3), (5, 3), (9, 8), (4, 0)):
        shape = (length, targets) if targets else (length,)
        tokens = torch.from_numpy(rng.integers(0, VOCABULARY, shape))
        weights = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        if sparse and targets:
            weights *= torch.from_numpy(rng.random(shape) < 0.2)
            tokens *= weights != 0
        make = types.TensorData.from_torch_sparse if sparse else types.TensorData.from_torch
        inputs = {"target_tokens": make(tokens), "weights": make(weights)}
        if sparse and targets == 8:
            assert all(each.sparse_crow_indices is not None for each in inputs.values())
        prompt = types.ModelInput.from_ints(rng.integers(0, VOCABULARY, length).tolist())
        data.append(types.Datum(model_input=prompt, loss_fn_inputs=inputs))
    check(trained, data, "cross_entropy", {}, lambda p, row: -(p * row["weights"]).sum())


def test_a_custom_loss_takes_several_targets_a_position(trained: Trained) -> None:
    distribution = torch.softmax(torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), -1)
    targets = torch.arange(24).view(6, 4)
    datum = types.Datum(
        model_input=types.ModelInput.from_ints([3, 4, 5, 6, 7, 8]), loss_fn_inputs={"target_tokens": targets.tolist()}
    )

    def distil(data: list[types.Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        return -(distribution * logprobs[0]).sum() + logprobs[0].square().sum(), {}

    trained.client.forward_backward_custom([datum], distil).result()
    p = trained.logprobs([3, 4, 5, 6, 7, 8], targets)
    (-(distribution * p).sum() + p.square().sum()).backward()
    found, wanted = trained.engines_gradient(), trained.gradient()
    scale = max(float(each.abs().max()) for each in wanted.values())
    for name in wanted:
        np.testing.assert_allclose(found[name] / scale, wanted[name] / scale, atol=1e-5, err_msg=name)


def test_a_traced_custom_loss_runs_in_the_client(service: tinker.ServiceClient, trained: Trained) -> None:
    def weighted(logprobs: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = -(logprobs * weights).sum()
        return loss, {"custom/nll:sum": loss}

    handle = service.create_custom_loss(weighted, {"logprobs": 1, "weights": 1}).result()
    plain = trained.client.forward([warm_up()], "cross_entropy").result()
    custom = trained.client.forward_backward_custom([warm_up()], handle).result()
    assert custom.metrics["custom/nll:sum"] == pytest.approx(plain.metrics["loss:sum"], rel=1e-5)


def test_a_loss_that_is_not_finite_is_refused_and_moves_nothing(trained: Trained) -> None:
    datum = types.Datum(
        model_input=types.ModelInput.from_ints([5, 6]),
        loss_fn_inputs={"target_tokens": [6, 7], "logprobs": [-1.0, -1e4], "advantages": [1.0, 1.0]},
    )
    with pytest.raises(tinker.RequestFailedError, match="the loss is -inf"):
        trained.client.forward_backward([datum], "importance_sampling").result()
    with pytest.raises(tinker.RequestFailedError, match="No step was taken"):
        trained.client.optim_step(types.AdamParams(learning_rate=1.0)).result()
    after = load_file(adapter(trained.rest, trained.client, trained.folder / "after") / "adapter_model.safetensors")
    for name, tensor in load_file(trained.before / "adapter_model.safetensors").items():
        assert torch.equal(tensor, after[name])


def test_what_stands_for_the_log_prob_of_a_token_without_advantage_does_not_count(trained: Trained) -> None:
    def sums(first: float) -> float:
        inputs = {"target_tokens": [6, 7], "logprobs": [first, -1.0], "advantages": [0.0, 1.0]}
        datum = types.Datum(model_input=types.ModelInput.from_ints([5, 6]), loss_fn_inputs=inputs)
        return trained.client.forward([datum], "importance_sampling").result().metrics["loss:sum"]

    assert sums(-1e30) == sums(0.0)


def test_every_loss_that_the_sdk_names_is_offered_or_refused_with_a_reason() -> None:
    assert set(get_args(types.LossFnType)) == LOSSES.keys() | REFUSED.keys()


WRONG = [
    ("stable_reinforce", {}, {}, "part of the SDK"),
    ("custom", {"loss_id": "1"}, {}, "run in the client"),
    ("square", {}, {}, "'square' is not offered"),
    ("ppo", {"epsilon": 0.2}, {}, "knows no setting 'epsilon'"),
    ("ppo", {"clip_low_threshold": "low"}, {}, "is a number"),
    ("ppo", {"clip_low_threshold": -0.1}, {}, "must be from 0 to 1"),
    ("ppo", {"clip_high_threshold": 0.2}, {}, "at least 1"),
    ("ppo", {"clip_high_threshold": float("inf")}, {}, "finite"),
    ("cispo", {"clip_low_threshold": float("nan")}, {}, "must be from 0 to 1"),
    ("dro", {}, {}, "needs its beta"),
    ("dro", {"beta": -1.0}, {}, "at least 0"),
    ("cross_entropy", {"beta": 1.0}, {}, "has no settings"),
    ("gspo", {}, {"sequence_ratio_mask": [1.0, 1.0]}, "clip_low_threshold is missing"),
    ("gspo", CLIP, {"sequence_ratio_mask": [0.0, 0.0]}, "marks no token"),
    ("gspo", CLIP, {}, "sequence_ratio_mask is missing"),
    ("ppo", {}, {"advantages": None}, "advantages is missing"),
    ("ppo", {}, {"target_tokens": None}, "target_tokens is missing"),
    ("ppo", {}, {"weights": [1.0, 1.0]}, "knows no input 'weights'"),
    ("ppo", {}, {"clip_low_threshold": [0.9, 1.5]}, "from 0 to 1 at every token"),
    ("ppo", {}, {"logprobs": [float("nan"), 0.0]}, "not finite"),
    ("ppo", {}, {"logprobs": [0.0]}, "has shape"),
    ("ppo", {}, {"target_tokens": [[1, 2], [3, 4]]}, "one target a position"),
    ("ppo", {}, {"target_tokens": [1, 10**6]}, "not in the vocabulary"),
    ("ppo", {}, {"target_tokens": np.array([1.0, 2.0], np.float32)}, "int64"),
]


@pytest.mark.parametrize(("loss", "config", "change", "reason"), WRONG)
def test_a_wrong_loss_is_refused_with_a_sentence(
    demo_engine: RunningEngine,
    requests: tuple[str, Iterator[int]],
    loss: str,
    config: dict[str, Any],
    change: dict[str, Any],
    reason: str,
) -> None:
    inputs = {"target_tokens": [1, 2], "logprobs": [0.0, 0.0], "advantages": [1.0, 1.0], **change}
    datum = types.Datum(
        model_input=types.ModelInput.from_ints([5, 6]),
        loss_fn_inputs={name: value for name, value in inputs.items() if value is not None},
    )
    request = types.ForwardBackwardRequest(
        types.ForwardBackwardInput([datum], loss, config),  # type: ignore[arg-type]
        requests[0],
        next(requests[1]),
    )
    message = forward_backward_request_to_proto(request)
    answer = httpx.post(
        f"{demo_engine.base_url}/api/v1/forward_backward",
        content=message.SerializeToString(),
        headers={"X-API-Key": demo_engine.api_key},
    )
    assert (answer.status_code, reason in answer.json()["error"]) == (400, True), answer.text


@pytest.fixture(scope="module")
def requests(service: tinker.ServiceClient) -> tuple[str, Iterator[int]]:
    """A training run and the numbers of its requests: one that is refused has had its turn."""
    return service.create_lora_training_client(MODEL, rank=4).result().model_id, itertools.count(1)


def test_settings_that_were_left_out_are_the_documented_ones() -> None:
    assert make_loss("ppo", {}).inputs["clip_low_threshold"] == 0.8
    assert make_loss("cispo", {}).inputs["clip_high_threshold"] == 1.2
