"""Small models of several architectures, training runs on them, and the same by plain PEFT; for the training tests."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
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
from charrun.engine.lora import LoraSpec
from charrun.engine.losses import make_loss
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


@cache
def folder(name: str) -> Path:
    """A random model of that family, scaled up so that its distributions are not flat; or the demo student."""
    if name == DEMO:
        return MODELS[DEMO]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[name][0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(0.1 * torch.randn(parameter.shape))
    place = Path(tempfile.mkdtemp(prefix="charrun-test-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    model.save_pretrained(place)
    return place


@cache
def base(name: str) -> CausalLM:
    """The loaded model."""
    return load_causal(folder(name), torch.device("cpu"), torch.float32)


def open_run(
    name: str = DEMO, rank: int = 8, layers: str = "mlp attn", memory: int = AMPLE, general: bool = False
) -> TrainingRun:
    """A training run of it; its fresh adapter is the same each time."""
    spec = LoraSpec.create(rank, "mlp" in layers, "attn" in layers, "unembed" in layers, 3)
    return TrainingRun(base(name), spec, folder(name), memory, general)


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


def train(run: TrainingRun, numbers: range) -> list[float]:
    losses = []
    for number in numbers:
        losses.append(run.run(rows(vocabulary(run), (30, 55, 12), number), CROSS_ENTROPY, True).loss)
        run.optim_step(ADAM)
    return losses
