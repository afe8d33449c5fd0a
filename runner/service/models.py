"""Which models lie on this machine."""

from __future__ import annotations

from pathlib import Path

from charrun.demo import MODELS


def local_folder(model: str) -> Path | None:
    """Folder of a local model: a demo model by its name, any other by its absolute path; None for hosted names."""
    if model in MODELS:
        return MODELS[model]
    path = Path(model)
    return path if path.is_absolute() else None


def hub_name(model: str) -> str:
    """Where the Hugging Face hub has the tokenizer of a hosted model: what the SDK itself takes (0.36)."""
    plain = model.partition(":")[0]
    if plain.startswith("meta-llama/Llama-3"):
        return "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer"
    return "/".join(plain.split("/")[:2])
