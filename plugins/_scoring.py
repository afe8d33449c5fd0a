"""The scorer's view of an answer, for the trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from charrun import system, user

if TYPE_CHECKING:
    from charrun import RoleSampler, StageContext


class LogRatio:
    """How much likelier the constitution makes an answer to the scorer: log p(y | constitution, x) - log p(y | x)."""

    def __init__(self, ctx: StageContext, scorer: RoleSampler) -> None:
        self._ctx = ctx
        self._scorer = scorer
        self._constitution = system(ctx.character_prompt())

    async def of(self, prompt: str, answer: str) -> float:
        """Mean over the answer's tokens, in nats; the text rendered anew for the scorer's tokenizer."""
        chat = self._scorer.chat
        completion = chat.completion(answer)
        told, untold = await self._ctx.gather(
            [
                self._ctx.score(self._scorer, chat.prompt([self._constitution, user(prompt)]), completion),
                self._ctx.score(self._scorer, chat.prompt([user(prompt)]), completion),
            ]
        )
        return told - untold
