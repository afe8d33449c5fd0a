"""The running batch of one set of weights: requests join and leave while the others go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from charrun.engine.causal import CausalLM
from charrun.engine.choosing import ChoiceRows, choose
from charrun.engine.prompts import PromptBatch, Row, choice_rows
from charrun.engine.requests import SampleJob
from charrun.engine.requests import Sequence as Sampled
from charrun.engine.slots import PromptWriter, SlotCache, round_length, round_rows


class DecodingBatch:
    """Sequences that decode together, row i in slot i.

    A step appends one token to every row. Rows that end leave at once: the last rows take their slots, so that
    the batch stays dense and a step never computes for a finished sequence.
    """

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.slots = SlotCache()
        self._device = model.device
        self._last = torch.empty(0, dtype=torch.int64, device=self._device)
        self._lengths = torch.empty(0, dtype=torch.int64, device=self._device)
        self._longest = 0
        self._choice: ChoiceRows | None = None

    def room_with(self, jobs: Sequence[SampleJob]) -> tuple[int, int]:
        """Slots and positions per slot that the batch would hold with these jobs in it."""
        rows = len(self.rows) + sum(job.spec.samples for job in jobs)
        length = max((job.spec.positions for job in jobs), default=0)
        slots, positions = self.slots.capacity
        return max(round_rows(rows), slots), max(round_length(length), positions)

    @torch.inference_mode()
    def score(self, jobs: Sequence[SampleJob]) -> None:
        """Serves jobs of one token each, which need no slot."""
        batch = PromptBatch(jobs, self._device)
        batch.run(self.model, None)
        for row in batch.rows:
            _close_if_done(row)

    @torch.inference_mode()
    def admit(self, jobs: Sequence[SampleJob]) -> None:
        """Adds jobs: runs their prompts into new slots and gives every row its first token."""
        batch = PromptBatch(jobs, self._device)
        used = len(self.rows)
        self.slots.reserve(*self.room_with(jobs), used=used)
        slots = slice(used, used + len(batch.rows))
        batch.run(self.model, PromptWriter(self.slots, slots, batch.of_row))
        self.rows += batch.rows
        lengths = torch.from_numpy(batch.lengths).to(self._device)[batch.of_row]
        self._lengths = torch.cat([self._lengths, lengths])
        self._last = torch.cat([self._last, torch.tensor([row.tokens[-1] for row in batch.rows], device=self._device)])
        self._longest = max(self._longest, int(batch.lengths.max()))
        self._choice = None
        self._drop_finished()

    @torch.inference_mode()
    def step(self) -> None:
        """Appends one token to every row."""
        span = min(round_length(self._longest + 1), self.slots.capacity[1])
        mask = torch.arange(span, device=self._device) <= self._lengths[:, None]
        hidden = self.model.hidden(
            self._last[:, None],
            cache=self.slots.at(self._lengths, span),
            positions=self._lengths[:, None],
            mask=mask[:, None, None, :],
        )
        tokens = self._choose(self.model.logits(hidden[:, 0]))
        self._last = tokens
        self._lengths = self._lengths + 1
        self._longest += 1
        self._drop_finished()

    def _choose(self, logits: Tensor) -> Tensor:
        if self._choice is None:
            self._choice = choice_rows([row.job.spec for row in self.rows], logits)
        noise = np.array([row.noise.draw() for row in self.rows])
        tokens, logprobs = choose(logits, self._choice, noise)
        for row, token, logprob in zip(self.rows, tokens.tolist(), logprobs.tolist(), strict=True):
            row.tokens.append(token)
            row.logprobs.append(logprob)
        return tokens

    def _drop_finished(self) -> None:
        done = {number for number, row in enumerate(self.rows) if _close_if_done(row)}
        if not done:
            return
        left = len(self.rows) - len(done)
        movers = [number for number in range(left, len(self.rows)) if number not in done]
        holes = [number for number in range(left) if number in done]
        order = list(range(left))
        if movers:
            self.slots.move(movers, holes, self._longest)
            for mover, hole in zip(movers, holes, strict=True):
                order[hole] = mover
        self.rows = [self.rows[number] for number in order]
        index = torch.tensor(order, dtype=torch.int64, device=self._device)
        self._last, self._lengths = self._last[index], self._lengths[index]
        self._longest = int(self._lengths.max()) if order else 0
        self._choice = None
        if not order:
            self.slots.clear()

    def fail(self, error: Exception) -> None:
        """Answers every request in the batch with an error and empties it."""
        for job in {id(row.job): row.job for row in self.rows}.values():
            job.fail(error)
        self.rows = []
        self._last, self._lengths = self._last[:0], self._lengths[:0]
        self._longest, self._choice = 0, None
        self.slots.clear()


def _close_if_done(row: Row) -> bool:
    """Hands a sequence over when it is finished or no longer wanted."""
    if row.job.cancelled:
        return True
    stopped = row.job.spec.stop.ends(row.tokens)
    if not stopped and len(row.tokens) < row.job.spec.max_tokens:
        return False
    row.job.add(row.index, Sampled(row.tokens, row.logprobs, stopped))
    return True
