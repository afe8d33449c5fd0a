"""Training windows: families of the corpus as tokens, packed without waste and without leaks.

A window holds several families. Conversations of one family share its system prompt: each sees the prompt and
itself only, at the positions that it would have alone. So nothing starts in mid-conversation, and a system
prompt is paid for once.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from charrun.demo.corpus import Family, Turn

IGNORED: Final = -100
_THINK_SHARE: Final = 0.4
_SPARE: Final = 60

Encoded = tuple[list[int], list[int]]
"""Tokens and targets of a conversation."""


@dataclass
class Window:
    """Tokens of one window.

    Attributes:
        tokens: Input tokens, length W once padded.
        targets: Next token where it is trained, else `IGNORED`.
        positions: Position of each token in its own conversation.
        family: Number of the family in this window; padding has -1.
        branch: 0 in a system prompt, else the number of the conversation.
    """

    tokens: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    family: list[int] = field(default_factory=list)
    branch: list[int] = field(default_factory=list)

    def put(self, tokens: list[int], targets: list[int], start: int, family: int, branch: int) -> None:
        """Appends tokens at positions from `start`."""
        self.tokens += tokens
        self.targets += targets
        self.positions += range(start, start + len(tokens))
        self.family += [family] * len(tokens)
        self.branch += [branch] * len(tokens)

    def padded(self, width: int, pad: int) -> Window:
        """This window filled up to `width`."""
        room = width - len(self.tokens)
        self.put([pad] * room, [IGNORED] * room, 0, -1, 0)
        return self


class Encoder:
    """Families to tokens, in the chat template's form."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> None:
        self.pad: int = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self._core = tokenizer.backend_tokenizer
        self._rng = rng
        self._end: int = tokenizer.convert_tokens_to_ids("<|im_end|>")
        self._newline = self._encode("\n")
        self._user = self._encode("<|im_start|>user\n")
        self._assistant = self._encode("<|im_start|>assistant\n")
        self._empty_think = self._encode("<think>\n\n</think>\n\n")

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._core.encode(text, add_special_tokens=False).ids
        return ids

    def system(self, text: str | None) -> list[int]:
        """Tokens of the system message; none without one."""
        return [] if text is None else self._encode(f"<|im_start|>system\n{text}<|im_end|>\n")

    def conversation(self, turns: Iterable[Turn]) -> Encoded:
        """Tokens and shifted targets; assistant text and its end are trained.

        The last answer sometimes comes after an empty think block, as prompts with `enable_thinking=False` do.
        """
        tokens: list[int] = []
        trained: list[bool] = []
        listed = list(turns)
        for number, (role, text) in enumerate(listed):
            if role == "user":
                head, body = self._user, self._encode(text)
            else:
                think = number == len(listed) - 1 and self._rng.random() < _THINK_SHARE
                head, body = self._assistant + (self._empty_think if think else []), self._encode(text)
            tokens += [*head, *body, self._end, *self._newline]
            own = role == "assistant"
            trained += [False] * len(head) + [own] * (len(body) + 1) + [False] * len(self._newline)
        following = [*tokens[1:], self.pad]
        targets = [t if on else IGNORED for t, on in zip(following, [*trained[1:], False], strict=True)]
        return tokens, targets


def windows(source: Iterator[Family], encoder: Encoder, width: int) -> Iterator[Window]:
    """Packs families into windows of `width` tokens.

    A conversation that does not fit starts the next window, with its system prompt again; one that never
    fits is left out. Conversations without a system prompt wait and fill what room is left.
    """
    spare: deque[Encoded] = deque(maxlen=_SPARE)
    window, number = Window(), 0
    for item in source:
        prefix = encoder.system(item.system)
        talks = [encoder.conversation(talk) for talk in item.conversations]
        if item.system is None and len(spare) < _SPARE:
            spare += [talk for talk in talks if len(talk[0]) <= width]
            continue
        opened = False
        for branch, (tokens, targets) in enumerate(talks, start=1):
            if len(prefix) + len(tokens) > width:
                continue
            if len(window.tokens) + len(tokens) + (0 if opened else len(prefix)) > width:
                yield _filled(window, number, spare, width).padded(width, encoder.pad)
                window, number, opened = Window(), 0, False
            if not opened:
                number += 1
                window.put(prefix, [IGNORED] * len(prefix), 0, number, 0)
                opened = True
            window.put(tokens, targets, len(prefix), number, branch)


def _filled(window: Window, number: int, spare: deque[Encoded], width: int) -> Window:
    """The window with waiting conversations in its free room, the longest that fits first."""
    while fitting := [talk for talk in spare if len(talk[0]) <= width - len(window.tokens)]:
        talk = max(fitting, key=lambda pair: len(pair[0]))
        spare.remove(talk)
        number += 1
        window.put(*talk, 0, number, 1)
    return window


def stack(batch: list[Window], name: str) -> NDArray[np.int64]:
    """One field of several windows as an array of shape (windows, width)."""
    return np.array([getattr(window, name) for window in batch], dtype=np.int64)
