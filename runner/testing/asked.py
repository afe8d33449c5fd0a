"""What a run asks of the engine, counted where it enters the SDK, whether or not it went through the context."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

_SAMPLING = ("sample", "compute_logprobs")
_TRAINING = ("forward", "forward_backward", "forward_backward_custom", "optim_step", "save_state")


@contextlib.contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the SDK's calls by method while the block runs; the calls themselves are the real ones."""
    import tinker

    asked: Counter[str] = Counter()
    methods = [(tinker.SamplingClient, name) for name in _SAMPLING] + [(tinker.TrainingClient, n) for n in _TRAINING]
    own = [(client, name, getattr(client, name)) for client, name in methods]
    for client, name, method in own:
        setattr(client, name, _counting(method, name, asked))
    try:
        yield asked
    finally:
        for client, name, method in own:
            setattr(client, name, method)


def _counting(method: Callable[..., Any], name: str, asked: Counter[str]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        asked["compute_logprobs" if kwargs.get("include_prompt_logprobs") else name] += 1  # how the SDK scores itself
        return method(*args, **kwargs)

    return call
