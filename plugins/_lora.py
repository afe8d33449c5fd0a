"""Merging LoRA adapters: factors of a weighted sum, and how far they are from it.

An adapter changes a layer's weights by dW = s B A, with A [rank, in], B [out, rank] and s = alpha / rank.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from charrun import StageFailed
from charrun.plugins._training import ALPHA

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"
_ROWS = 2048
"""Rows of a dense delta that are in memory at once."""
_PLAIN: dict[str, tuple[Any, ...]] = {
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "bias": ("none", None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "target_parameters": (None, []),
}


@dataclass(frozen=True)
class Factors:
    """One adapter's part of a layer: A [rank, in], B [out, rank], in fp32, and the scale of their product."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Rows of A."""
        return int(self.a.shape[0])


class LoraFolder:
    """A PEFT adapter folder, read layer by layer.

    Raises:
        StageFailed: It is no LoRA adapter, or one with more than A and B in each layer.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / WEIGHTS
        try:
            self.config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            names = self._names()
        except Exception as error:  # safetensors has errors of its own
            raise StageFailed(f"{folder} holds no adapter that can be read: {error}") from error
        self.modules = sorted(name.removeprefix(_PREFIX).removesuffix(_A) for name in names if name.endswith(_A))
        known = {f"{_PREFIX}{module}{side}" for module in self.modules for side in (_A, _B)}
        odd = sorted(name for name, plain in _PLAIN.items() if self.config.get(name) not in plain)
        odd += sorted(names ^ known)[:3]
        if odd or not self.modules:
            raise StageFailed(
                f"the adapter in {folder} is more than A and B of linear layers: {', '.join(odd) or 'it has none'}",
                "only plain LoRA can be merged by rank concatenation",
            )

    def factors(self, module: str) -> Factors | None:
        """What it does to a layer; None where it leaves it alone.

        Raises:
            StageFailed: It is no matrix, as those of stacked experts.
        """
        from safetensors import safe_open

        if module not in self.modules:
            return None
        with safe_open(str(self._path), "pt") as file:
            a, b = (file.get_tensor(f"{_PREFIX}{module}{side}").float() for side in (_A, _B))
        if a.ndim != 2 or b.ndim != 2:
            raise StageFailed(f"{module} has an adapter of {a.ndim} dimensions", "only linear layers can be merged")
        rank = self._of("rank_pattern", module, self.config["r"])
        alpha = self._of("alpha_pattern", module, self.config["lora_alpha"])
        return Factors(a, b, alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank)

    def _names(self) -> set[str]:
        from safetensors import safe_open

        with safe_open(str(self._path), "pt") as file:
            return set(file.keys())

    def _of(self, pattern: str, module: str, default: float) -> float:
        """A layer's own value: PEFT takes the first pattern that the end of its name matches."""
        found = self.config.get(pattern) or {}
        return float(next((v for key, v in found.items() if re.match(rf"(.*\.)?({key})$", module)), default))


def concatenated(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """The weighted sum itself: A = [A1; A2], B = [w1 s1 B1, w2 s2 B2] / s, of rank r1 + r2 and scale s = 32 / rank.

    Its alpha is Tinker's. Where w, s and the ranks are powers of two, B is a multiple without any rounding.
    """
    import torch

    rank = sum(factors.rank for _, factors in parts)
    scale = ALPHA / rank
    a = torch.cat([factors.a for _, factors in parts], 0)
    return Factors(a, torch.cat([factors.b * (w * factors.scale / scale) for w, factors in parts], 1), scale)


def linear(parts: Sequence[tuple[float, Factors]]) -> Factors:
    """PEFT's `add_weighted_adapter(..., "linear")`: A and B are each summed with weights sqrt(w s), at scale 1.

    The product has the cross terms sqrt(w1 s1 w2 s2) (B1 A2 + B2 A1), which are in no weighted sum of the deltas. All
    ranks must be the same.
    """
    roots = [math.sqrt(w * factors.scale) for w, factors in parts]
    a, b = ([root * getattr(factors, side) for root, (_, factors) in zip(roots, parts, strict=True)] for side in "ab")
    return Factors(sum(a[1:], a[0]), sum(b[1:], b[0]), 1.0)


@dataclass
class Gap:
    """How far merged layers are from the weighted sum of deltas, as relative Frobenius errors.

    Attributes:
        worst: The largest error of one layer,
        module: and which it is.
    """

    worst: float = 0.0
    module: str = ""
    _squares: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, module: str, merged: Factors, parts: Sequence[tuple[float, Factors]]) -> None:
        """Measure one layer, in fp64 on what is saved, some rows of its delta at a time."""
        off = whole = 0.0
        for start in range(0, merged.b.shape[0], _ROWS):
            some = slice(start, start + _ROWS)
            delta = sum((_delta(factors, some, w) for w, factors in parts[1:]), _delta(parts[0][1], some, parts[0][0]))
            whole += float(delta.square().sum())
            off += float((delta - _delta(merged, some, 1.0)).square().sum())
        self._squares[module] = off, whole
        error = _ratio(off, whole)
        if not self.module or error > self.worst:
            self.worst, self.module = error, module

    @property
    def all(self) -> float:
        """The error over all layers together."""
        return _ratio(*(math.fsum(column) for column in zip(*self._squares.values(), strict=True)))


def _delta(factors: Factors, rows: slice, weight: float) -> Tensor:
    return (factors.b[rows].double() @ factors.a.double()).mul_(weight * factors.scale)


def _ratio(off: float, whole: float) -> float:
    return math.sqrt(off / whole) if whole else (0.0 if not off else math.inf)


def save(folder: Path, layers: Mapping[str, Factors], configs: Sequence[Mapping[str, Any]]) -> None:
    """Write a PEFT folder, tensors in fp32.

    Args:
        folder: It exists.
        layers: By module.
        configs: What the merged folders say, for what is not of the merge.
    """
    from safetensors.torch import save_file

    rank = max(factors.rank for factors in layers.values())
    alphas = {module: _plain(factors.scale * factors.rank) for module, factors in layers.items()}
    alpha = next(iter(alphas.values()))
    targets: list[Any] = [config.get("target_modules") for config in configs]
    alike = isinstance(targets[0], list) and all(isinstance(t, list) and set(t) == set(targets[0]) for t in targets)
    config = {
        **configs[0],
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {m: factors.rank for m, factors in layers.items() if factors.rank != rank},
        "alpha_pattern": {module: own for module, own in alphas.items() if own != alpha},
        "use_rslora": False,
        "target_modules": sorted(targets[0]) if alike else sorted(layers),
        "inference_mode": True,
    }
    tensors = {}
    for module, factors in layers.items():
        tensors[f"{_PREFIX}{module}{_A}"] = factors.a.contiguous()
        tensors[f"{_PREFIX}{module}{_B}"] = factors.b.contiguous()
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, str(folder / WEIGHTS), metadata={"format": "pt"})


def _plain(alpha: float) -> float:
    """An alpha without what division left of rounding; a whole number as one."""
    rounded = round(alpha, 9)
    return int(rounded) if rounded.is_integer() else rounded
