"""From logits to tokens: temperature, top-k, top-p, and noise that depends on nothing but the seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine import kernels_choosing
from charrun.engine.requests import SampleSpec


class Noise:
    """The uniform numbers of one sequence: number i is a function of (seed, sample index, i) alone."""

    def __init__(self, seed: int, sample: int) -> None:
        self._stream = np.random.Generator(np.random.Philox(key=[seed % 2**64, sample]))
        self._block: list[float] = []
        self._next = 0

    def draw(self) -> float:
        """The next number in [0, 1)."""
        if self._next == len(self._block):
            self._block = self._stream.random(64).tolist()
            self._next = 0
        self._next += 1
        return self._block[self._next - 1]


@dataclass(frozen=True)
class Choices:
    """How each row chooses.

    Attributes:
        temperatures: [rows] fp32; 0 where the row is greedy.
        top_ks: [rows] int64; below 1 for no limit.
        top_ps: [rows] fp32 in (0, 1].
    """

    temperatures: NDArray[np.float32]
    top_ks: NDArray[np.int64]
    top_ps: NDArray[np.float32]

    @classmethod
    def of(cls, specs: Sequence[SampleSpec]) -> Choices:
        """Of one request per row."""
        return cls(
            np.array([spec.temperature for spec in specs], np.float32),
            np.array([spec.top_k for spec in specs], np.int64),
            np.array([spec.top_p for spec in specs], np.float32),
        )


def choose(
    logits: Tensor, sources: NDArray[np.int64], choices: Choices, uniforms: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Chooses one token per row.

    Args:
        logits: [n, vocabulary] fp32.
        sources: [rows] the line of `logits` of each row.
        choices: Of the rows.
        uniforms: [rows] in [0, 1).

    Returns:
        Tokens [rows] and their log-probs [rows] in the model's own distribution: at temperature 1, before any cut.
    """
    tokens, logprobs = np.empty(len(sources), np.int64), np.empty(len(sources), np.float32)
    if logits.device.type == "cpu":
        given = (choices.temperatures, choices.top_ks, choices.top_ps, uniforms)
        kernels_choosing.choose(logits.numpy(), sources, *given, tokens, logprobs)
        return tokens, logprobs
    found = _choose_on_device(logits[torch.from_numpy(sources).to(logits.device)], choices, uniforms)
    return found[0].cpu().numpy(), found[1].cpu().numpy()


def target_logprobs(logits: Tensor, targets: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log-probs [rows] of targets [rows] under logits [rows, vocabulary], and the logits' norms [rows]."""
    if logits.device.type == "cpu":
        norms, result = np.empty(len(targets), np.float32), np.empty(len(targets), np.float32)
        kernels_choosing.score(logits.numpy(), targets, norms, result)
        return result, norms
    norm = torch.logsumexp(logits, -1)
    chosen = logits.gather(-1, torch.from_numpy(targets).to(logits.device)[:, None])[:, 0] - norm
    return chosen.cpu().numpy(), norm.cpu().numpy()


def _choose_on_device(logits: Tensor, choices: Choices, uniforms: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """`choose` in torch's operations, for logits [rows, vocabulary]."""
    device, vocabulary = logits.device, logits.shape[-1]
    temperatures = torch.from_numpy(choices.temperatures).to(device)
    greedy = temperatures == 0
    powers = torch.softmax(logits / torch.where(greedy, 1.0, temperatures)[:, None], -1)
    limits = np.where(choices.top_ks < 1, vocabulary, np.minimum(choices.top_ks, vocabulary))
    if (limits < vocabulary).any() or (choices.top_ps < 1).any():
        ordered = powers.sort(-1, descending=True).values
        top_k, top_p = torch.from_numpy(limits).to(device), torch.from_numpy(choices.top_ps).to(device)
        inside = torch.arange(vocabulary, device=device) < top_k[:, None]
        mass = torch.where(inside, ordered, 0.0).cumsum(-1, dtype=torch.float64)
        reached = mass >= (top_p * mass[:, -1])[:, None]
        last = torch.where(reached.any(-1) & (top_p < 1), reached.int().argmax(-1), top_k - 1)
        least = ordered.gather(-1, torch.minimum(last, top_k - 1)[:, None])
        powers = torch.where(powers >= least, powers, 0.0)
    cumulative = powers.cumsum(-1, dtype=torch.float64)
    # A little below 1, so that rounding never passes the last token that has any probability.
    places = torch.from_numpy(np.minimum(uniforms, 1 - 1e-9)).to(device) * cumulative[:, -1]
    drawn = torch.searchsorted(cumulative, places[:, None], right=True)[:, 0]
    tokens = torch.where(greedy, logits.argmax(-1), drawn)
    return tokens, logits.gather(-1, tokens[:, None])[:, 0] - torch.logsumexp(logits, -1)
