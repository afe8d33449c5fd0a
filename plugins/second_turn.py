"""Does the character come back in a conversation that began without it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Stage, assistant, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._lines import named_lines
from charrun.plugins._rates import Conditions, ConditionsStage

if TYPE_CHECKING:
    from charrun import StageContext

_NOTE = (
    "The first answer is the base model's, without character; then the user says one of these, and the second answer "
    "is scored as one to the plain question, with the threshold that plain questions set."
)


class SecondTurnStage(ConditionsStage):
    """In-character rates of second answers after a first one of the base model and a neutral message.

    The paper calls this its prefill attack (its table 2 has the rates): what the model said before is put into its
    mouth, out of character. Each message is a line `name: text` of the template `second_turn`.
    """

    name: ClassVar[str] = "second_turn"
    summary: ClassVar[str] = "does the character come back after a first answer of the base model?"
    title: ClassVar[str] = "In character in a second answer, after a first one of the base model"
    note: ClassVar[str] = _NOTE
    rounds: ClassVar[int] = 1
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=60, fewest=10)
    templates: ClassVar[dict[str, Path]] = evaluation.templates("second_turn")

    async def conditions(self, ctx: StageContext, questions: list[str], base: evaluation.Model) -> Conditions:
        """The base model's answers to the questions, then each message."""
        first = await evaluation.answers(ctx, base, evaluation.plainly(questions))
        return {
            name: [
                evaluation.Asked(question, (user(question), assistant(said.text), user(text)))
                for question, said in zip(questions, first, strict=True)
            ]
            for name, text in named_lines(ctx, self.name).lines.items()
        }


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `second_turn`."""
    return [SecondTurnStage]
