"""What a server process is started with; sent as one JSON line so that the key never shows in a process list."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class EngineSettings:
    """Settings of one engine process.

    Attributes:
        models: Served name to the local Hugging Face folder of a causal language model.
        storage: Root folder of the checkpoints; outlives the process.
        api_key: The key that every request must carry in `X-API-Key`.
        device: `auto`, `cpu` or `cuda`.
        threads: Threads of torch's matrix multiplications; 0 means one per CPU for training and half as many for
            sampling, whose small steps gain nothing from more while the program that asks needs some too.
        max_sequences: Sequences that one batch decodes together, at most.
        cache_bytes: Memory for keys and values over all batches.
        prefill_tokens: Padded tokens of one prompt batch.
        training_bytes: Memory for the activations of one training micro-batch, as estimated.
        sampler_bytes: Memory for merged sampling weights that no batch uses.
        max_waiting: Sequences that may wait before requests are told to come back later.
    """

    models: Mapping[str, Path]
    storage: Path
    api_key: str
    device: str = "auto"
    threads: int = 0
    max_sequences: int = 256
    cache_bytes: int = 600 * MEGABYTE
    prefill_tokens: int = 8192
    training_bytes: int = 384 * MEGABYTE
    sampler_bytes: int = 512 * MEGABYTE
    max_waiting: int = 65_536

    @property
    def training_threads(self) -> int:
        return self.threads or os.cpu_count() or 1

    @property
    def sampling_threads(self) -> int:
        return self.threads or max(1, (os.cpu_count() or 1) // 2)

    def to_json(self) -> str:
        """One line."""
        fields = asdict(self)
        fields["models"] = {name: str(path) for name, path in self.models.items()}
        fields["storage"] = str(self.storage)
        return json.dumps(fields)

    @classmethod
    def from_json(cls, line: str) -> EngineSettings:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: The line is not such a JSON object.
        """
        try:
            fields = json.loads(line)
            models = {name: Path(path) for name, path in fields.pop("models").items()}
            return cls(models=models, storage=Path(fields.pop("storage")), **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not the engine's settings: {error}") from error
