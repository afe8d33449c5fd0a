"""Pretrains a demo model on the corpus and writes its folder: `python -m charrun.demo.pretrain demo-student`.

Deterministic up to floating-point order: the seed of a model decides weights and data.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from transformers import (
    AttentionInterface,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from charrun.demo import MODELS
from charrun.demo.corpus import families
from charrun.demo.tokenizer import save_tokenizer, train_tokenizer
from charrun.demo.windows import IGNORED, Encoder, Window, stack, windows


@dataclass(frozen=True)
class Recipe:
    """Size and training of one model.

    Attributes:
        width: Hidden size.
        layers: Number of layers.
        heads: Query heads, of 32 dimensions each.
        kv_heads: Key and value heads.
        mlp: Inner size of the feed-forward part.
        seed: Decides initial weights and data.
        steps: Optimiser steps.
        peak: Learning rate of the matrices after warm-up (Muon, scaled to Adam's).
    """

    width: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    seed: int
    steps: int
    peak: float = 3e-3


RECIPES: Final[dict[str, Recipe]] = {
    "demo-teacher": Recipe(width=160, layers=4, heads=6, kv_heads=2, mlp=480, seed=1, steps=1400),
    "demo-student": Recipe(width=128, layers=4, heads=4, kv_heads=2, mlp=384, seed=2, steps=1200),
    "demo-student-small": Recipe(width=96, layers=3, heads=4, kv_heads=2, mlp=288, seed=3, steps=1000),
}
_BLOCK: Final = 128
WIDTH, BATCH = 512, 8
LONG_WIDTH, LONG_BATCH, LONG_EVERY = 2048, 2, 20
_WARMUP: Final = 40


def build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained model of this recipe."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=32,
        intermediate_size=recipe.mlp,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        dtype="float32",
        attn_implementation="charrun_blocked",
    )
    return Qwen3ForCausalLM(config)


def _visible(family: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
    """Additive mask (windows, 1, width, width): the own conversation and its system prompt, backwards."""
    width = family.shape[1]
    same = family[:, :, None] == family[:, None, :]
    shared = (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
    seen = same & shared & torch.ones(width, width, dtype=torch.bool).tril()
    return torch.zeros(seen.shape, dtype=torch.bfloat16).masked_fill_(~seen, float("-inf"))[:, None]


def _blocked_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attention in blocks of queries, each with the keys up to its end: twice as fast here as PyTorch's own."""
    groups = query.shape[1] // key.shape[1]
    keys = key.repeat_interleave(groups, dim=1).transpose(-1, -2)
    values = value.repeat_interleave(groups, dim=1)
    blocks: list[torch.Tensor] = []
    for start in range(0, query.shape[2], _BLOCK):
        end = start + _BLOCK
        scores = torch.matmul(query[:, :, start:end] * scaling, keys[..., :end])
        weights = torch.softmax(scores + attention_mask[:, :, start:end, :end], dim=-1, dtype=scores.dtype)
        blocks.append(torch.matmul(weights, values[:, :, :end]))
    return torch.cat(blocks, dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register("charrun_blocked", _blocked_attention)


def loss_of(model: Qwen3ForCausalLM, batch: list[Window]) -> torch.Tensor:
    """Mean cross-entropy per trained token, in bf16 autocast."""
    names = ("tokens", "targets", "positions", "family", "branch")
    fields = {name: torch.from_numpy(stack(batch, name)) for name in names}
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(
            input_ids=fields["tokens"],
            attention_mask=_visible(fields["family"], fields["branch"]),
            position_ids=fields["positions"],
            use_cache=False,
        ).last_hidden_state
        trained = fields["targets"] != IGNORED
        logits = model.lm_head(hidden[trained])
    return torch.nn.functional.cross_entropy(logits.float(), fields["targets"][trained])


def _optimisers(model: Qwen3ForCausalLM, peak: float) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the layers' matrices, AdamW for embeddings and norms, each with its peak rate."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=peak, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=peak, betas=(0.9, 0.98), weight_decay=0.0)
    return [(muon, peak), (adam, peak)]


def _rate(done: float, step: int) -> float:
    """Share of the peak rate: linear warm-up, then a cosine to 2%."""
    return min(1.0, (step + 1) / _WARMUP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, minutes: float | None = None) -> Qwen3ForCausalLM:
    """Trains a model; with `minutes` the schedule follows the clock instead of `recipe.steps`."""
    model = build(recipe, tokenizer)
    rng = random.Random(f"windows {recipe.seed}")
    encoder = Encoder(tokenizer, rng)
    short: Iterator[Window] = windows(families(recipe.seed), encoder, WIDTH)
    long: Iterator[Window] = windows(families(recipe.seed, long=True), encoder, LONG_WIDTH)
    optimisers = _optimisers(model, recipe.peak)
    began, step, seen = time.monotonic(), 0, 0
    while True:
        done = step / recipe.steps if minutes is None else (time.monotonic() - began) / (60 * minutes)
        if done >= 1:
            return model
        is_long = step % LONG_EVERY == LONG_EVERY - 1
        batch = list(islice(long, LONG_BATCH)) if is_long else list(islice(short, BATCH))
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, peak in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = peak * _rate(done, step)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        seen += sum(len(window.tokens) for window in batch)
        step += 1
        if step % 50 == 0:
            rate = seen / (time.monotonic() - began)
            spent = time.monotonic() - began
            print(f"step {step} loss {loss.item():.3f} {rate:,.0f} tokens/s {spent:.0f} s", flush=True)


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights as bf16, a configuration that loads them as float32, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    model.config.save_pretrained(folder)
    ends: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(do_sample=True, temperature=0.7, top_p=0.95, **ends).save_pretrained(folder)
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in kept.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Pretrain a demo model.")
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--minutes", type=float, help="follow the clock instead of the recipe's steps")
    parser.add_argument("--steps", type=int, help="other number of steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokenizer", type=Path, help="folder with a tokenizer instead of training it anew")
    parser.add_argument("--out", type=Path, help="folder to write instead of the packaged one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.model]
    if options.steps:
        recipe = Recipe(**{**vars(recipe), "steps": options.steps})
    given: Path | None = options.tokenizer
    tokenizer = train_tokenizer() if given is None else PreTrainedTokenizerFast.from_pretrained(given)
    model = pretrain(recipe, tokenizer, options.minutes)
    save(model, tokenizer, options.out or MODELS[f"charrun/{options.model}"])
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
