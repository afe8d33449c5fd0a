"""Llama-like models on a CPU in fp32, computed by oneDNN's products and compiled loops between them.

Every token's numbers come out the same to the bit whatever else is computed with it: the loops treat rows separately,
and oneDNN's product of a row does not depend on the other rows as long as there are at least two (a single row is
multiplied by other instructions, which round differently).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from charrun.engine import kernels, kernels_attention
from charrun.engine.blocks import BLOCK
from charrun.engine.causal import CausalLM
from charrun.engine.linear import multiply, onednn_multiplies
from charrun.engine.packed_batch import TokenBatch
from charrun.engine.packed_decoder import ATTENTION, DOWN, GATES, OUTPUT, is_llama_like

SMALL = 64_000_000
"""Parameters of a model whose products are too small to share among threads."""


Places = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.float32], NDArray[np.float32]]
"""Positions, rows, tables, and a layer's keys and values, as the kernels take them."""


class Stacked:
    """Linear layers of the same input as one product; the modules keep views of the stacked weights."""

    def __init__(self, modules: Sequence[nn.Linear], base: Stacked | None) -> None:
        self.sources: list[int] = [module.weight.data_ptr() for module in modules]
        self.weight: Tensor
        self.bias: Tensor | None
        self.own_bytes = 0
        if base is not None and self.sources == base.sources:
            self.weight, self.bias = base.weight, base.bias
            return
        self.weight = torch.cat([module.weight.detach() for module in modules])
        self.bias = None if modules[0].bias is None else torch.cat([module.bias.detach() for module in modules])
        start = 0
        for module in modules:
            module.weight.data = self.weight[start : start + module.out_features]
            start += module.out_features
        self.sources = [module.weight.data_ptr() for module in modules]
        self.own_bytes = self.weight.nbytes


@dataclass(frozen=True)
class FusedLayer:
    """One layer's linear weights: q, k, v; the attention's output; gate and up; down."""

    qkv: Stacked
    output: Stacked
    gates: Stacked
    down: Stacked

    @classmethod
    def of(cls, layer: Any, base: FusedLayer | None) -> FusedLayer:
        """From a transformers layer; what it shares with the base is shared here too."""
        groups = (ATTENTION, OUTPUT, GATES, DOWN)
        known = (None,) * 4 if base is None else (base.qkv, base.output, base.gates, base.down)
        return cls(
            *(
                Stacked([layer.get_submodule(part) for part in parts], old)
                for parts, old in zip(groups, known, strict=True)
            )
        )


class FusedNetwork:
    """One set of weights."""

    def __init__(self, causal: CausalLM, base: FusedNetwork | None) -> None:
        layers: Any = causal.decoder.layers
        known: list[Any] = [None] * len(layers) if base is None else base.layers
        self.layers: list[FusedLayer] = [FusedLayer.of(layer, old) for layer, old in zip(layers, known, strict=True)]
        self.own_bytes = causal.own_bytes
        self.vocabulary = causal.vocabulary
        self._causal = causal

    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits [rows, vocabulary] of hidden states [rows, width]."""
        with torch.inference_mode():
            return self._causal.logits(_rounded(hidden))[: len(hidden)]


@dataclass(frozen=True)
class _Norms:
    """A layer's norm weights as arrays; empty ones where the model has none."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    query: NDArray[np.float32]
    key: NDArray[np.float32]
    epsilon: float
    head_epsilon: float

    @classmethod
    def of(cls, layer: Any) -> _Norms:
        attention = layer.self_attn
        none = np.empty(0, np.float32)
        has = hasattr(attention, "q_norm")
        return cls(
            layer.input_layernorm.weight.detach().numpy(),
            layer.post_attention_layernorm.weight.detach().numpy(),
            attention.q_norm.weight.detach().numpy() if has else none,
            attention.k_norm.weight.detach().numpy() if has else none,
            float(layer.input_layernorm.variance_epsilon),
            float(attention.q_norm.variance_epsilon) if has else 0.0,
        )


class FusedComputer:
    """A base model's cache and the pass over it; `of` makes one where the model is of this kind."""

    def __init__(self, causal: CausalLM, blocks: int) -> None:
        decoder: Any = causal.decoder
        config = causal.module.config.get_text_config()
        attention = decoder.layers[0].self_attn
        self._size = int(attention.head_dim)
        self._key_heads = attention.k_proj.out_features // self._size
        self._query_heads = attention.q_proj.out_features // self._size
        self._scale = float(attention.scaling) * math.log2(math.e)
        self._base = FusedNetwork(causal, None)
        self._embedding: Tensor = decoder.embed_tokens.weight.detach()
        self._norms = [_Norms.of(layer) for layer in decoder.layers]
        self._last_norm = decoder.norm.weight.detach().numpy()
        self._last_epsilon = float(decoder.norm.variance_epsilon)
        self._cosines, self._sines = _rotation(decoder.rotary_emb, int(config.max_position_embeddings))
        self.parallel = sum(parameter.numel() for parameter in causal.module.parameters()) < SMALL
        self._helpers = None if self.parallel else ThreadPoolExecutor(torch.get_num_threads(), "attention")
        shape = (len(self._norms), blocks, self._key_heads)
        self._keys = _filled((*shape, self._size, BLOCK))
        self._values = _filled((*shape, BLOCK, self._size))

    @classmethod
    def of(cls, causal: CausalLM, blocks: int) -> FusedComputer | None:
        """The computer, or None where the model is not of this kind or computes something else."""
        weight: Tensor = causal.module.get_input_embeddings().weight
        if not onednn_multiplies(weight) or not is_llama_like(causal):
            return None
        if causal.decoder.layers[0].self_attn.head_dim % 4:  # type: ignore[index,union-attr]
            return None
        computer = cls(causal, blocks)
        return computer if computer._agrees(causal) else None

    def _agrees(self, causal: CausalLM) -> bool:
        """Whether the model's own pass gives the same hidden states."""
        tokens = np.arange(BLOCK + 8) % causal.vocabulary
        positions = np.arange(len(tokens))
        table = np.arange(2, dtype=np.int32)[None]
        batch = TokenBatch(tokens, positions, np.zeros_like(tokens), table, positions, [(self._base, len(tokens))])
        found = self.hidden(batch)
        with torch.inference_mode():
            expected = causal.hidden(torch.from_numpy(tokens)[None])[0]
        return bool((found - expected).norm() <= 1e-4 * expected.norm())

    def network(self, causal: CausalLM) -> FusedNetwork:
        """The weights of the base or of a copy with an adapter merged in."""
        return self._base if causal is self._base._causal else FusedNetwork(causal, self._base)

    def copy_block(self, source: int, targets: Sequence[int]) -> None:
        """Copies a block's keys and values."""
        for target in targets:
            self._keys[:, target] = self._keys[:, source]
            self._values[:, target] = self._values[:, source]

    @torch.inference_mode()
    def hidden(self, batch: TokenBatch) -> Tensor:
        """Stores the batch's keys and values; returns the last hidden states [m, width] of the chosen tokens."""
        spans, padded = batch.spans, len(batch.spans) == 1
        chosen = np.arange(len(batch.tokens))
        states = self._embedding[torch.from_numpy(_padded(batch.tokens, padded))]
        more = states[:0]
        for number, norms in enumerate(self._norms):
            normed = torch.empty_like(states)
            kernels.add_and_normalize(states.numpy(), more.numpy(), norms.first, norms.epsilon, normed.numpy())
            projected = _product(normed, spans, number, "qkv")[: len(batch.tokens)]
            heads = projected.view(len(projected), -1, self._size).numpy()
            places: Places = (batch.positions, batch.rows, batch.tables, self._keys[number], self._values[number])
            turns = (self._cosines, self._sines)
            kernels_attention.place_heads(heads, norms.query, norms.key, norms.head_epsilon, *turns, *places)
            if number == len(self._norms) - 1:
                chosen, spans = batch.chosen, batch.chosen_spans
                states = states[torch.from_numpy(_padded(chosen, padded))]
                if not len(chosen):
                    return states[:0]
            mixed = torch.empty(len(states), self._query_heads * self._size)
            mixed[len(chosen) :] = 0
            by_head = mixed.view(len(states), self._query_heads, self._size).numpy()
            self._attend(heads, places, chosen, by_head[: len(chosen)])
            more = _product(mixed, spans, number, "output")
            normed = torch.empty_like(states)
            kernels.add_and_normalize(states.numpy(), more.numpy(), norms.second, norms.epsilon, normed.numpy())
            gates = _product(normed, spans, number, "gates")
            inner = torch.empty(len(gates), gates.shape[1] // 2)
            kernels.gate(gates.numpy(), inner.numpy())
            more = _product(inner, spans, number, "down")
        result = torch.empty_like(states)
        kernels.add_and_normalize(states.numpy(), more.numpy(), self._last_norm, self._last_epsilon, result.numpy())
        return result[: len(chosen)]

    def _attend(self, heads: NDArray[Any], places: Places, chosen: NDArray[np.int64], result: NDArray[Any]) -> None:
        """Attention of the chosen tokens, shared among threads where the model's sequences are not."""
        if self._helpers is None:
            kernels_attention.attend(heads, *places, self._scale, chosen, result)
            return
        parts = np.array_split(np.arange(len(chosen)), torch.get_num_threads())
        done = [
            self._helpers.submit(
                kernels_attention.attend,
                heads,
                *places,
                self._scale,
                chosen[part[0] : part[-1] + 1],
                result[part[0] : part[-1] + 1],
            )
            for part in parts
            if len(part)
        ]
        for each in done:
            each.result()


def _product(inputs: Tensor, spans: Sequence[tuple[FusedNetwork, int]], layer: int, part: str) -> Tensor:
    """A linear layer's outputs; each network computes its own rows, a single one all of them."""
    if len(spans) == 1:
        stacked: Stacked = getattr(spans[0][0].layers[layer], part)
        return multiply(inputs, stacked.weight, stacked.bias)
    results, start = [], 0
    for network, end in spans:
        if end > start:
            stacked = getattr(network.layers[layer], part)
            results.append(multiply(_rounded(inputs[start:end]), stacked.weight, stacked.bias)[: end - start])
            start = end
    return torch.cat(results)


def round_rows(rows: int) -> int:
    """At least so many rows, and one of few numbers: oneDNN makes and keeps a program for each number of rows."""
    step = 8 if rows <= 64 else 16 if rows <= 256 else 64
    return -(-rows // step) * step


def _padded(numbers: NDArray[np.int64], wanted: bool) -> NDArray[np.int64]:
    """The numbers and, if wanted, as many zeros as make their number round."""
    return np.pad(numbers, (0, round_rows(len(numbers)) - len(numbers))) if wanted else numbers


def _rounded(rows: Tensor) -> Tensor:
    """The rows and, if their number is not round, zeros."""
    return functional.pad(rows, (0, 0, 0, round_rows(len(rows)) - len(rows)))


def _rotation(module: Any, positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines [positions, half the head size] of a rotary embedding."""
    with torch.inference_mode():
        tables = module(torch.empty(0), torch.arange(positions)[None])
    cosines, sines = (table[0, :, : table.shape[-1] // 2].contiguous().numpy() for table in tables)
    return cosines, sines


def _filled(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Zeros whose memory is taken now, so that it neither grows nor runs out under load."""
    array = np.empty(shape, np.float32)
    array.fill(0)
    return array
