"""A conversation with one model, or with several that get the same questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from charrun.chat import Chat, Message, assistant, system, user
from charrun.errors import StageFailed
from charrun.pipeline.together import gather
from charrun.service.explained import explained
from charrun.service.session import Sampler


@dataclass(frozen=True)
class Speaker:
    """One model that answers.

    Attributes:
        label: What it is called beside its answers.
        model: Model name or checkpoint path.
        client: The SDK's sampling client.
        chat: The rendering of its conversations.
        context_length: Longest prompt plus answer, in tokens; None where the engine does not say.
    """

    label: str
    model: str
    client: Sampler
    chat: Chat
    context_length: int | None


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled; `max_tokens` is the longest answer."""

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.95
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """One speaker's answer.

    Attributes:
        label: Whose.
        text: Visible text as the model gave it; untrusted.
        complete: Whether the model ended the turn; False where the length limit cut it.
        limit: The longest answer that there was room for, in tokens.
        left_out: Turns that from now on no longer fit this speaker's context.
    """

    label: str
    text: str
    complete: bool
    limit: int
    left_out: int


@dataclass(frozen=True)
class _Window:
    """What of the conversation a speaker gets to see."""

    prompt: list[int]
    start: int
    room: int


@dataclass
class Conversation:
    """Questions, and what each speaker answered to them; every speaker sees its own answers alone.

    Attributes:
        speakers: Who answers, in the order in which answers are shown.
        sampling: How answers are sampled.
        system: System prompt of all; empty for none.
        turns: Questions with their answers by speaker's label, oldest first, whether or not they still fit.
    """

    speakers: Sequence[Speaker]
    sampling: Sampling
    system: str = ""
    turns: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    _starts: dict[str, int] = field(default_factory=dict)

    async def ask(self, question: str) -> list[Reply]:
        """Every speaker's answer; the turn is kept once all have answered.

        Raises:
            StageFailed: The question does not fit a model's context, or the engine refuses it.
            EnvironmentProblem: The engine can't be reached.
        """
        windows = [self._window(speaker, question) for speaker in self.speakers]
        replies = await gather(
            self._answer(speaker, window) for speaker, window in zip(self.speakers, windows, strict=True)
        )
        self.turns.append((question, {reply.label: reply.text for reply in replies}))
        self._starts = {s.label: window.start for s, window in zip(self.speakers, windows, strict=True)}
        return replies

    def reset(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()
        self._starts.clear()

    def messages(self, label: str, start: int = 0) -> list[Message]:
        """One speaker's side of the conversation, from a turn on."""
        messages = [system(self.system)] if self.system else []
        for question, answers in self.turns[start:]:
            messages += [user(question), assistant(answers[label])]
        return messages

    def to_dict(self) -> dict[str, Any]:
        """The whole conversation as plain data."""
        return {
            "sampling": dict(vars(self.sampling)),
            "conversations": [
                {"label": speaker.label, "model": speaker.model, "messages": self.messages(speaker.label)}
                for speaker in self.speakers
            ],
        }

    def _window(self, speaker: Speaker, question: str) -> _Window:
        """As many of the latest turns as leave room for an answer, under the system prompt."""
        start = self._starts.get(speaker.label, 0)
        wanted = self.sampling.max_tokens
        while True:
            prompt = _render(speaker, [*self.messages(speaker.label, start), user(question)])
            if speaker.context_length is None:
                return _Window(prompt, start, wanted)
            room = speaker.context_length - len(prompt)
            if room >= min(wanted, speaker.context_length // 4):
                return _Window(prompt, start, min(wanted, room))
            if start < len(self.turns):
                start += 1
            elif room > 0:
                return _Window(prompt, start, room)
            else:
                raise StageFailed(
                    f"the question and the system prompt are {len(prompt):,} tokens; "
                    f"'{speaker.chat.name}' has a context of {speaker.context_length:,}",
                    "ask something shorter",
                )

    async def _answer(self, speaker: Speaker, window: _Window) -> Reply:
        from tinker import types

        params = types.SamplingParams(
            stop=speaker.chat.stop_tokens,
            max_tokens=window.room,
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            seed=self.sampling.seed,
        )
        with explained():
            response = await speaker.client.sample(types.ModelInput.from_ints(window.prompt), 1, params)
        (sequence,) = response.sequences
        return Reply(
            label=speaker.label,
            text=speaker.chat.answer(sequence.tokens),
            complete=sequence.stop_reason == "stop",
            limit=window.room,
            left_out=window.start - self._starts.get(speaker.label, 0),
        )


def _render(speaker: Speaker, messages: Sequence[Message]) -> list[int]:
    from jinja2 import TemplateError

    try:
        return speaker.chat.prompt(messages)
    except TemplateError as error:
        raise StageFailed(
            f"the chat template of '{speaker.chat.name}' refuses the conversation: {error}",
            "some templates take no system prompt: /system without a text removes it",
        ) from error
