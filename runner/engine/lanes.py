"""The sequences that decode together: prompts come in chunk by chunk while others go on; whoever ends leaves."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charrun.engine.blocks import BLOCK
from charrun.engine.choosing import Choices, Noise, choose
from charrun.engine.errors import RequestRefused
from charrun.engine.packed_batch import Computer, Network, TokenBatch
from charrun.engine.requests import PromptScores, SampleJob
from charrun.engine.requests import Sequence as Sampled
from charrun.engine.scoring import likeliest, score_prompt


@dataclass(eq=False)
class Lane:
    """One sequence being sampled.

    Attributes:
        job: Its request.
        index: Number of the sample within the request.
        weights: Key of the weights.
        network: The weights.
        blocks: The blocks of its positions, in order.
    """

    job: SampleJob
    index: int
    weights: str
    network: Network
    blocks: list[int]
    noise: Noise = field(init=False)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top_tokens: list[NDArray[np.int32]] = field(default_factory=list)
    top_logprobs: list[NDArray[np.float32]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.noise = Noise(self.job.spec.seed, self.index)

    @property
    def position(self) -> int:
        """Where the last sampled token goes."""
        return len(self.job.spec.prompt) + len(self.tokens) - 1

    def ended(self) -> bool:
        """Whether it stopped, reached its limit, or is no longer wanted."""
        spec = self.job.spec
        return self.job.cancelled or len(self.tokens) >= spec.max_tokens or spec.stop.ends(self.tokens)

    def result(self) -> Sampled:
        """The sequence."""
        tops = bool(self.top_tokens)
        return Sampled(
            self.tokens,
            self.logprobs,
            self.job.spec.stop.ends(self.tokens),
            np.stack(self.top_tokens) if tops else None,
            np.stack(self.top_logprobs) if tops else None,
        )


@dataclass(eq=False)
class Prompt:
    """A request whose prompt is being computed, with the lanes that it becomes.

    Attributes:
        lanes: One per sample; the first one's blocks take the prompt.
        done: Prompt tokens whose keys and values are computed.
        first_state: First position whose hidden state is wanted.
        computed: Whether the whole prompt is computed.
    """

    lanes: list[Lane]
    done: int
    first_state: int
    computed: bool = False

    @property
    def job(self) -> SampleJob:
        return self.lanes[0].job


@dataclass(frozen=True)
class _Chunk:
    """A part of a prompt: tokens `start` to `stop`."""

    prompt: Prompt
    start: int
    stop: int

    @property
    def network(self) -> Network:
        return self.prompt.lanes[0].network

    @property
    def chosen(self) -> range:
        """Positions whose hidden states are wanted."""
        return range(min(max(self.start, self.prompt.first_state), self.stop), self.stop)

    @property
    def complete(self) -> bool:
        return self.stop == len(self.prompt.job.spec.prompt)


@dataclass
class Turn:
    """What happened in some steps: lanes that ended, and prompts that are computed."""

    ended: list[Lane] = field(default_factory=list)
    completed: list[Prompt] = field(default_factory=list)
    error: Exception | None = None


class Lanes:
    """Sequences that go through the model together, each step one token further."""

    def __init__(self, computer: Computer, prompt_tokens: int) -> None:
        self._computer = computer
        self._prompt_tokens = prompt_tokens
        self._prompts: deque[Prompt] = deque()
        self._lanes: list[Lane] = []
        self._steady: _Steady | None = None

    @property
    def load(self) -> int:
        """About how much work a step is."""
        waiting = sum(len(prompt.job.spec.prompt) - prompt.done for prompt in self._prompts)
        return len(self._lanes) + waiting // 8

    @property
    def busy(self) -> bool:
        return bool(self._lanes or self._prompts)

    def add(self, prompt: Prompt) -> None:
        """Takes in a request."""
        self._prompts.append(prompt)

    def all_lanes(self) -> list[Lane]:
        """Every lane, those of unfinished prompts included."""
        return self._lanes + [lane for prompt in self._prompts for lane in prompt.lanes]

    def clear(self) -> None:
        """Forgets everything."""
        self._prompts.clear()
        self._lanes, self._steady = [], None

    def turn(self, steps: int) -> Turn:
        """Some steps, or fewer where nothing is left to do or something came out."""
        turn = Turn()
        try:
            for _ in range(steps):
                if self.busy:
                    self._step(turn)
        except Exception as error:
            turn.error = error
        return turn

    @torch.inference_mode()
    def _step(self, turn: Turn) -> None:
        chunks = self._next_chunks(turn)
        if self._steady is None:
            self._lanes.sort(key=lambda lane: lane.weights)
            self._steady = _Steady(self._lanes)
        batch = _with_chunks(self._steady.batch, chunks) if chunks else self._steady.batch
        if not len(batch.tokens):
            return
        hidden = self._computer.hidden(batch)
        # The chosen states are those of the lanes, then those of each chunk.
        places = len(self._lanes) + np.cumsum([0, *(len(chunk.chosen) for chunk in chunks)])
        for chunk, place in zip(chunks, places, strict=False):
            self._score(chunk, hidden[place : place + len(chunk.chosen)])
        begun = self._begin(chunks, turn)
        if chunks:
            complete = [number for number, chunk in enumerate(chunks) if chunk.complete]
            rows = [*range(len(self._lanes)), *(places[number + 1] - 1 for number in complete)]
            hidden = hidden[torch.tensor(rows, dtype=torch.int64, device=hidden.device)]
            networks = [(chunks[number].network, 1) for number in complete]
            logits = _logits(hidden, [*self._steady.batch.spans, *_spans(networks, len(self._lanes))])
            counts = [1] * len(self._lanes) + [len(chunks[number].prompt.lanes) for number in complete]
            self._choose(logits, np.repeat(np.arange(len(rows)), counts), begun)
        else:
            self._choose(_logits(hidden, self._steady.batch.spans), self._steady.sources, begun)
        self._drop_ended(turn, begun)

    def _next_chunks(self, turn: Turn) -> list[_Chunk]:
        """The prompt tokens of this step, equal weights together."""
        room = self._prompt_tokens
        chunks: list[_Chunk] = []
        for prompt in list(self._prompts):
            if prompt.job.cancelled:
                self._prompts.remove(prompt)
                turn.ended += prompt.lanes
                continue
            if room <= 0:
                break
            stop = min(prompt.done + room, len(prompt.job.spec.prompt))
            chunks.append(_Chunk(prompt, prompt.done, stop))
            room -= stop - prompt.done
        return sorted(chunks, key=lambda chunk: chunk.prompt.lanes[0].weights)

    def _score(self, chunk: _Chunk, states: Tensor) -> None:
        """Fills the chunk's part of its request's scores; the prompt's last state says nothing about the prompt."""
        job, first = chunk.prompt.job, chunk.chosen.start
        states = states[: len(states) - chunk.complete]
        if len(states):
            if job.scores is None:
                job.scores = PromptScores.empty(job.spec)
            score_prompt(chunk.network, states, first, job.spec, job.scores)

    def _begin(self, chunks: Sequence[_Chunk], turn: Turn) -> list[Lane]:
        """The lanes of prompts that are complete now; each gets its own copy of the prompt's last, unfilled block."""
        begun: list[Lane] = []
        for chunk in chunks:
            chunk.prompt.done = chunk.stop
            if chunk.complete:
                lanes, length = chunk.prompt.lanes, chunk.stop
                if length % BLOCK and len(lanes) > 1:
                    tail = length // BLOCK
                    others = [lane.blocks[tail] for lane in lanes[1:]]
                    self._computer.copy_block(lanes[0].blocks[tail], others)
                self._prompts.remove(chunk.prompt)
                turn.completed.append(chunk.prompt)
                begun += lanes
        return begun

    def _choose(self, logits: Tensor, sources: NDArray[np.int64], begun: Sequence[Lane]) -> None:
        """Gives each lane its next token; `sources` is the line of `logits` of each."""
        assert self._steady is not None
        lanes = [*self._lanes, *begun]
        choices = Choices.of([lane.job.spec for lane in lanes]) if begun else self._steady.choices
        uniforms = np.array([lane.noise.draw() for lane in lanes])
        tokens, logprobs = choose(logits, sources, choices, uniforms)
        for lane, token, logprob in zip(lanes, tokens.tolist(), logprobs.tolist(), strict=True):
            lane.tokens.append(token)
            lane.logprobs.append(logprob)
        for number in np.flatnonzero(~np.isfinite(logprobs)):
            job = lanes[number].job
            if not job.cancelled:
                job.cancelled = True
                job.fail(RequestRefused("The model gives no distribution here: its logits are not finite numbers."))
        for lane, source in zip(lanes, sources, strict=True):
            if lane.job.spec.top_sample:
                self._add_top(lane, logits[source])
        self._steady.advance(tokens[: len(self._lanes)])

    def _add_top(self, lane: Lane, logits: Tensor) -> None:
        norm = logits[lane.tokens[-1]].item() - lane.logprobs[-1]
        tokens, logprobs = likeliest(logits[None], np.array([norm], np.float32), lane.job.spec.top_sample)
        lane.top_tokens.append(tokens[0])
        lane.top_logprobs.append(logprobs[0])

    def _drop_ended(self, turn: Turn, begun: Sequence[Lane]) -> None:
        self._lanes += begun
        ended = [lane for lane in self._lanes if lane.ended()]
        if ended:
            gone = set(map(id, ended))
            self._lanes = [lane for lane in self._lanes if id(lane) not in gone]
            turn.ended += ended
        if ended or begun:
            self._steady = None


class _Steady:
    """The arrays of lanes that decode, kept from step to step as long as nobody comes or goes."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        count = len(lanes)
        widest = max((len(lane.blocks) for lane in lanes), default=1)
        tables = np.zeros((count, widest), np.int32)
        for row, lane in zip(tables, lanes, strict=True):
            row[: len(lane.blocks)] = lane.blocks
        every = np.arange(count)
        self.sources = every
        self.choices = Choices.of([lane.job.spec for lane in lanes])
        self.batch = TokenBatch(
            np.array([lane.tokens[-1] for lane in lanes], np.int64),
            np.array([lane.position for lane in lanes], np.int64),
            every,
            tables,
            every,
            _spans([(lane.network, 1) for lane in lanes]),
        )

    def advance(self, tokens: NDArray[np.int64]) -> None:
        """One token further."""
        self.batch.tokens[:] = tokens
        self.batch.positions[:] += 1


def _spans(parts: Sequence[tuple[Network, int]], start: int = 0) -> list[tuple[Network, int]]:
    """Networks and the ends of their tokens, from networks and numbers of tokens."""
    spans: list[tuple[Network, int]] = []
    end = start
    for network, count in parts:
        end += count
        if spans and spans[-1][0] is network:
            spans[-1] = (network, end)
        else:
            spans.append((network, end))
    return spans


def _with_chunks(steady: TokenBatch, chunks: Sequence[_Chunk]) -> TokenBatch:
    """The lanes' next tokens, and after them parts of prompts."""
    count = len(steady.tokens)
    firsts = [chunk.prompt.lanes[0] for chunk in chunks]
    tables = np.zeros(
        (count + len(chunks), max(steady.tables.shape[1], *(len(lane.blocks) for lane in firsts))), np.int32
    )
    tables[:count, : steady.tables.shape[1]] = steady.tables
    for row, lane in zip(tables[count:], firsts, strict=True):
        row[: len(lane.blocks)] = lane.blocks
    sizes = [chunk.stop - chunk.start for chunk in chunks]
    starts = count + np.cumsum([0, *sizes])[:-1]
    chosen = [
        start - chunk.start + np.array(chunk.chosen, np.int64) for start, chunk in zip(starts, chunks, strict=True)
    ]
    prompts = [chunk.prompt.job.spec.prompt[chunk.start : chunk.stop] for chunk in chunks]
    return TokenBatch(
        np.concatenate([steady.tokens, *prompts]),
        np.concatenate([steady.positions, *(np.arange(chunk.start, chunk.stop) for chunk in chunks)]),
        np.repeat(np.arange(len(tables)), [1] * count + sizes),
        tables,
        np.concatenate([np.arange(count), *chosen]),
        [*steady.spans, *_spans([(chunk.network, size) for chunk, size in zip(chunks, sizes, strict=True)], count)],
    )


def _logits(hidden: Tensor, spans: Sequence[tuple[Network, int]]) -> Tensor:
    """Logits [rows, vocabulary]; each network gives those of its own rows."""
    starts = [0, *(end for _, end in spans)]
    parts = [network.logits(hidden[start:end]) for start, (network, end) in zip(starts, spans, strict=False)]
    return parts[0] if len(parts) == 1 else torch.cat(parts) if parts else hidden[:0]
