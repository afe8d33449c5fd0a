"""Any decoder with adapters: PEFT's layers in the transformers model, padded rows, autograd."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from charrun.engine.causal import CausalLM
from charrun.engine.linear import use_onednn
from charrun.engine.lora_parameters import LoraParameters
from charrun.engine.packing import Packing


@dataclass(frozen=True)
class Graph:
    """A forward pass that can be differentiated: its hidden states [tokens, width]."""

    states: Tensor


class PeftDecoder:
    """The general way to train a model; slower than `PackedDecoder` and right for every architecture.

    Attributes:
        model: A copy of the base model with PEFT's layers, whose matrices are views of the parameters.
    """

    def __init__(self, base: CausalLM, config: LoraConfig, parameters: LoraParameters) -> None:
        copy = base.copy()
        get_peft_model(copy.module, config)
        copy.module.eval()
        use_onednn(copy.module)
        self.model = CausalLM(copy.module)
        for name, module in copy.module.named_modules():
            if isinstance(module, LoraLayer):
                pairs = zip(parameters.pair(name), parameters.pair(name, parameters.gradient), strict=True)
                for holder, (values, gradient) in zip((module.lora_A, module.lora_B), pairs, strict=True):
                    weight = nn.Parameter(values)
                    weight.grad = gradient
                    holder["default"].weight = weight
        text = copy.module.config.get_text_config()
        width = int(text.hidden_size)
        inner = int(getattr(text, "intermediate_size", None) or 4 * width)
        self.bytes_per_token = int(text.num_hidden_layers) * (24 * width + 6 * inner) * 4
        self.bytes_per_token_recomputed = self.bytes_per_token

    def forward(self, packing: Packing, keep: bool, recompute: bool = False) -> tuple[Tensor, Graph | None]:
        """Last hidden states [tokens, width], and their graph if it is to be kept; nothing is ever recomputed."""
        device = packing.tokens.device
        lengths = torch.tensor(packing.lengths, device=device)
        real = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
        padded = torch.zeros(real.shape, dtype=torch.int64, device=device)
        padded[real] = packing.tokens
        with torch.set_grad_enabled(keep):
            states = self.model.hidden(padded)[real]
        return states.detach(), Graph(states) if keep else None

    def backward(self, gradient: Tensor, kept: Graph) -> None:
        """Adds to the adapter's gradients, given that of the last hidden states."""
        if kept.states.requires_grad:
            kept.states.backward(gradient)  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """Nothing is left to do after a backward pass."""

    def discard(self) -> None:
        """Nothing is left of a backward pass that failed."""
