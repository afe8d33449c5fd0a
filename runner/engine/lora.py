"""LoRA adapters: which layers they touch, their PEFT files' tensors, and weights with one merged in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import Tensor, nn

from charrun.engine.causal import CausalLM
from charrun.engine.errors import RequestRefused

ALPHA = 32
"""Tinker fixes LoRA's alpha: the update is scaled by 32 / rank."""
MAX_RANK = 512
PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraSpec:
    """What an adapter is.

    Attributes:
        rank: A power of two.
        train_mlp: Whether the MLP's linear layers have an adapter.
        train_attn: Whether the attention's linear layers have one.
        train_unembed: Whether the output layer has one.
        seed: Seed of the initial A matrices.
    """

    rank: int
    train_mlp: bool
    train_attn: bool
    train_unembed: bool
    seed: int

    @classmethod
    def create(cls, rank: int, mlp: bool, attn: bool, unembed: bool, seed: int | None) -> LoraSpec:
        """A checked spec; without a seed, one is drawn.

        Raises:
            RequestRefused: The rank is not a power of two within limits, or nothing would be trained.
        """
        if rank < 1 or rank & (rank - 1) or rank > MAX_RANK:
            raise RequestRefused(f"The LoRA rank must be a power of two from 1 to {MAX_RANK}, not {rank}.")
        if not (mlp or attn or unembed):
            raise RequestRefused("At least one of train_mlp, train_attn and train_unembed must be true.")
        return cls(rank, mlp, attn, unembed, secrets.randbits(63) if seed is None else seed)

    @classmethod
    def from_meta(cls, meta: Mapping[str, Any]) -> LoraSpec:
        """From what `to_meta` wrote."""
        return cls(**{name: meta[name] for name in ("rank", "train_mlp", "train_attn", "train_unembed", "seed")})

    def to_meta(self) -> dict[str, Any]:
        """For a checkpoint's meta.json."""
        return asdict(self)


@dataclass(frozen=True)
class Adapter:
    """An adapter's tensors: module name to A [rank, in] and B [out, rank], fp32 on the CPU."""

    spec: LoraSpec
    layers: Mapping[str, tuple[Tensor, Tensor]]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors under PEFT's names."""
        named: dict[str, Tensor] = {}
        for module, (first, second) in self.layers.items():
            named[f"{PEFT_PREFIX}{module}.lora_A.weight"] = first.contiguous()
            named[f"{PEFT_PREFIX}{module}.lora_B.weight"] = second.contiguous()
        return named

    @classmethod
    def from_tensors(cls, spec: LoraSpec, tensors: Mapping[str, Tensor]) -> Adapter:
        """From what `tensors` gave."""
        ending = ".lora_A.weight"
        modules = [name[len(PEFT_PREFIX) : -len(ending)] for name in tensors if name.endswith(ending)]
        layers = {
            module: (
                tensors[f"{PEFT_PREFIX}{module}.lora_A.weight"],
                tensors[f"{PEFT_PREFIX}{module}.lora_B.weight"],
            )
            for module in modules
        }
        return cls(spec, layers)


def adapted_layers(model: CausalLM, spec: LoraSpec) -> set[str]:
    """Names of the linear layers that the adapter touches.

    Raises:
        RequestRefused: The model has no linear layers of a kind that shall be trained.
    """
    kinds: dict[str, set[str]] = {"attention": set(), "MLP": set(), "output": set()}
    for name, module in model.module.named_modules():
        if module is model.head:
            kinds["output"].add(name)
        elif isinstance(module, nn.Linear):
            kinds["attention" if "attn" in name or "attention" in name else "MLP"].add(name)
    wanted = {"attention": spec.train_attn, "MLP": spec.train_mlp, "output": spec.train_unembed}
    for kind, found in kinds.items():
        if wanted[kind] and not found:
            raise RequestRefused(f"This model has no linear {kind} layers to train; leave them out.")
    return {name for kind, found in kinds.items() if wanted[kind] for name in found}


def target_modules(model: CausalLM, names: Set[str]) -> list[str]:
    """PEFT's short way to name those linear layers: their last parts, where these name no other layer."""
    linear = {name for name, module in model.module.named_modules() if isinstance(module, nn.Linear)}
    parts = {name.rpartition(".")[2] for name in names}
    alike = {name for name in linear if name.rpartition(".")[2] in parts}
    return sorted(parts if alike == names else names)


def peft_config(spec: LoraSpec, targets: list[str], folder: Path) -> LoraConfig:
    """PEFT's description of an adapter of these layers."""
    return LoraConfig(
        r=spec.rank,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        bias="none",
        target_modules=targets,
        task_type="CAUSAL_LM",
        base_model_name_or_path=str(folder),
    )


def peft_fields(config: LoraConfig) -> dict[str, Any]:
    """The fields of adapter_config.json, as PEFT writes them but in a fixed order."""
    fields = {**config.to_dict(), "inference_mode": True}
    return {name: sorted(value) if isinstance(value, set) else value for name, value in fields.items()}


def merged(base: CausalLM, adapter: Adapter) -> CausalLM:
    """The model with the adapter added into the layers it touches; all other weights are shared with the base.

    An output layer that is tied to the embedding gets weights of its own, so that the embedding stays.
    """
    copy = base.copy()
    scale = ALPHA / adapter.spec.rank
    own_bytes = 0
    for name, (first, second) in adapter.layers.items():
        linear: Any = copy.module.get_submodule(name)
        delta = (second.to(copy.device) @ first.to(copy.device)) * scale
        weight = (linear.weight.detach().float() + delta).to(linear.weight.dtype)
        linear.weight = nn.Parameter(weight, requires_grad=False)
        own_bytes += weight.nbytes
    return CausalLM(copy.module, own_bytes)
