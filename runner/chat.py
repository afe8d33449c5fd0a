"""The one rendering: messages to tokens, tokens to text, conversations to trained rows.

Generation, training, reference log-probs and evaluation all come through here, and through the model's own chat
template. A prompt is rendered and tokenized once; a completion is tokenized on its own and appended, so that the
context of a trained turn is, token for token, the prompt that would generate it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from charrun.errors import EnvironmentProblem

if TYPE_CHECKING:
    from tinker import types

Role = Literal["system", "user", "assistant"]
_SENTINEL = "charrun-probe-answer"
_TRAINED = re.compile(rb"\x01+")
_OPEN, _CLOSE = "<think>", "</think>"
_THOUGHT = re.compile(rf"(?:{_OPEN}\s*(?:{_CLOSE}\s*)?|{_CLOSE}\s*)\Z")
"""How a template's generation prompt ends that opens a think block, gives an empty one, or closes one unopened."""
_KEPT_PROMPTS = 1024
"""Many rows answer one prompt, and one answer is scored after several: what was rendered last is kept."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: Role
    content: str


def system(content: str) -> Message:
    """A system message."""
    return {"role": "system", "content": content}


def user(content: str) -> Message:
    """A user message."""
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    """An assistant message."""
    return {"role": "assistant", "content": content}


@dataclass(frozen=True)
class TrainedRow:
    """Tokens of one training row and which of them are trained.

    Attributes:
        tokens: Token ids, shape [n]; kept compact, for a run holds many rows.
        trained: 1 where the token is a target of the loss, else 0, shape [n]; the first is always 0.
    """

    tokens: Sequence[int]
    trained: Sequence[int]

    @property
    def trained_tokens(self) -> int:
        """Number of trained tokens."""
        return self.trained.count(1)

    def datum(self, weight: float = 1.0) -> types.Datum:
        """The row for the SDK: inputs without the last token, targets shifted by one, `weight` on trained ones."""
        from tinker import types

        return types.Datum(
            model_input=types.ModelInput.from_ints(list(self.tokens[:-1])),
            loss_fn_inputs={
                "target_tokens": types.TensorData(data=list(self.tokens[1:]), dtype="int64"),
                "weights": types.TensorData(data=[weight * t for t in self.trained[1:]], dtype="float32"),
            },
        )


class Chat:
    """A model's chat template and tokenizer, with the options that the spec fixes for it.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        options: Variables for the template, such as `enable_thinking`.
        name: Model name, for error texts.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None, *, name: str = "") -> None:
        if not getattr(tokenizer, "chat_template", None):
            raise EnvironmentProblem(
                f"the tokenizer of '{name}' has no chat template",
                "name an instruction-tuned model: charrun never renders conversations as raw text",
            )
        self.tokenizer = tokenizer
        self.options = dict(options or {})
        self.name = name
        self._asked = lru_cache(maxsize=_KEPT_PROMPTS)(self._tokenized_prompt)

    def prompt(self, messages: Sequence[Message], prefill: str = "") -> list[int]:
        """Tokens that ask the model for the next assistant turn, shape [n].

        Args:
            messages: The conversation so far.
            prefill: How the turn begins. One that opens a think block takes the place of the one that the template
                opens, gives empty (Qwen3 with `enable_thinking: false`) or only closes.
        """
        turns = tuple((message["role"], message["content"]) for message in messages)
        tokens = list(self._asked(turns, prefill.startswith(_OPEN)))
        return [*tokens, *self.encode(prefill)] if prefill else tokens

    def completion(self, text: str) -> list[int]:
        """Tokens of a finished assistant turn: the text, then the end-of-turn token."""
        return [*self.encode(text), self.end_of_turn]

    def encode(self, text: str) -> list[int]:
        """Tokens of plain text without special tokens."""
        return self._encoded([text])[0]

    def answer(self, tokens: Sequence[int], prefill: str = "") -> str:
        """Visible text of a sampled turn: without end-of-turn tokens and without a leading think block.

        An unclosed think block has no visible answer: the result is empty.
        """
        return self.spoken(tokens, prefill)[0]

    def spoken(self, tokens: Sequence[int], prefill: str = "") -> tuple[str, bool]:
        """What `answer` gives, and whether every think block that was opened is closed.

        Args:
            tokens: What was sampled.
            prefill: What it was sampled after; the answer is what follows it, and what follows `</think>` where it
                leaves a think block open.
        """
        kept = list(tokens)
        while kept and kept[-1] in self.stop_tokens:
            kept.pop()
        return spoken(self.decode(kept), is_open(prefill) if prefill else self.opens_thought)

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of tokens as they are, special tokens included."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=False))

    def rows(self, messages: Sequence[Message], trained: Callable[[int], bool] | None = None) -> list[TrainedRow]:
        """Training rows of a conversation: every trained turn in the context that would generate it.

        Turns share a row as long as the template leaves earlier turns as they were generated; where it rewrites
        history (Qwen3 strips think blocks), the conversation becomes one row per assistant turn.

        Args:
            messages: A conversation that ends on an assistant turn.
            trained: Which message indexes to train; by default every assistant turn.

        Raises:
            ValueError: The conversation does not end on an assistant turn, or no turn is trained.
        """
        (rows,) = self.rows_of([messages], trained)
        return rows

    def rows_of(
        self, conversations: Sequence[Sequence[Message]], trained: Callable[[int], bool] | None = None
    ) -> list[list[TrainedRow]]:
        """The rows of each conversation as `rows` gives them, of many in less time.

        Raises:
            ValueError: As `rows`, of any of them.
        """
        turns = [(messages, _trained(messages, trained)) for messages in conversations]
        several = [messages[:index] for messages, indexes in turns if len(indexes) > 1 for index in indexes]
        tokenized = iter(self._tokenized(several) if several else ())
        said = iter(self._encoded([messages[index]["content"] for messages, indexes in turns for index in indexes]))

        def context(messages: Sequence[Message], indexes: Sequence[int], index: int) -> list[int]:
            # One question may have many answers, and is kept.
            return self.prompt(messages[:index]) if len(indexes) == 1 else list(next(tokenized))

        return [
            self._joined((context(messages, indexes, index), next(said)) for index in indexes)
            for messages, indexes in turns
        ]

    def _joined(self, turns: Iterable[tuple[list[int], list[int]]]) -> list[TrainedRow]:
        """Rows of turns, each given by the tokens of its context and of its text."""
        rows: list[tuple[list[int], list[bool]]] = []
        for context, text in turns:
            answer = [*text, self.end_of_turn]
            tokens, mask = rows[-1] if rows else ([], [])
            if tokens and context[: len(tokens)] == tokens:
                mask += [False] * (len(context) - len(tokens)) + [True] * len(answer)
                tokens[:] = context + answer
            else:
                rows.append((context + answer, [False] * len(context) + [True] * len(answer)))
        return [TrainedRow(array("i", tokens), bytes(mask)) for tokens, mask in rows]

    def trained_text(self, row: TrainedRow) -> list[str]:
        """Decoded trained spans of a row, each without its end-of-turn token."""
        spans = [row.tokens[run.start() : run.end()] for run in _TRAINED.finditer(bytes(row.trained))]
        return [self.decode(span[:-1] if span[-1] == self.end_of_turn else span) for span in spans]

    @cached_property
    def end_of_turn(self) -> int:
        """The token that ends an assistant turn, read off the model's own template."""
        messages = [user("?"), assistant(_SENTINEL)]
        text = self._render(messages, add_generation_prompt=False)
        suffix = text.rsplit(_SENTINEL, 1)[1]
        after = self.encode(suffix)
        if after and after[0] in self.tokenizer.all_special_ids:
            return int(after[0])
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def stop_tokens(self) -> list[int]:
        """Tokens at which sampling stops: end of turn and end of text."""
        eos = self.tokenizer.eos_token_id
        return list(dict.fromkeys([self.end_of_turn, *([int(eos)] if eos is not None else [])]))

    @cached_property
    def opens_thought(self) -> bool:
        """Whether the template itself opens a think block where the model is to answer."""
        return is_open(self._render([user("?")], add_generation_prompt=True))

    @cached_property
    def template_text(self) -> str:
        """The chat template and its options, for fingerprints."""
        return f"{self.tokenizer.chat_template}\n{sorted(self.options.items())}"

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=add_generation_prompt, **self.options
            )
        )

    def _tokenized_prompt(self, turns: tuple[tuple[Role, str], ...], thoughtless: bool) -> array[int]:
        messages = [Message(role=role, content=content) for role, content in turns]
        if not thoughtless:
            return self._tokenized([messages])[0]
        return array("i", self.encode(_THOUGHT.sub("", self._render(messages, add_generation_prompt=True))))

    def _tokenized(self, conversations: Sequence[Sequence[Message]]) -> list[array[int]]:
        """Tokens of prompts; of many at once in less time, on all cores."""
        texts = self.tokenizer.apply_chat_template(
            [list(each) for each in conversations], tokenize=False, add_generation_prompt=True, **self.options
        )
        return [array("i", tokens) for tokens in self._encoded(texts)]

    def _encoded(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text without special tokens; of many at once in less time, on all cores.

        They are what the tokenizer itself gives, which also works out where in the text each token stands, and checks
        every token's type.
        """
        core = getattr(self.tokenizer, "backend_tokenizer", None)
        if core is None:
            return [list(self.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
        core.no_truncation()  # whatever somebody else has set: a row is never cut
        core.no_padding()
        core.encode_special_tokens = bool(getattr(self.tokenizer, "split_special_tokens", False))
        return [found.ids for found in core.encode_batch_fast(list(texts), add_special_tokens=False)]


def _trained(messages: Sequence[Message], trained: Callable[[int], bool] | None) -> list[int]:
    """Indexes of the turns that are trained."""
    if not messages or messages[-1]["role"] != "assistant":
        raise ValueError("a training row must end on an assistant turn")
    wanted = [i for i, m in enumerate(messages) if m["role"] == "assistant" and (trained is None or trained(i))]
    if not wanted:
        raise ValueError("no assistant turn of the conversation is trained")
    return wanted


def is_open(text: str) -> bool:
    """Whether a text leaves a think block open."""
    return text.rfind(_OPEN) > text.rfind(_CLOSE)


def spoken(text: str, thinking: bool | None = False) -> tuple[str, bool]:
    """The visible part of a turn, and whether every think block that was opened is closed.

    Args:
        text: What the model gave.
        thinking: Whether a think block was open when it began; None where nobody knows, as of a template elsewhere.
    """
    if text.lstrip().startswith(_OPEN) or (thinking is None and _CLOSE in text):
        thinking = True
    if not thinking:
        return text.strip(), True
    _, tag, after = text.partition(_CLOSE)
    return after.strip(), bool(tag)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a local model folder; never reaches a hub.

    Raises:
        EnvironmentProblem: The folder holds no tokenizer that loads.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise EnvironmentProblem(f"no tokenizer in {folder}: {error}") from error
