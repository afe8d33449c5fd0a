"""An adapter's trainable values as views of one tensor, so that an optimizer step is one pass over memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charrun.engine.errors import RequestRefused
from charrun.engine.lora import ALPHA, PEFT_PREFIX, Adapter, LoraSpec

ALIGNMENT = 16
"""Each matrix starts at a multiple of so many elements, one cache line of fp32."""


@dataclass(frozen=True)
class LayerShape:
    """A linear layer that an adapter touches.

    Attributes:
        name: Of the module within the model.
        inputs: Width of its inputs.
        outputs: Width of its outputs.
    """

    name: str
    inputs: int
    outputs: int


class LoraParameters:
    """A and B matrices of all layers, their gradients, and a version that changes when they do.

    Attributes:
        spec: What the adapter is.
        flat: All values, fp32, as one trainable parameter; its `grad` is the accumulated gradient.
        version: Grows with every change of the values.
    """

    def __init__(self, spec: LoraSpec, groups: Sequence[Sequence[LayerShape]], device: torch.device) -> None:
        """Layers of one group have the same inputs; their A matrices lie side by side.

        Raises:
            RequestRefused: There are no layers.
        """
        self.spec = spec
        self.version = 0
        self._places: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {}
        self._shapes = {shape.name: shape for group in groups for shape in group}
        end = 0
        for group in groups:
            starts = []
            for shape in group:
                starts.append(end)
                end += spec.rank * shape.inputs
            end = _aligned(end)
            for shape, start in zip(group, starts, strict=True):
                first = (start, spec.rank, shape.inputs)
                self._places[shape.name] = (first, (end, shape.outputs, spec.rank))
                end = _aligned(end + shape.outputs * spec.rank)
        if not end:
            raise RequestRefused("The adapter touches no layer of this model.")
        self.flat = nn.Parameter(torch.zeros(end, device=device))
        self.flat.grad = torch.zeros(end, device=device)
        self._rounded: tuple[int, Tensor] | None = None
        self._start()

    @property
    def scale(self) -> float:
        """Factor of every update: alpha / rank."""
        return ALPHA / self.spec.rank

    @property
    def gradient(self) -> Tensor:
        """The accumulated gradient, laid out as `flat`."""
        assert self.flat.grad is not None
        return self.flat.grad

    def values(self, dtype: torch.dtype) -> Tensor:
        """All values in that precision, laid out as `flat`."""
        if dtype == self.flat.dtype:
            return self.flat.detach()
        if self._rounded is None or self._rounded[0] != self.version or self._rounded[1].dtype != dtype:
            self._rounded = (self.version, self.flat.detach().to(dtype))
        return self._rounded[1]

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def pair(self, name: str, of: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """A [rank, in] and B [out, rank] of a layer as views of `of`, which is laid out as `flat` (the default)."""
        source = self.flat.detach() if of is None else of
        first, second = (source[start : start + n * m].view(n, m) for start, n, m in self._places[name])
        return first, second

    def stack(self, names: Sequence[str], of: Tensor | None = None) -> Tensor:
        """The A matrices of one group's layers, all of them, as one view [layers * rank, in]."""
        source = self.flat.detach() if of is None else of
        (start, rank, width), _ = self._places[names[0]]
        return source[start : start + len(names) * rank * width].view(len(names) * rank, width)

    def _start(self) -> None:
        """A as PEFT draws it, but from this adapter's seed alone and in the order of names; B zero."""
        generator = torch.Generator().manual_seed(self.spec.seed % 2**63)
        for name in sorted(self._places):
            first, _ = self.pair(name)
            drawn = torch.empty(first.shape)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            first.copy_(drawn)

    def named(self, of: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        """Views of `flat`, or of a tensor laid out like it, under PEFT's names in a fixed order."""
        for name in sorted(self._places):
            first, second = self.pair(name, of)
            yield f"{PEFT_PREFIX}{name}.lora_A.weight", first
            yield f"{PEFT_PREFIX}{name}.lora_B.weight", second

    def adapter(self) -> Adapter:
        """A snapshot of the values."""
        layers = {}
        for name in self._places:
            first, second = self.pair(name)
            layers[name] = (first.cpu().clone(), second.cpu().clone())
        return Adapter(self.spec, layers)

    def load(self, adapter: Adapter) -> None:
        """Takes over an adapter's values.

        Raises:
            RequestRefused: It touches other layers or has another shape.
        """
        tensors = adapter.tensors()
        self.copy_named(tensors, self.flat.detach())
        self.spec = adapter.spec
        self.version += 1

    def copy_named(self, tensors: Mapping[str, Tensor], into: Tensor) -> None:
        """Copies tensors under PEFT's names into one that is laid out as `flat`.

        Raises:
            RequestRefused: They are not this adapter's names and shapes.
        """
        views = dict(self.named(into))
        if {name: tensor.shape for name, tensor in tensors.items()} != {n: v.shape for n, v in views.items()}:
            raise RequestRefused("The checkpoint's adapter does not fit this model.")
        for name, view in views.items():
            view.copy_(tensors[name])


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT
