"""The first pass over prompts: keys and values for decoding, log-probs of prompt tokens, the first sampled token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.causal import CausalLM, KeyValues
from charrun.engine.choosing import ChoiceRows, Noise, choose
from charrun.engine.requests import EMPTY_LOGPROB, PromptScores, SampleJob, SampleSpec

CHUNK_ELEMENTS = 4_000_000
"""Logits held at once while prompts are scored."""


class Row:
    """One sequence being sampled."""

    __slots__ = ("index", "job", "logprobs", "noise", "tokens")

    def __init__(self, job: SampleJob, index: int) -> None:
        self.job = job
        self.index = index
        self.noise = Noise(job.spec.seed, index)
        self.tokens: list[int] = []
        self.logprobs: list[float] = []


class PromptBatch:
    """Prompts of one batch, each distinct one once, padded on the right."""

    def __init__(self, jobs: Sequence[SampleJob], device: torch.device) -> None:
        numbers: dict[bytes, int] = {}
        self.jobs = jobs
        self.rows = [Row(job, index) for job in jobs for index in range(job.spec.samples)]
        self.of_job = [numbers.setdefault(job.spec.prompt.tobytes(), len(numbers)) for job in jobs]
        prompts: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(numbers)
        for job, number in zip(jobs, self.of_job, strict=True):
            prompts[number] = job.spec.prompt
        self.lengths = np.array([len(prompt) for prompt in prompts], np.int64)
        padded = np.zeros((len(prompts), int(self.lengths.max())), np.int64)
        for line, prompt in zip(padded, prompts, strict=True):
            line[: len(prompt)] = prompt
        self.tokens = torch.from_numpy(padded).to(device)
        per_row = [number for job, number in zip(jobs, self.of_job, strict=True) for _ in range(job.spec.samples)]
        self.of_row = torch.tensor(per_row, device=device)

    def run(self, model: CausalLM, cache: KeyValues | None) -> None:
        """Runs the prompts, scores them, and gives every row its first token."""
        hidden = model.hidden(self.tokens, cache=cache)
        self._score(model, hidden)
        last = torch.from_numpy(self.lengths - 1).to(hidden.device)
        ends = hidden[torch.arange(len(last), device=hidden.device), last]
        logits = model.logits(ends)[self.of_row]
        specs = [row.job.spec for row in self.rows]
        noise = np.array([row.noise.draw() for row in self.rows])
        tokens, logprobs = choose(logits, choice_rows(specs, logits), noise)
        for row, token, logprob in zip(self.rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)

    def _score(self, model: CausalLM, hidden: Tensor) -> None:
        for job, number in zip(self.jobs, self.of_job, strict=True):
            if job.spec.score_from is not None:
                length = len(job.spec.prompt)
                states = hidden[number, job.spec.score_from - 1 : length - 1]
                job.scores = _score_prompt(model, states, job.spec)


def choice_rows(specs: Sequence[SampleSpec], logits: Tensor) -> ChoiceRows:
    """The choice parameters of rows whose logits look like these."""
    return ChoiceRows.of(
        [spec.temperature for spec in specs],
        [spec.top_p for spec in specs],
        [spec.top_k for spec in specs],
        logits.shape[-1],
        logits.device,
    )


def _score_prompt(model: CausalLM, states: Tensor, spec: SampleSpec) -> PromptScores:
    """Scores the prompt's tail from the hidden states [tail, width] that precede its tokens."""
    length, first, top = len(spec.prompt), spec.score_from or 1, spec.top_prompt
    targets = torch.from_numpy(spec.prompt[first:]).to(states.device)
    logprobs = np.full(length, np.nan, np.float32)
    top_tokens = np.zeros((length, top), np.int32)
    top_logprobs = np.full((length, top), EMPTY_LOGPROB, np.float32)
    step = max(1, CHUNK_ELEMENTS // model.vocabulary)
    for start in range(0, len(targets), step):
        part = slice(start, min(start + step, len(targets)))
        where = slice(first + part.start, first + part.stop)
        logits = model.logits(states[part])
        norm = torch.logsumexp(logits, -1)
        chosen = logits.gather(-1, targets[part, None])[:, 0] - norm
        logprobs[where] = chosen.cpu().numpy()
        if top:
            best = logits.topk(top, -1)
            top_tokens[where] = best.indices.cpu().numpy()
            top_logprobs[where] = (best.values - norm[:, None]).cpu().numpy()
    return PromptScores(logprobs, top_tokens, top_logprobs) if top else PromptScores(logprobs)
