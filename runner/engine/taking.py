"""Bringing a PEFT adapter folder in as a checkpoint; the engine of the storage folder may run or not.

An engine has one alpha and one rank an adapter. What a folder says in other terms is told in these: each B is scaled so
that 32 / rank gives the folder's own scale, and smaller ranks are filled up with zeros.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError, safe_open
from torch import Tensor

from charrun.engine.checkpoint_records import CheckpointName, SaveRequest
from charrun.engine.checkpoints import CheckpointStore
from charrun.engine.errors import RequestRefused
from charrun.engine.lora import ALPHA, MAX_RANK, PEFT_PREFIX, Adapter, LoraSpec, peft_config

_A, _B = ".lora_A.weight", ".lora_B.weight"
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
}


def take_adapter(
    storage: Path, folder: Path, base_model: str, model_folder: Path, name: str, note: Mapping[str, str]
) -> tuple[str, str]:
    """Keep an adapter as a checkpoint to train on from, without optimizer state, and as one to sample from.

    The same adapter under the same name is the same checkpoint, so that taking it twice leaves one.

    Args:
        storage: Folder of the checkpoints.
        folder: adapter_config.json and adapter_model.safetensors, as PEFT writes them.
        base_model: Served name of its base model.
        model_folder: The base model's Hugging Face folder.
        name: What the checkpoints are called.
        note: What is attached to them.

    Returns:
        Their paths, `tinker://<run>/weights/<name>` and `tinker://<run>/sampler_weights/<name>`.

    Raises:
        RequestRefused: It is no plain LoRA of this model's linear layers, or its rank is beyond the engine's.
    """
    try:
        fields = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        config = LoraConfig.from_pretrained(str(folder))
        adapter = _adapter(folder, config, _linear_shapes(model_folder))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RequestRefused(f"{folder} holds no LoRA adapter that can be read: {error}.") from error
    digest = hashlib.sha256(json.dumps([base_model, name, fields], sort_keys=True).encode())
    digest.update((folder / "adapter_model.safetensors").read_bytes())
    targets = sorted(adapter.layers) if isinstance(config.target_modules, str) else sorted(config.target_modules or [])
    store, paths = CheckpointStore(storage), []
    for kind in ("weights", "sampler_weights"):
        place = CheckpointName.checked(f"{digest.hexdigest()[:32]}:train:0", kind, name)
        store.save(
            SaveRequest(
                place=place,
                base_model=base_model,
                adapter=adapter,
                config=peft_config(adapter.spec, targets, model_folder),
                optimizer=None,
                step=0,
                ttl_seconds=None,
                overwrite=True,
                user_metadata=note,
                run_metadata=None,
            )
        )
        paths.append(place.path)
    return paths[0], paths[1]


def _adapter(folder: Path, config: LoraConfig, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    """The folder's adapter in the engine's terms.

    Raises:
        RequestRefused: It is something else than LoRA on linear layers of these shapes.
    """
    odd = sorted(name for name, plain in _PLAIN.items() if getattr(config, name, None) not in plain)
    if odd:
        raise RequestRefused(f"{folder} is no plain LoRA: it sets {', '.join(odd)}.")
    layers: dict[str, tuple[Tensor, Tensor]] = {}
    for module, first, second in _pairs(folder / "adapter_model.safetensors"):
        outputs, inputs = shapes.get(module, (0, 0))
        if (second.shape[0], first.shape[1]) != (outputs, inputs) or first.shape[0] != second.shape[1]:
            raise RequestRefused(f"{folder} does not fit the model: {module} is no linear layer, or of another size.")
        rank = int(first.shape[0])
        scale = _of(config.alpha_pattern, module, config.lora_alpha) / _of(config.rank_pattern, module, config.r)
        layers[module] = first, second * (scale * rank / ALPHA)
    rank = 1 << math.ceil(math.log2(max(first.shape[0] for first, _ in layers.values())))
    if rank > MAX_RANK:
        raise RequestRefused(f"{folder} has LoRA rank {rank}; this engine's limit is {MAX_RANK}.")
    attention = {module for module in layers if "attn" in module or "attention" in module}
    output = {module for module in layers if module.rpartition(".")[2] == "lm_head"}
    spec = LoraSpec.create(rank, bool(layers.keys() - attention - output), bool(attention), bool(output), 0)
    return Adapter(spec, {module: _filled(*pair, rank) for module, pair in layers.items()})


def _filled(first: Tensor, second: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A pair of a smaller rank r as one of this rank: B times rank / r, since the scale is 32 / rank."""
    own = first.shape[0]
    whole = torch.zeros(rank, first.shape[1]), torch.zeros(second.shape[0], rank)
    whole[0][:own], whole[1][:, :own] = first, second * (rank / own)
    return whole


def _pairs(path: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each module with its A [rank, in] and B [out, rank], in fp32.

    Raises:
        RequestRefused: There is a tensor that is neither.
    """
    with safe_open(str(path), "pt") as file:
        names = set(file.keys())
        modules = sorted(name[len(PEFT_PREFIX) : -len(_A)] for name in names if name.endswith(_A))
        other = names - {f"{PEFT_PREFIX}{module}{end}" for module in modules for end in (_A, _B)}
        if other or not modules:
            found = ", ".join(sorted(other)[:3]) or "nothing"
            raise RequestRefused(f"{path} holds {found}, which is no LoRA of a layer.")
        for module in modules:
            first, second = (file.get_tensor(f"{PEFT_PREFIX}{module}{end}").float() for end in (_A, _B))
            yield module, first, second


def _of(pattern: Mapping[str, float] | None, module: str, default: float) -> float:
    """A module's own rank or alpha, found as PEFT finds it."""
    from peft.utils.other import get_pattern_key

    own = pattern or {}
    return own.get(get_pattern_key(list(own), module), default)


def _linear_shapes(model_folder: Path) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of each linear layer of a model, by name; no weights are read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(model_folder), local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    linear = ((name, module) for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return {name: (module.out_features, module.in_features) for name, module in linear}
