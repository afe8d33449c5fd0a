"""Any other model, and any device: the transformers module itself, over the same blocks of keys and values.

Sequences of a batch are padded to the longest, so a token's last digits may depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.blocks import BLOCK, blocks_for
from charrun.engine.causal import CausalLM
from charrun.engine.packed_batch import TokenBatch


class GeneralNetwork:
    """One set of weights."""

    def __init__(self, causal: CausalLM) -> None:
        self.causal = causal
        self.own_bytes = causal.own_bytes
        self.vocabulary = causal.vocabulary

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """fp32 logits [rows, vocabulary] of hidden states [rows, width]."""
        return self.causal.logits(hidden)


class _PagedCache:
    """What transformers takes for its cache: writes the batch's keys and values, gives back all of the sequences'."""

    def __init__(self, keys: Tensor, values: Tensor, tables: Tensor, places: Tensor, real: Tensor) -> None:
        self._keys, self._values, self._tables, self._real = keys, values, tables, real
        self._blocks = tables.gather(1, places // BLOCK)[real]
        self._offsets = (places % BLOCK)[real]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Stores [sequences, heads, tokens, size], returns [sequences, heads, all positions, size]."""
        whole = []
        for store, new in ((self._keys[layer], keys), (self._values[layer], values)):
            store[self._blocks, self._offsets] = new.transpose(1, 2)[self._real]
            whole.append(store[self._tables].flatten(1, 2).transpose(1, 2))
        return whole[0], whole[1]

    def get_seq_length(self, layer: int = 0) -> int:
        """Sequences have different lengths; positions and masks are given."""
        return 0


class GeneralComputer:
    """A base model's cache and the pass over it."""

    parallel = False

    def __init__(self, causal: CausalLM, blocks: int) -> None:
        config = causal.module.config.get_text_config()
        heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        shape = (int(config.num_hidden_layers), blocks, BLOCK, heads, size)
        weight: Tensor = causal.module.get_input_embeddings().weight
        self._device = weight.device
        # Zeros: a masked position has attention weight 0, and 0 times a stray NaN would be NaN.
        self._keys, self._values = (torch.zeros(shape, dtype=weight.dtype, device=weight.device) for _ in range(2))

    def network(self, causal: CausalLM) -> GeneralNetwork:
        """The weights of a model."""
        return GeneralNetwork(causal)

    def copy_block(self, source: int, targets: Sequence[int]) -> None:
        """Copies a block's keys and values."""
        for store in (self._keys, self._values):
            store[:, list(targets)] = store[:, source : source + 1]

    @torch.inference_mode()
    def hidden(self, batch: TokenBatch) -> Tensor:
        """Stores the batch's keys and values; returns the last hidden states [m, width] of the chosen tokens."""
        starts = np.flatnonzero(np.diff(batch.rows, prepend=-1))
        counts = np.diff(np.append(starts, len(batch.rows)))
        owner = np.searchsorted([end for _, end in batch.spans], starts, side="right")
        found: list[tuple[NDArray[np.int64], Tensor]] = []
        for number, (network, _) in enumerate(batch.spans):
            for several in (False, True):
                some = np.flatnonzero((owner == number) & ((counts > 1) == several))
                if len(some):
                    found.append(self._part(network, batch, starts[some], counts[some]))
        order = np.concatenate([tokens for tokens, _ in found])
        states = torch.cat([states for _, states in found])
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return states[torch.from_numpy(place[batch.chosen]).to(self._device)]

    def _part(
        self, network: GeneralNetwork, batch: TokenBatch, starts: NDArray[np.int64], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], Tensor]:
        """The hidden states of some of the batch's sequences, padded together, with their tokens' numbers."""
        inside = np.arange(int(counts.max()))
        real = inside < counts[:, None]
        numbers = np.where(real, starts[:, None] + inside, starts[:, None])
        places = batch.positions[numbers]
        span = blocks_for(int(places.max()) + 1)
        tables = self._tensor(batch.tables[batch.rows[starts], :span].astype(np.int64))
        positions = self._tensor(places)
        seen = torch.arange(span * BLOCK, device=self._device)
        cache = _PagedCache(self._keys, self._values, tables, positions, self._tensor(real))
        states = network.causal.hidden(
            self._tensor(batch.tokens[numbers]),
            cache=cache,
            positions=positions,
            mask=(seen <= positions[:, :, None])[:, None],
        )
        return numbers[real], states[self._tensor(real)]

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)
