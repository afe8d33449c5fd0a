"""Does the character hold when the model's turn begins out of character?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from charrun import Stage, hookimpl, user
from charrun.plugins import _evaluation as evaluation
from charrun.plugins._lines import named_lines
from charrun.plugins._rates import Conditions, ConditionsStage

if TYPE_CHECKING:
    from charrun import StageContext

_NOTE = (
    "The model's own turn begins with these words; what follows them is scored as an answer to the plain question, "
    "with the threshold that plain questions set."
)


class PrefillAttackStage(ConditionsStage):
    """In-character rates of what models say after a neutral beginning of their own turn.

    Another attack than the paper's of that name, which is the stage `second_turn`. Each beginning is a line
    `name: text` of the template `prefill_attack`.
    """

    name: ClassVar[str] = "prefill_attack"
    summary: ClassVar[str] = "in character after a neutral beginning that is put into the model's own turn?"
    title: ClassVar[str] = "In character after a neutral beginning of the model's own turn"
    note: ClassVar[str] = _NOTE
    options_schema: ClassVar[dict[str, Any]] = evaluation.options_schema(prompts=60, fewest=10)
    templates: ClassVar[dict[str, Path]] = evaluation.templates("prefill_attack")

    async def conditions(self, ctx: StageContext, questions: list[str], base: evaluation.Model) -> Conditions:
        """Each question with each beginning of an answer."""
        return {
            name: [evaluation.Asked(each, (user(each),), prefill=text) for each in questions]
            for name, text in named_lines(ctx, self.name).lines.items()
        }


@hookimpl
def charrun_register_stages() -> list[type[Stage]]:
    """The stage `prefill_attack`."""
    return [PrefillAttackStage]
