"""From logits to tokens: temperature, top-k, top-p, and noise that depends on nothing but the seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PARTIAL = 64
"""Candidates looked at before a whole row is sorted: a nucleus is rarely larger."""


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
class ChoiceRows:
    """How each row of a batch chooses.

    Attributes:
        temperature: [batch] fp32; 0 where the row is greedy.
        top_p: [batch] fp32 in (0, 1].
        top_k: [batch] int64; the vocabulary's size where there is no limit.
        plain: Whether no row cuts its distribution.
        greedy: Whether every row is greedy.
    """

    temperature: Tensor
    top_p: Tensor
    top_k: Tensor
    plain: bool
    greedy: bool

    @classmethod
    def of(
        cls,
        temperatures: list[float],
        top_ps: list[float],
        top_ks: list[int],
        vocabulary: int,
        device: torch.device,
    ) -> ChoiceRows:
        """From one number per row; a top_k below 1 means no limit."""
        limits = [vocabulary if k < 1 else min(k, vocabulary) for k in top_ks]
        return cls(
            torch.tensor(temperatures, dtype=torch.float32, device=device),
            torch.tensor(top_ps, dtype=torch.float32, device=device),
            torch.tensor(limits, dtype=torch.int64, device=device),
            plain=all(p >= 1 for p in top_ps) and all(limit == vocabulary for limit in limits),
            greedy=all(temperature == 0 for temperature in temperatures),
        )


def choose(logits: Tensor, rows: ChoiceRows, noise: NDArray[np.float64]) -> tuple[Tensor, Tensor]:
    """Chooses one token per row.

    Args:
        logits: [batch, vocabulary] fp32.
        rows: The rows' parameters.
        noise: [batch] uniform numbers in [0, 1).

    Returns:
        Tokens [batch] int64 and their log-probs [batch] fp32 in the model's own distribution: at temperature 1
        and before any cut.
    """
    if rows.greedy:
        tokens = logits.argmax(-1)
    else:
        greedy = rows.temperature == 0
        scaled = logits / torch.where(greedy, 1.0, rows.temperature)[:, None]
        probs = torch.softmax(scaled, -1)
        if not rows.plain:
            probs = torch.where(probs >= _threshold(probs, rows)[:, None], probs, 0.0)
        cumulative = probs.cumsum(-1, dtype=torch.float64)
        # A little below 1, so that rounding never passes the last token that has any probability.
        uniform = torch.from_numpy(np.minimum(noise, 1 - 1e-9)).to(logits.device)
        drawn = torch.searchsorted(cumulative, (uniform * cumulative[:, -1])[:, None], right=True)[:, 0]
        tokens = torch.where(greedy, logits.argmax(-1), drawn) if bool(greedy.any()) else drawn
    chosen = logits.gather(-1, tokens[:, None])[:, 0] - torch.logsumexp(logits, -1)
    return tokens, chosen


def _threshold(probs: Tensor, rows: ChoiceRows) -> Tensor:
    """The smallest probability [batch] that survives top-k and then top-p; tokens tied with it survive too."""
    vocabulary = probs.shape[-1]
    threshold = probs.amax(-1)
    # Where one token alone fills the nucleus, the cut is known.
    open_rows = ((threshold < rows.top_p) | (rows.top_k < vocabulary)).nonzero()[:, 0]
    for width in (min(PARTIAL, vocabulary), vocabulary):
        if not len(open_rows):
            break
        some, top_k, top_p = probs[open_rows], rows.top_k[open_rows], rows.top_p[open_rows]
        ordered = some.topk(width).values if width < vocabulary else some.sort(-1, descending=True).values
        threshold[open_rows], settled = _cut(ordered, top_k, top_p, vocabulary)
        open_rows = open_rows[~settled]
    return threshold


def _cut(ordered: Tensor, top_k: Tensor, top_p: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Thresholds [batch] from the largest probabilities [batch, width], and whether the width was enough."""
    width = ordered.shape[-1]
    within = top_k <= width
    unlimited = top_k >= vocabulary
    ranks = torch.arange(width, device=ordered.device)
    mass = torch.where(ranks < top_k[:, None], ordered, 0.0).cumsum(-1, dtype=torch.float64)
    total = torch.where(within, mass[:, -1], 1.0)
    reached = mass >= (top_p * total)[:, None]
    nucleus = torch.where(reached.any(-1) & (top_p < 1), reached.int().argmax(-1), width - 1)
    threshold = ordered.gather(-1, torch.minimum(nucleus, top_k - 1)[:, None])[:, 0]
    whole = unlimited & (top_p >= 1)
    return torch.where(whole, 0.0, threshold), whole | within | (unlimited & reached.any(-1))
