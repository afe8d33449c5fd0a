"""A transformers causal language model as a decoder and a head, and copies that share its weights."""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM

from charrun.engine.errors import RequestRefused
from charrun.engine.linear import use_onednn

ATTENTION = "charrun_grouped"


class KeyValues(Protocol):
    """Where a forward pass puts its keys and values, each [batch, kv heads, new positions, head size]."""

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any) -> tuple[Tensor, Tensor]:
        """Stores one layer's new keys and values; returns those to attend to."""

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions that precede the new ones, where all rows have the same."""


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention in which query heads that share a key head stay one matrix, so that no key is ever repeated.

    Args:
        module: The attention layer (unused).
        query: [batch, heads, positions, head size].
        key: [batch, kv heads, keys, head size].
        value: Like `key`.
        attention_mask: None for causal attention of equally many queries and keys; else boolean
            [batch, 1, positions, keys].
        scaling: Factor of the scores; None means head size to the power of -0.5.

    Returns:
        [batch, positions, heads, head size].
    """
    groups = query.shape[1] // key.shape[1]
    if attention_mask is None:
        output = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=groups > 1)
        return output.transpose(1, 2).contiguous(), None
    batch, heads, positions, size = query.shape
    if positions > 1:
        output = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=groups > 1
        )
        return output.transpose(1, 2).contiguous(), None
    packed = query.reshape(batch, heads // groups, groups, size)
    output = F.scaled_dot_product_attention(packed, key, value, attn_mask=attention_mask, scale=scaling)
    return output.reshape(batch, 1, heads, output.shape[-1]), None


AttentionInterface.register(ATTENTION, grouped_attention)


class CausalLM:
    """A causal language model whose head runs only where it is wanted.

    Attributes:
        module: The transformers model.
        own_bytes: Bytes of weights that no other model shares.
    """

    def __init__(self, module: Any, own_bytes: int = 0) -> None:
        self.module = module
        self.own_bytes = own_bytes
        self.decoder: nn.Module = module.get_decoder()
        self.head: nn.Module = module.get_output_embeddings()
        config = module.config
        # What transformers calls the cache: past_key_values until 5.24.
        named = inspect.signature(self.decoder.forward).parameters
        self._cache = "cache" if "cache" in named else "past_key_values"
        self._softcap = getattr(config, "final_logit_softcapping", None)
        self._divisor = getattr(config, "logits_scaling", None)
        self._factor = getattr(config, "logit_scale", None)

    @property
    def _parameter(self) -> Tensor:
        parameter: Tensor = next(self.module.parameters())
        return parameter

    @property
    def device(self) -> torch.device:
        return self._parameter.device

    @property
    def has_plain_logits(self) -> bool:
        """Whether the logits are what the head gives, without a factor or a cap."""
        return self._softcap is None and self._divisor is None and self._factor is None

    def hidden(
        self,
        tokens: Tensor,
        cache: KeyValues | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Last hidden states [batch, positions, width] of tokens [batch, positions]."""
        output = self.decoder(
            input_ids=tokens,
            position_ids=positions,
            attention_mask=mask,
            use_cache=cache is not None,
            **{self._cache: cache},
        )
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] in fp32 of hidden states [..., width]."""
        logits: Tensor = self.head(hidden)
        if self._factor is not None:
            logits = logits * self._factor
        if self._divisor is not None:
            logits = logits / self._divisor
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits.float()

    @property
    def vocabulary(self) -> int:
        """Width of the logits."""
        return int(self.module.config.get_text_config().vocab_size)

    @property
    def cache_bytes_per_position(self) -> int:
        """Bytes of the keys and values of one position in all layers."""
        config = self.module.config.get_text_config()
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        return 2 * int(config.num_hidden_layers) * heads * size * self._parameter.element_size()

    def copy(self) -> CausalLM:
        """A second model of the same weights: every parameter and buffer is shared, every module is its own."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        return CausalLM(copy.deepcopy(self.module, {id(tensor): tensor for tensor in tensors}))


def load_causal(folder: Path, device: torch.device, dtype: torch.dtype) -> CausalLM:
    """Loads a local Hugging Face folder, frozen, without ever asking a hub.

    Raises:
        RequestRefused: The architecture is not one that this engine computes rightly.
    """
    module = AutoModelForCausalLM.from_pretrained(
        str(folder), local_files_only=True, dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    module.to(device).eval().requires_grad_(False)
    kind = type(module).__name__
    layer_types = set(getattr(module.config, "layer_types", None) or ["full_attention"])
    unknown = layer_types - {"full_attention", "sliding_attention"}
    if unknown or module.config._attn_implementation != "sdpa":
        what = ", ".join(sorted(unknown)) or "an attention of its own"
        raise RequestRefused(f"{kind} has {what}, which this engine does not compute: {folder}.")
    reference = _reference_logits(module, [1, 2, 3, 1])
    module.config._attn_implementation = ATTENTION
    use_onednn(module)
    model = CausalLM(module)
    with torch.inference_mode():
        tokens = torch.tensor([[1, 2, 3, 1]], device=device)
        logits = model.logits(model.hidden(tokens))[0]
    tolerance = 1e-3 if dtype == torch.float32 else 0.1 * float(reference.abs().max()) + 0.1
    if not torch.allclose(logits, reference, atol=tolerance, rtol=1e-3):
        raise RequestRefused(f"{kind} makes its logits in a way that this engine does not know: {folder}.")
    return model


def _reference_logits(module: Any, tokens: Sequence[int]) -> Tensor:
    """Logits [positions, vocabulary] by the model's own forward pass."""
    with torch.inference_mode():
        logits: Tensor = module(torch.tensor([list(tokens)], device=module.device)).logits[0]
        return logits.float()
