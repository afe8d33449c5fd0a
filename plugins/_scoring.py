"""What a scorer makes of an answer, for trainings and evaluations alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charrun import system, user

if TYPE_CHECKING:
    from charrun import RoleSampler, StageContext


class LogRatio:
    """How much likelier a constitution makes an answer y to x: log p(y | constitution, x) - log p(y | x).

    Mean over the answer's tokens, in nats; the text is rendered anew for the scorer's tokenizer.

    Args:
        ctx: The stage's context.
        scorer: The model that scores.
        constitutions: System prompts, by default the character's one.
        shared: Whether what several stages ask alike is asked once. The scorer's records are locked meanwhile, so a
            stage that takes long, such as a training, keeps its own.
    """

    def __init__(self, ctx: StageContext, scorer: RoleSampler, *constitutions: str, shared: bool = True) -> None:
        self.ctx = ctx
        self.shared = shared
        self.scorer = scorer
        self.constitutions = constitutions or (ctx.character_prompt(),)

    async def of(self, prompt: str, answer: str) -> float:
        """The ratio of the first constitution."""
        return (await self.each(prompt, answer))[0]

    async def each(self, prompt: str, answer: str) -> list[float]:
        """The ratio of each constitution; the plain prompt is scored once for all of them."""
        chat, asked = self.scorer.chat, user(prompt)
        completion = chat.completion(answer)
        told = [[system(constitution), asked] for constitution in self.constitutions]
        plain, *found = await self.ctx.gather(
            self.ctx.score(self.scorer, chat.prompt(messages), completion, shared=self.shared)
            for messages in ([asked], *told)
        )
        return [value - plain for value in found]
