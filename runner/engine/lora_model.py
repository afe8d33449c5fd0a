"""A base model with a trainable adapter, trained the fast way where the model allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from charrun.engine.causal import CausalLM
from charrun.engine.head import AutogradHead, Head, LinearHead
from charrun.engine.linear import OneDnnLinear
from charrun.engine.lora import Adapter, LoraSpec, adapted_layers, peft_config, target_modules
from charrun.engine.lora_linear import LoraLinear
from charrun.engine.lora_parameters import LoraParameters
from charrun.engine.packed_decoder import PackedDecoder, lora_groups
from charrun.engine.packing import Packing
from charrun.engine.peft_decoder import PeftDecoder


class Decoder(Protocol):
    """All of the model but its head.

    Attributes:
        bytes_per_token: What a forward pass keeps, about, and the backward pass needs beside it.
        bytes_per_token_recomputed: The same where layers are computed again in the backward pass.
    """

    bytes_per_token: int
    bytes_per_token_recomputed: int

    def forward(self, packing: Packing, keep: bool, recompute: bool = False) -> tuple[Tensor, Any]:
        """Last hidden states [tokens, width], and what `backward` needs if it is to be kept."""

    def backward(self, gradient: Tensor, kept: Any) -> None:
        """Adds to the adapter's gradients, given that of the last hidden states; `kept` is used up."""

    def finish(self) -> None:
        """Completes the gradients after the last backward pass of a request."""

    def discard(self) -> None:
        """Forgets what a failed backward pass left."""


class LoraModel:
    """A base model, frozen and shared, with a trainable adapter.

    Attributes:
        config: PEFT's description of the adapter.
        parameters: The adapter's values and gradients.
        decoder: The model below the head.
        head: The output layer.
        device: Where it all is.
    """

    def __init__(self, base: CausalLM, spec: LoraSpec, folder: Path, general: bool = False) -> None:
        """Raises RequestRefused where the model has no layers of a kind that shall be trained.

        Args:
            base: The model.
            spec: What the adapter is.
            folder: The model's, which PEFT's files name.
            general: Whether to train the general way even where the fast one is possible.
        """
        names = adapted_layers(base, spec)
        self.config = peft_config(spec, target_modules(base, names), folder)
        self.parameters = LoraParameters(spec, lora_groups(base, names), base.device)
        self.device = base.device
        self.decoder: Decoder
        self.head: Head
        packed = PackedDecoder.of(base, self.parameters) if _has_plain_head(base) and not general else None
        if packed is not None:
            self.decoder, self.head = packed, LinearHead(_linear_head(base, self.parameters))
        else:
            decoder = PeftDecoder(base, self.config, self.parameters)
            self.decoder, self.head = decoder, AutogradHead(decoder.model)

    @property
    def spec(self) -> LoraSpec:
        """What the adapter is."""
        return self.parameters.spec

    def adapter(self) -> Adapter:
        """A snapshot of the adapter."""
        return self.parameters.adapter()

    def load(self, adapter: Adapter) -> None:
        """Takes over an adapter's values.

        Raises:
            RequestRefused: It touches other layers or has another shape.
        """
        self.parameters.load(adapter)

    def finish(self) -> None:
        """Completes the gradients after the last backward pass of a request."""
        self.decoder.finish()
        self.head.finish()

    def discard(self) -> None:
        """Forgets what a failed backward pass left."""
        self.decoder.discard()
        self.head.discard()


def _has_plain_head(base: CausalLM) -> bool:
    return base.has_plain_logits and type(base.head) in (nn.Linear, OneDnnLinear)


def _linear_head(base: CausalLM, parameters: LoraParameters) -> LoraLinear:
    name = next(name for name, module in base.module.named_modules() if module is base.head)
    assert isinstance(base.head, nn.Linear)
    return LoraLinear({name: base.head}, parameters)
