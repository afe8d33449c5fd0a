"""A server of chat completions where a model lives that the run's engine does not serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from charrun.secrets import shown_address

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
MOST_SAMPLES = 16
"""Samples of one request: as many as a record of the store holds."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked that lives elsewhere, and how.

    Attributes:
        base_url: Address of the OpenAI-compatible API, such as `https://api.openai.com/v1`.
        model: What the model is called there.
        api_key_env: The environment variable that holds the key; empty where the server wants none.
        parameters: Further fields of each request; `None` leaves out one that charrun would send.
        samples_per_request: Most samples that one request asks for (`n`).
        concurrency: Requests at once.
        max_retries: How often the client sends a request again that was turned away or not answered.
        timeout: Seconds that one attempt may take.
        continues: Whether the server continues a last assistant message (`continue_final_message`, as vLLM does).
    """

    base_url: str
    model: str
    api_key_env: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    samples_per_request: int = MOST_SAMPLES
    concurrency: int = 8
    max_retries: int = 8
    timeout: float = 600.0
    continues: bool = False

    @property
    def address(self) -> str:
        """The address without user, password and query, as it is told."""
        return shown_address(self.base_url).rstrip("/")

    @property
    def namespace(self) -> str:
        """Identity of the model: the same name at another address is another model."""
        return f"endpoint:{self.address}:{self.model}"

    @property
    def paid(self) -> bool:
        """Whether it is on another machine, and may cost money."""
        host = self.address.partition("://")[2].partition("/")[0]
        return (host if host.endswith("]") else host.rpartition(":")[0] or host) not in LOOPBACK
