"""What a Hugging Face folder says about its model, read without loading anything."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelFacts:
    """Facts of config.json.

    Attributes:
        name: The name that the model is served under.
        folder: Absolute path.
        vocabulary: Number of token ids.
        context: Largest number of positions.
    """

    name: str
    folder: Path
    vocabulary: int
    context: int


def describe(name: str, folder: Path) -> ModelFacts:
    """Reads a folder's config.json.

    Raises:
        ValueError: The folder is not one of a causal language model.
    """
    folder = folder.resolve()
    try:
        config = json.loads((folder / "config.json").read_text())
        text = config.get("text_config", config)
        context = int(text["max_position_embeddings"] if "max_position_embeddings" in text else text["n_positions"])
        vocabulary = int(text["vocab_size"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name}: {folder} is not the folder of a causal language model ({_reason(error)})") from error
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"{name}: {folder} holds no *.safetensors; weights in other formats are not read")
    window = text.get("sliding_window")
    if window and text.get("use_sliding_window", True):
        context = min(context, int(window))  # within the window, sliding attention is full attention
    return ModelFacts(name, folder, vocabulary, context)


def describe_all(folders: Mapping[str, Path]) -> list[ModelFacts]:
    """The facts of several folders.

    Raises:
        ValueError: Some are not a model's; one line for each.
    """
    facts, wrong = list[ModelFacts](), list[str]()
    for name, folder in folders.items():
        try:
            facts.append(describe(name, folder))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("\n".join(wrong))
    return facts


def parameter_count(folder: Path) -> int:
    """Numbers in a folder's safetensors files, from their headers; tied weights count once, as they are stored.

    Raises:
        ValueError: A file is not in that format.
        OSError: It cannot be read.
    """
    count = 0
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        count += sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
    return count


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "it has no config.json"
    return f"config.json lacks {error}" if isinstance(error, KeyError) else f"config.json: {error}"
