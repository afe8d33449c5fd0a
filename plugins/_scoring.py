"""What a scorer makes of an answer, for trainings and evaluations alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charrun import system, user

if TYPE_CHECKING:
    from charrun import RoleSampler, StageContext


class LogRatio:
    """How much likelier a constitution makes an answer y to x: log p(y | constitution, x) - log p(y | x).

    Mean over the answer's tokens, in nats; the text is rendered anew for the scorer's tokenizer. What other stages of
    the run ask alike is asked once.

    Args:
        ctx: The stage's context.
        scorer: The model that scores.
        constitutions: System prompts, by default the character's one.
    """

    def __init__(self, ctx: StageContext, scorer: RoleSampler, *constitutions: str) -> None:
        self.ctx = ctx
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
            self.ctx.score(self.scorer, chat.prompt(messages), completion, shared=True) for messages in ([asked], *told)
        )
        return [value - plain for value in found]
