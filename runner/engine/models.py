"""The base models that a server offers: what is known from their folders, and the loaded weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from charrun.engine.causal import CausalLM, load_causal
from charrun.engine.errors import RequestRefused
from charrun.engine.folders import ModelFacts, describe_all

END_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")


@dataclass(frozen=True)
class HostedModel:
    """One served base model; the weights are loaded when the compute thread first needs them.

    Attributes:
        facts: What its folder says.
        device: Where the weights are put.
        dtype: In which precision they are computed.
    """

    facts: ModelFacts
    device: torch.device
    dtype: torch.dtype
    _weights: list[CausalLM] = field(default_factory=list, repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name that clients use."""
        return self.facts.name

    @property
    def folder(self) -> Path:
        """Absolute path of the Hugging Face folder."""
        return self.facts.folder

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return self.facts.vocabulary

    @property
    def context(self) -> int:
        """Largest number of positions, prompt and answer together."""
        return self.facts.context

    def weights(self) -> CausalLM:
        """The base weights. Only the compute thread may ask: loading takes a while."""
        if not self._weights:
            self._weights.append(load_causal(self.folder, self.device, self.dtype))
        return self._weights[0]

    @cached_property
    def tokenizer(self) -> Any:
        """The folder's tokenizer, or None where it has none."""
        try:
            return AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
        except (OSError, ValueError):
            return None

    @cached_property
    def end_tokens(self) -> frozenset[int]:
        """Token ids that end an answer where the request names no stop: the folder's eos and chat end tokens."""
        ends: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            path = self.folder / name
            value = json.loads(path.read_text()).get("eos_token_id") if path.exists() else None
            ends.update([value] if isinstance(value, int) else value or [])
        if self.tokenizer is not None:
            known = self.tokenizer.get_vocab()
            ends.update(known[token] for token in END_TOKENS if token in known)
            if self.tokenizer.eos_token_id is not None:
                ends.add(int(self.tokenizer.eos_token_id))
        return frozenset(end for end in ends if 0 <= end < self.vocabulary)


class ModelShelf:
    """Every served model, under its name and under its folder's absolute path."""

    def __init__(self, folders: Mapping[str, Path], device: torch.device, dtype: torch.dtype) -> None:
        self.models = {facts.name: HostedModel(facts, device, dtype) for facts in describe_all(folders)}

    def load(self) -> None:
        """Loads every model's weights, before the compute thread does anything.

        Raises:
            ValueError: Some cannot be loaded; one line for each.
        """
        wrong = []
        for model in self.models.values():
            try:
                model.weights()
            except Exception as error:  # whatever a foreign folder makes transformers raise
                wrong.append(f"{model.name}: {model.folder} cannot be loaded: {type(error).__name__}: {error}")
        if wrong:
            raise ValueError("\n".join(wrong))

    def get(self, name: str) -> HostedModel:
        """The model of that name or folder.

        Raises:
            RequestRefused: It is not served here.
        """
        model = self.models.get(name)
        if model is None:
            model = next((each for each in self.models.values() if each.folder == _folder(name)), None)
        if model is None:
            known = ", ".join(sorted(self.models)) or "none"
            raise RequestRefused(f"The model {name!r} is not served by this engine; it serves: {known}.", 404)
        return model


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def _folder(name: str) -> Path | None:
    """The folder that an absolute path leads to; None for any other name."""
    try:
        return Path(name).resolve() if name.startswith("/") else None
    except (OSError, ValueError):
        return None


def choose_device(wanted: str, dtype: str = "auto") -> tuple[torch.device, torch.dtype]:
    """The device of `auto`, `cpu` or `cuda`, with its precision: by default fp32 on a CPU, bf16 on a GPU.

    Raises:
        ValueError: An unknown name, or cuda where torch sees no GPU.
    """
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, not {wanted!r}")
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype must be auto, {' or '.join(DTYPES)}, not {dtype!r}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch sees no GPU here")
    if wanted == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu"), DTYPES.get(dtype, torch.float32)
    return torch.device("cuda"), DTYPES.get(dtype, torch.bfloat16)
