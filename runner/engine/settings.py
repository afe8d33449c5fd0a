"""What a server process is started with; sent as one JSON line so that the key never shows in a process list."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from charrun.engine.blocks import BLOCK

MEGABYTE = 1024 * 1024


@dataclass(frozen=True)
class EngineSettings:
    """Settings of one engine process.

    Attributes:
        models: Served name to the local Hugging Face folder of a causal language model.
        storage: Root folder of the checkpoints; outlives the process.
        api_key: The key that every request must carry in `X-API-Key`. Empty, none is asked for: whoever reaches
            the port may do everything.
        device: `auto`, `cpu` or `cuda`.
        dtype: Precision of the base models: `float32`, `bfloat16`, or `auto`, fp32 on a CPU and bf16 on a GPU.
        threads: Threads that compute; 0 means one per CPU.
        max_sequences: Sequences that one batch decodes together, at most.
        cache_bytes: Memory for the keys and values of one base model's sequences, taken when it is first sampled
            from; 0 means what `max_sequences` sequences of 1,024 tokens need, but at most a quarter of the machine's.
        prefill_tokens: Prompt tokens that go through the model at once.
        training_bytes: Memory for the activations of one training micro-batch, as estimated.
        sampler_bytes: Memory for merged sampling weights that no batch uses.
        max_waiting: Sequences that may wait before requests are told to come back later.
        waiting_bytes: Memory of requests that wait, likewise.
        result_bytes: Memory of results that were not fetched, likewise; at twice as much the oldest are dropped.
        snapshot_bytes: Memory of adapters that samplers hold without a checkpoint, over which the ones used longest
            ago are dropped.
        max_sessions: Client sessions that may be open at once.
        max_runs: Training runs that may be open at once, over all sessions.
        max_samplers: Samplers that one session may have.
        session_seconds: After so long without a sign of life (the SDK gives one each 10 seconds) a session is closed.
        pressed_seconds: The same where another client needs its room: of runners that were killed, one after the
            other, none should have to wait for the earlier ones' sessions.
        drain_seconds: How long requests in flight are waited for when the server is told to stop.
    """

    models: Mapping[str, Path]
    storage: Path
    api_key: str
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    max_sequences: int = 256
    cache_bytes: int = 0
    prefill_tokens: int = 1024
    training_bytes: int = 384 * MEGABYTE
    sampler_bytes: int = 512 * MEGABYTE
    max_waiting: int = 65_536
    waiting_bytes: int = 512 * MEGABYTE
    result_bytes: int = 256 * MEGABYTE
    snapshot_bytes: int = 1024 * MEGABYTE
    max_sessions: int = 1000
    max_runs: int = 64
    max_samplers: int = 4096
    session_seconds: float = 600.0
    pressed_seconds: float = 30.0
    drain_seconds: float = 0.0

    @property
    def compute_threads(self) -> int:
        return self.threads or os.cpu_count() or 1

    def cache_blocks(self, block_bytes: int, context: int) -> int:
        """Blocks of keys and values for one model, at least one sequence's where the memory allows.

        Args:
            block_bytes: Size of a block over all layers.
            context: The model's largest number of positions.
        """
        quarter = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
        usual = max(self.max_sequences * 1024, context) // BLOCK
        most = (self.cache_bytes or quarter) // block_bytes
        return max(1, most if self.cache_bytes else min(usual, most))

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
