"""The DPO loss and its gradient against plain PyTorch on the same weights."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import tinker
import torch
from conftest import RunningEngine
from peft import LoraConfig, get_peft_model
from tinker import types
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM

from charrun.chat import Chat, TrainedRow, assistant, load_tokenizer, user
from charrun.demo import MODELS
from charrun.plugins.dpo import DpoLoss

BETA, NLL = 0.1, 0.1
STUDENT = "charrun/demo-student"
PAIRS = [
    ("How do I keep basil alive?", "Water it in the morning and give it light.", "Basil is a plant."),
    ("Name a good book.", "Take an old one that a friend has marked.", "There are many books to choose from."),
    ("Why is the sky blue?", "Light scatters, and blue scatters most.", "Because of the air."),
]


@pytest.fixture(scope="module")
def rows() -> list[TrainedRow]:
    chat = Chat(load_tokenizer(MODELS[STUDENT]), {"enable_thinking": False})
    return [
        row
        for prompt, chosen, rejected in PAIRS
        for answer in (chosen, rejected)
        for row in chat.rows([user(prompt), assistant(answer)])
    ]


def summed(model: Any, row: TrainedRow) -> tuple[torch.Tensor, int]:
    """Sum of the trained tokens' log-probs, and their number."""
    tokens = torch.tensor([row.tokens])
    logprobs = torch.log_softmax(model(tokens).logits[0, :-1].float(), -1)
    picked = logprobs.gather(1, tokens[0, 1:, None])[:, 0]
    mask = torch.tensor(list(row.trained[1:])).bool()
    return picked[mask].sum(), int(mask.sum())


def plain_dpo(model: Any, reference: list[torch.Tensor], rows: list[TrainedRow]) -> torch.Tensor:
    """The loss of Rafailov et al. plus the NLL term, written out pair by pair."""
    total = torch.zeros(())
    for i in range(0, len(rows), 2):
        (chosen, n), (rejected, _) = summed(model, rows[i]), summed(model, rows[i + 1])
        margin = (chosen - reference[i]) - (rejected - reference[i + 1])
        total = total - logsigmoid(BETA * margin) + NLL * (-chosen / n)
    return total / (len(rows) // 2)


def test_the_loss_equals_plain_pytorch_on_given_log_probs() -> None:
    torch.manual_seed(0)
    policy = [torch.randn(n) - 3 for n in (4, 6, 5, 3)]
    reference = [torch.randn(n) - 3 for n in (4, 6, 5, 3)]
    loss, metrics = DpoLoss(BETA, NLL, [float(r.sum()) for r in reference]).of(policy)
    margins = [(policy[i].sum() - reference[i].sum()) - (policy[i + 1].sum() - reference[i + 1].sum()) for i in (0, 2)]
    expected = sum(-logsigmoid(BETA * m) for m in margins) / 2 - NLL * (policy[0].mean() + policy[2].mean()) / 2
    assert loss.item() == pytest.approx(float(expected), rel=1e-6)
    assert metrics["margin:mean"] == pytest.approx(float(sum(margins)) / 2, rel=1e-5)
    assert metrics["accuracy:mean"] == sum(float(m > 0) for m in margins) / 2


def test_one_step_through_the_sdk_moves_the_adapter_as_autograd_does(
    demo_engine: RunningEngine, rows: list[TrainedRow]
) -> None:
    """Two steps, so that the second one's gradient flows through both LoRA matrices."""
    client = tinker.ServiceClient(**demo_engine.address)
    engine = client.create_lora_training_client(STUDENT, rank=8, seed=5, train_unembed=False).result()
    reference = [
        [v for v, on in zip(out["logprobs"].data, row.trained[1:], strict=True) if on]
        for out, row in zip(
            engine.forward([row.datum() for row in rows], "cross_entropy").result().loss_fn_outputs, rows, strict=True
        )
    ]
    path = engine.save_weights_external("start").result().path
    model = peft_model_of(demo_engine, path)
    plain_reference = [summed(model, row)[0].detach() for row in rows]
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=1e-3, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0
    )
    for _ in range(2):
        expected = plain_dpo(model, plain_reference, rows)
        optimizer.zero_grad()
        expected.backward()
        optimizer.step()
        loss = DpoLoss(BETA, NLL, [math.fsum(values) for values in reference])
        future = engine.forward_backward_custom([row.datum() for row in rows], loss)
        step = engine.optim_step(types.AdamParams(learning_rate=1e-3))
        metrics = future.result().metrics
        step.result()
        assert metrics["loss:sum"] == pytest.approx(expected.item(), abs=1e-4)
    after = engine.forward([row.datum() for row in rows], "cross_entropy").result().loss_fn_outputs
    for out, row in zip(after, rows, strict=True):
        found = sum(v for v, on in zip(out["logprobs"].data, row.trained[1:], strict=True) if on)
        assert found == pytest.approx(summed(model, row)[0].item(), abs=2e-3)


def peft_model_of(engine: RunningEngine, path: str) -> Any:
    """A PEFT model with the weights of an external checkpoint, ready to train."""
    import tempfile
    import urllib.request
    from pathlib import Path

    from safetensors.torch import load_file

    base = AutoModelForCausalLM.from_pretrained(MODELS[STUDENT], dtype=torch.float32)
    urls = tinker.RestClient(**engine.address).get_external_weights_urls(path).result().urls
    with tempfile.TemporaryDirectory() as folder:
        for name, url in urls.items():
            urllib.request.urlretrieve(url, Path(folder) / name)
        config = LoraConfig.from_pretrained(folder)
        config.inference_mode = False
        model = get_peft_model(copy.deepcopy(base), config)
        loaded = load_file(str(Path(folder) / "adapter_model.safetensors"))
    own = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    assert set(own) == set(loaded)
    with torch.no_grad():
        for name, tensor in loaded.items():
            own[name].copy_(tensor)
    return model
