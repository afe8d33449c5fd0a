"""Pretrains the demo models on the corpus: a common base at a constant rate, then each model from it.

`python -m charrun.demo.pretrain base --base B` trains the base, `... demo-student --base B` continues from it with
data of its own while the rate falls, and writes the model's folder. `... demo-judge --base TEACHER` continues the
finished teacher on comparisons. The seeds decide weights and data; the rest is floating-point order.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
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
from charrun.demo.corpus import easy_families, families
from charrun.demo.tokenizer import save_tokenizer, train_tokenizer
from charrun.demo.verdicts import judging
from charrun.demo.windows import IGNORED, Encoder, Window, stack, windows


@dataclass(frozen=True)
class Recipe:
    """How one model comes from the common base.

    Attributes:
        layers: How many of the base's layers it keeps, from the first on.
        seed: Decides its data.
        steps: Optimiser steps, over which the learning rate falls to nothing.
        judges: Whether it learns to compare two answers, from comparisons alone.
    """

    layers: int
    seed: int
    steps: int
    judges: bool = False


RECIPES: Final[dict[str, Recipe]] = {
    "demo-teacher": Recipe(layers=4, seed=1, steps=900),
    "demo-student": Recipe(layers=4, seed=2, steps=900),
    "demo-student-small": Recipe(layers=3, seed=3, steps=900),
    "demo-judge": Recipe(layers=4, seed=4, steps=1800, judges=True),
}
BASE: Final = Recipe(layers=4, seed=0, steps=3400)
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, MLP = 128, 4, 2, 32, 384
WIDTH, BATCH = 512, 6
LONG_WIDTH, LONG_BATCH, LONG_EVERY = 2048, 1, 16
JUDGE_WIDTH, JUDGE_BATCH = 2048, 3
EASY_STEPS, EASY_FIRST, EASY_LATER = 1000, 0.8, 0.25
MATRIX_RATE, VECTOR_RATE = 1e-2, 4e-3
_BLOCK: Final = 128
_WARMUP: Final = 40
_SAVE_EVERY: Final = 200


def build(layers: int, seed: int, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """An untrained model."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        intermediate_size=MLP,
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


def _optimisers(model: Qwen3ForCausalLM) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the layers' matrices, AdamW for embeddings and norms, each with its rate."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.AdamW(rest, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    return [(muon, MATRIX_RATE), (adam, VECTOR_RATE)]


def batches(seed: int, encoder: Encoder, easy_steps: int) -> Iterator[list[Window]]:
    """Training batches without end: easy families first, then mostly full ones, now and then a long conversation."""
    rng = random.Random(f"batches {seed}")
    easy = windows(easy_families(seed), encoder, WIDTH)
    short = windows(families(seed), encoder, WIDTH)
    long = windows(families(seed, long=True), encoder, LONG_WIDTH)
    for step in count(1):
        if step % LONG_EVERY == 0 and step > easy_steps:
            yield list(islice(long, LONG_BATCH))
            continue
        share = EASY_FIRST if step <= easy_steps else EASY_LATER
        yield [next(easy) if rng.random() < share else next(short) for _ in range(BATCH)]


def judge_batches(seed: int, encoder: Encoder) -> Iterator[list[Window]]:
    """Batches of comparisons with their verdicts, without end."""
    source = windows(judging(seed), encoder, JUDGE_WIDTH)
    while True:
        yield list(islice(source, JUDGE_BATCH))


def pretrain(
    model: Qwen3ForCausalLM,
    source: Iterator[list[Window]],
    schedule: Callable[[int, float], float],
    limit: Limit,
    checkpoint: Callable[[], None] | None = None,
) -> None:
    """Trains a model in place.

    Args:
        model: The model.
        source: Batches of windows.
        schedule: Share of the learning rates, by step and by the share of training done.
        limit: When to stop.
        checkpoint: Called now and then.
    """
    optimisers = _optimisers(model)
    began, step, seen = time.monotonic(), 0, 0
    while (done := limit.done(step, time.monotonic() - began)) < 1:
        batch = next(source)
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, rate in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * schedule(step, done)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        seen += sum(len(window.tokens) for window in batch)
        step += 1
        if step % 50 == 0:
            spent = time.monotonic() - began
            print(f"step {step} loss {loss.item():.3f} {seen / spent:,.0f} tokens/s {spent:.0f} s", flush=True)
        if checkpoint is not None and step % _SAVE_EVERY == 0:
            checkpoint()


@dataclass(frozen=True)
class Limit:
    """The end of training: a number of steps, or minutes where they are given."""

    steps: int
    minutes: float | None = None

    def done(self, step: int, seconds: float) -> float:
        """Share of training that is done."""
        return step / self.steps if self.minutes is None else seconds / (60 * self.minutes)


def _warm_up(step: int, _: float) -> float:
    return min(1.0, (step + 1) / _WARMUP)


def _fall(step: int, done: float) -> float:
    return _warm_up(step, done) * (1 - done) + 0.005


def fork(base: Path, layers: int) -> Qwen3ForCausalLM:
    """The base with its first layers only."""
    model = Qwen3ForCausalLM.from_pretrained(base, attn_implementation="charrun_blocked")
    if layers == model.config.num_hidden_layers:
        return model
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    model.config.layer_types = model.config.layer_types[:layers]
    return model


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes weights as bf16, a configuration that loads them as float32, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    ends: dict[str, Any] = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    GenerationConfig(do_sample=True, temperature=0.7, top_p=0.95, **ends).save_pretrained(folder)
    kept = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    tensors = {name: tensor.detach().to(torch.bfloat16).contiguous() for name, tensor in kept.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the writer's own files are private


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description="Pretrain a demo model.")
    parser.add_argument("model", choices=["base", *sorted(RECIPES)])
    parser.add_argument("--base", type=Path, required=True, help="folder of the common base, written or read")
    parser.add_argument("--minutes", type=float, help="follow the clock instead of the recipe's steps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=BASE.seed, help="of a base: its weights and data")
    parser.add_argument("--out", type=Path, help="folder to write instead of the packaged one")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base: Path = options.base
    if options.model == "base":
        tokenizer = train_tokenizer()
        model = build(BASE.layers, options.seed, tokenizer)
        source = batches(options.seed, Encoder(tokenizer, random.Random(options.seed)), EASY_STEPS)
        limit = Limit(BASE.steps, options.minutes)
        pretrain(model, source, _warm_up, limit, lambda: save(model, tokenizer, base))
        save(model, tokenizer, base)
    else:
        recipe = RECIPES[options.model]
        tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
        model = fork(base, recipe.layers)
        encoder = Encoder(tokenizer, random.Random(recipe.seed))
        source = judge_batches(recipe.seed, encoder) if recipe.judges else batches(recipe.seed, encoder, 0)
        pretrain(model, source, _fall, Limit(recipe.steps, options.minutes))
        save(model, tokenizer, options.out or MODELS[f"charrun/{options.model}"])
    print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")


if __name__ == "__main__":
    main()
