"""What a Hugging Face folder says about its model, read without loading anything."""

from __future__ import annotations

import json
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
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{name}: {folder} is not the folder of a causal language model ({error})") from error
    window = text.get("sliding_window")
    if window and text.get("use_sliding_window", True):
        context = min(context, int(window))  # within the window, sliding attention is full attention
    return ModelFacts(name, folder, vocabulary, context)
