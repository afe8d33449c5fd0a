"""A Llama-like decoder with adapters on packed rows: forward pass, kept activations and backward pass by hand.

Llama, Mistral, Qwen2, Qwen3 and their like consist of the same few parts. Written out, a backward pass keeps less,
starts fewer kernels and stops at the lowest adapter. `PackedDecoder.of` recognises such a model by its modules and
compares its hidden states with the model's own; what does not fit is trained by the general way (autograd_decoder.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from charrun.engine.causal import CausalLM
from charrun.engine.linear import OneDnnLinear
from charrun.engine.lora_linear import LoraLinear, Projected
from charrun.engine.lora_parameters import LayerShape, LoraParameters
from charrun.engine.packed_layers import (
    Attended,
    Normalized,
    RmsNorm,
    Rotation,
    attend,
    attend_backward,
    gate,
    gate_backward,
)
from charrun.engine.packing import Packing, pack

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
OUTPUT, GATES, DOWN = ("self_attn.o_proj",), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)
ROTATIONS = {"default", "linear", "llama3", "yarn"}
"""Rotary embeddings whose angles depend on the position alone."""


@dataclass(frozen=True)
class KeptLayer:
    """A layer's activations, all [tokens, ...]."""

    first: Normalized
    qkv_low: Projected
    heads: Tensor
    head_norm: Normalized | None
    attended: list[Attended]
    mixed: Tensor
    output_low: Projected
    second: Normalized
    gates: Tensor
    gates_low: Projected
    down_low: Projected


@dataclass(frozen=True)
class Kept:
    """A forward pass that can be differentiated; a layer is its activations, or its inputs to compute them from."""

    packing: Packing
    rotation: Rotation
    layers: list[KeptLayer | Tensor]
    last: Normalized


class PackedLayer:
    """One decoder layer."""

    def __init__(self, module: Any, name: str, parameters: LoraParameters) -> None:
        attention = module.self_attn
        self._qkv, self._output, self._gates, self._down = (
            LoraLinear({f"{name}.{part}": module.get_submodule(part) for part in parts}, parameters)
            for parts in (ATTENTION, OUTPUT, GATES, DOWN)
        )
        self.linears = (self._qkv, self._output, self._gates, self._down)
        self._size = int(attention.head_dim)
        self._heads, self._key_heads = (width // self._size for width in self._qkv.outputs[:2])
        self._scale = float(attention.scaling)
        self._first, self._second = RmsNorm.of(module.input_layernorm), RmsNorm.of(module.post_attention_layernorm)
        self._head_norm = self._find_head_norm(attention)

    def _find_head_norm(self, attention: Any) -> RmsNorm | None:
        if not hasattr(attention, "q_norm"):
            return None
        norms = [RmsNorm.of(norm) for norm in (attention.q_norm, attention.k_norm)]
        counts = (self._heads, self._key_heads)
        weights = [norm.weight.expand(count, self._size) for norm, count in zip(norms, counts, strict=True)]
        return RmsNorm(torch.cat(weights), float(attention.q_norm.variance_epsilon))

    @property
    def kept_elements(self) -> int:
        """Elements per token that a forward pass keeps."""
        low = sum(linear.low_width for linear in self.linears)
        query, key = self._heads * self._size, self._key_heads * self._size
        return 2 * self._qkv.inputs + 5 * query + 4 * key + 2 * self._down.inputs + low

    def forward(self, states: Tensor, packing: Packing, rotation: Rotation) -> tuple[Tensor, KeptLayer]:
        """Hidden states [tokens, width] after the layer; `states` is overwritten."""
        first = self._first.normalize(states)
        heads, qkv_low = self._qkv.forward(self._first.scaled(first))
        heads = heads.view(len(heads), -1, self._size)
        turned, head_norm = heads[:, : -self._key_heads], None
        if self._head_norm is not None:
            head_norm = self._head_norm.normalize(turned)
            turned = self._head_norm.scaled(head_norm)
        query, key = rotation.forward(turned).split_with_sizes([self._heads, self._key_heads], 1)
        mixed, attended = attend(packing, query, key, heads[:, -self._key_heads :], self._scale)
        mixed = mixed.view(len(mixed), -1)
        more, output_low = self._output.forward(mixed)
        states = states.add_(more)
        second = self._second.normalize(states)
        gates, gates_low = self._gates.forward(self._second.scaled(second))
        more, down_low = self._down.forward(gate(gates)[0])
        kept = KeptLayer(
            first, qkv_low, heads, head_norm, attended, mixed, output_low, second, gates, gates_low, down_low
        )
        return states.add_(more), kept

    def backward(self, gradient: Tensor, kept: KeptLayer, packing: Packing, rotation: Rotation, lowest: bool) -> Tensor:
        """Gradient of the hidden states before the layer, in place of that after it.

        Args:
            gradient: Of the states after the layer [tokens, width].
            kept: What the forward pass gave.
            packing: The rows.
            rotation: Of their positions.
            lowest: Whether no adapter lies below this layer, so that the result is not used.
        """
        below = not lowest
        attention = below or self._qkv.trained or self._output.trained
        product, active = gate(kept.gates)
        inner = self._down.backward(gradient, product, kept.down_low, attention or self._gates.trained)
        if inner is not None:
            inner = gate_backward(inner, kept.gates, active)
            inner = self._gates.backward(inner, self._second.scaled(kept.second), kept.gates_low, attention)
        if inner is None:
            return gradient
        gradient.add_(self._second.backward(inner, kept.second))
        inner = self._output.backward(gradient, kept.mixed, kept.output_low, below or self._qkv.trained)
        if inner is None:
            return gradient
        heads = self._attention_backward(inner, kept, packing, rotation)
        inner = self._qkv.backward(heads, self._first.scaled(kept.first), kept.qkv_low, below)
        return gradient if inner is None else gradient.add_(self._first.backward(inner, kept.first))

    def _attention_backward(self, gradient: Tensor, kept: KeptLayer, packing: Packing, rotation: Rotation) -> Tensor:
        """Gradient of the projected heads [tokens, all heads * head size]."""
        result = torch.empty_like(kept.heads)
        query, key, value = result.split_with_sizes([self._heads, self._key_heads, self._key_heads], 1)
        gradient = gradient.view(len(gradient), self._heads, self._size)
        attend_backward(packing, kept.attended, gradient, query, key, value)
        turned = result[:, : -self._key_heads]
        inner = rotation.backward(turned)
        if self._head_norm is not None and kept.head_norm is not None:
            inner = self._head_norm.backward(inner, kept.head_norm)
        turned.copy_(inner)
        return result.view(len(result), -1)


class PackedDecoder:
    """A whole decoder; `of` makes one where it can."""

    def __init__(self, model: CausalLM, parameters: LoraParameters) -> None:
        decoder: Any = model.decoder
        names = {id(module): name for name, module in model.module.named_modules()}
        self._embedding: nn.Embedding = decoder.embed_tokens
        self._rotary = decoder.rotary_emb
        self._norm = RmsNorm.of(decoder.norm)
        self._layers = [PackedLayer(layer, names[id(layer)], parameters) for layer in decoder.layers]
        self._trained = any(linear.trained for layer in self._layers for linear in layer.linears)
        element = self._embedding.weight.element_size()
        widest = max(layer.kept_elements for layer in self._layers)
        self.bytes_per_token = element * (sum(layer.kept_elements for layer in self._layers) + 2 * widest)
        self.bytes_per_token_recomputed = element * (len(self._layers) * self._norm.weight.numel() + 3 * widest)

    @classmethod
    def of(cls, model: CausalLM, parameters: LoraParameters) -> PackedDecoder | None:
        """The decoder, or None where the model is not of this kind or computes something else.

        Args:
            model: The base model.
            parameters: A fresh adapter of it, whose B matrices are zero.
        """
        if not is_llama_like(model):
            return None
        decoder = cls(model, parameters)
        tokens = torch.arange(24, device=model.device) % model.vocabulary
        with torch.inference_mode():
            expected = model.hidden(tokens[None])[0].float()
        packing = pack([tokens.cpu().numpy()], model.device)
        found = decoder.forward(packing, keep=False)[0].float()
        tolerance = 1e-4 if decoder._embedding.weight.dtype == torch.float32 else 0.05
        fits = bool((found - expected).norm() <= tolerance * expected.norm())
        return decoder if fits else None

    @torch.no_grad()
    def forward(self, packing: Packing, keep: bool, recompute: bool = False) -> tuple[Tensor, Kept | None]:
        """Last hidden states [tokens, width], and what `backward` needs if it is to be kept.

        Args:
            packing: The rows.
            keep: Whether a backward pass may follow.
            recompute: Whether to keep each layer's inputs only, from which `backward` computes the rest again.
        """
        states = functional.embedding(packing.tokens, self._embedding.weight)
        rotation = Rotation.of(self._rotary, packing, states)
        layers: list[KeptLayer | Tensor] = []
        for layer in self._layers:
            if keep and recompute:
                layers.append(states.clone())
            states, kept = layer.forward(states, packing, rotation)
            if keep and not recompute:
                layers.append(kept)
        last = self._norm.normalize(states)
        return self._norm.scaled(last), Kept(packing, rotation, layers, last) if keep else None

    @torch.no_grad()
    def backward(self, gradient: Tensor, kept: Kept) -> None:
        """Adds to the adapter's gradients, given that of the last hidden states; `kept` is used up."""
        if not self._trained:
            return
        gradient = self._norm.backward(gradient, kept.last)
        for number in range(len(self._layers) - 1, -1, -1):
            layer, activations = self._layers[number], kept.layers.pop()
            if isinstance(activations, Tensor):
                _, activations = layer.forward(activations, kept.packing, kept.rotation)
            gradient = layer.backward(gradient, activations, kept.packing, kept.rotation, number == 0)

    def finish(self) -> None:
        """Completes the gradients after the last backward pass of a request."""
        for layer in self._layers:
            for linear in layer.linears:
                linear.finish()

    def discard(self) -> None:
        """Forgets what a failed backward pass left."""
        for layer in self._layers:
            for linear in layer.linears:
                linear.discard()


def lora_groups(model: CausalLM, names: Collection[str]) -> list[list[LayerShape]]:
    """Those of a model's linear layers in groups: neighbours whose inputs are the same lie together."""
    shared = {part: parts for parts in (ATTENTION, GATES) for part in parts}
    groups: dict[str, list[LayerShape]] = {}
    for name, module in model.module.named_modules():
        if name in names:
            part = next((part for part in shared if name.endswith("." + part)), None)
            key = name if part is None else name.removesuffix(part) + shared[part][0]
            groups.setdefault(key, []).append(LayerShape(name, module.in_features, module.out_features))
    return list(groups.values())


def is_llama_like(model: CausalLM) -> bool:
    """Whether the decoder consists of the parts that this file knows, and of nothing else that has weights."""
    decoder: Any = model.decoder
    config = model.module.config.get_text_config()
    layer_parts = {*ATTENTION, *OUTPUT, *GATES, *DOWN, "input_layernorm", "post_attention_layernorm"}
    optional = {"self_attn.q_norm", "self_attn.k_norm"}
    if not all(hasattr(decoder, name) for name in ("embed_tokens", "layers", "norm", "rotary_emb")):
        return False
    others = {name.partition(".")[0] for name, _ in decoder.named_parameters()} - {"layers"}
    sliding = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if others != {"embed_tokens", "norm"} or sliding or _slides(config):
        return False
    if getattr(decoder.rotary_emb, "rope_type", None) not in ROTATIONS or config.hidden_act != "silu":
        return False
    return all(_has_parts(layer, layer_parts, optional) for layer in decoder.layers)


def _slides(config: Any) -> bool:
    window = getattr(config, "sliding_window", None)
    return window is not None and getattr(config, "use_sliding_window", True) is not False


def _has_parts(layer: Any, required: Collection[str], optional: Collection[str]) -> bool:
    parts = {name.rpartition(".")[0] for name, _ in layer.named_parameters()}
    if not parts.issuperset(required) or parts - set(required) - set(optional):
        return False
    norms = [name for name in ("q_norm", "k_norm") if hasattr(layer.self_attn, name)]
    size = getattr(layer.self_attn, "head_dim", None)
    whole = all(getattr(layer.self_attn, name).weight.shape == (size,) for name in norms)
    plain = all(type(layer.get_submodule(p)) in (nn.Linear, OneDnnLinear) for p in required if p.endswith("_proj"))
    biases = [layer.get_submodule(part).bias is None for part in ATTENTION]
    return whole and plain and len(norms) in (0, 2) and len(set(biases)) == 1
