"""What requests ask about their prompts: log-probs of its tokens, of others, the likeliest ones, and draws."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.choosing import Choices, choose, target_logprobs
from charrun.engine.packed_batch import Network
from charrun.engine.requests import PromptScores, SampleSpec

CHUNK_ELEMENTS = 2_000_000
"""Logits held at once."""
_DRAWS = 2**62
"""Stands for the sample index in the noise of prompt positions."""


@torch.inference_mode()
def score_prompt(network: Network, states: Tensor, first: int, spec: SampleSpec, scores: PromptScores) -> None:
    """Fills a part of the scores.

    Args:
        network: The weights.
        states: [n, hidden] last hidden states of prompt positions `first` to `first + n - 1`, each of which says
            something about the position after it; the prompt's last position is left out.
        first: Position of the first state.
        spec: The request.
        scores: What is filled.
    """
    step = max(2, CHUNK_ELEMENTS // network.vocabulary)
    for start in range(0, len(states), step):
        part = states[start : start + step]
        _score(network.logits(part), first + start, spec, scores)


def _score(logits: Tensor, first: int, spec: SampleSpec, scores: PromptScores) -> None:
    where = np.arange(first + 1, first + 1 + len(logits))
    logprobs, norms = target_logprobs(logits, spec.prompt[where])
    wanted = where >= (spec.score_from or len(spec.prompt))
    if scores.logprobs is not None:
        scores.logprobs[where[wanted]] = logprobs[wanted]
    if scores.top_tokens is not None and scores.top_logprobs is not None and wanted.any():
        tokens, values = likeliest(logits[torch.from_numpy(wanted).to(logits.device)], norms[wanted], spec.top_prompt)
        scores.top_tokens[where[wanted]], scores.top_logprobs[where[wanted]] = tokens, values
    if scores.targets is not None and spec.targets is not None:
        asked = spec.targets[where - 1]
        named = torch.from_numpy(np.maximum(asked, 0)).to(logits.device)
        values = logits.gather(-1, named).cpu().numpy() - norms[:, None]
        scores.targets[where - 1] = np.where(asked >= 0, values, 0.0)
    if scores.alternative_tokens is not None and scores.alternative_logprobs is not None:
        drawn, values = _draw(logits, first, spec)
        scores.alternative_tokens[where - 1], scores.alternative_logprobs[where - 1] = drawn, values


def likeliest(logits: Tensor, norms: NDArray[np.float32], count: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The likeliest tokens [rows, count] of logits [rows, vocabulary] and their log-probs, given the logits' norms."""
    top = logits.topk(count)
    return top.indices.int().cpu().numpy(), top.values.cpu().numpy() - norms[:, None]


def _draw(logits: Tensor, first: int, spec: SampleSpec) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Tokens [rows, k] drawn at the request's temperature, and their log-probs."""
    count, rows = spec.alternatives, len(logits)
    noise = np.concatenate(
        [
            np.random.Generator(np.random.Philox(key=[spec.seed % 2**64, _DRAWS + first + row])).random(count)
            for row in range(rows)
        ]
    )
    total = rows * count
    plain = Choices(np.full(total, spec.temperature, np.float32), np.full(total, -1), np.ones(total, np.float32))
    tokens, logprobs = choose(logits, np.repeat(np.arange(rows), count), plain, noise)
    return tokens.reshape(rows, count), logprobs.reshape(rows, count)
